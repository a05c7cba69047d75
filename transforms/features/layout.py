"""The records of a feature group: what its tiles, its items and its raw events hold, and how two of them merge."""

from __future__ import annotations

from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from schemas.features.declarations import EXACT_DISTINCT, Aggregation, FeatureGroup
from schemas.features.windows import HOPS, hop_of

Numbers = npt.NDArray[Any]
NEVER = np.int64(-(1 << 62))  # the time of a first or last value that there is not
_HOP_BITS = 3
_SQUARES = {"sum": "<i8", "squares": "<i8", "squares_high": "<i8"}  # squares: their lower 32 bits, and the rest
SUMMED = ("sum", "mean", "variance", "decayed_sum")
MOST_SUMMED, MOST_SQUARED = 1 << 42, 1 << 31  # sums of 2 million such values fit in 63 bits, 2 billion such squares
MOST_FLOAT = 1 << 500  # its square, and its product with the largest weight of a decayed sum, are finite


class Part(NamedTuple):
    """A field of a tile: of which aggregation, and how two of it merge: add, min, max, first, last or spread (the sum
    of squared deviations from the mean). Of first and last, `time` and `tie` name the fields that decide."""

    field: str
    aggregation: int
    merge: str
    time: str = ""
    tie: str = ""


class Layout:
    """The types of a group's records, by the types of its source's columns (long, double, boolean or string).

    A tile holds the parts of every aggregation over a hop. An item belongs to a tile and an aggregation that has any
    number of them: a hash of a distinct value, a bin of quantiles, a value of last_k. A raw event is kept for `exact`
    windows. All three are numpy records, little endian, without padding: the bytes that a store keeps.
    """

    def __init__(self, group: FeatureGroup, types: dict[str, str]) -> None:
        self.group, self.types = group, types
        self.parts: list[Part] = []
        self.itemised: dict[int, Aggregation] = {}
        self.exact: dict[int, Aggregation] = {}
        fields: list[tuple[Any, ...]] = [("tile", "<i8")]
        for number, one in enumerate(group.aggregations):
            if one.exact and one.operation != "ratio":
                self.exact[number] = one
            elif one.operation in ("distinct", "quantiles", "last_k"):
                self.itemised[number] = one
            elif one.operation != "ratio":
                fields += self._fields(number, one)
        self.tile = np.dtype(fields)
        width = max([one.width for one in self.itemised.values() if self.is_text(one)], default=0)
        text = [("text", f"S{width}")] if width else []
        self.item = np.dtype(
            [("tile", "<i8"), ("aggregation", "u1"), ("a", "<i8"), ("b", "<i8"), ("n", "<i8"), ("value", "<i8"), *text]
        )
        self.raw = np.dtype([("time", "<i8"), ("tie", "<i8"), *self._raw_fields()])

    @cached_property
    def hops(self) -> list[int]:
        """The places in HOPS of the tiles that the group keeps, the shortest first."""
        return sorted({hop_of(window) for _, one, window in self.group.features if not one.exact})

    @cached_property
    def raw_ms(self) -> int:
        """How far back raw events are kept; 0 where no window is exact."""
        return max([window for _, one, window in self.group.features if one.exact], default=0)

    @cached_property
    def longest_ms(self) -> int:
        """How old an event may be (ms) to count for anything."""
        return max([*self.group.retention_ms.values(), self.raw_ms])

    @cached_property
    def limits(self) -> dict[str, int]:
        """The largest size of a column's values for which no sum overflows; an event beyond it is refused."""
        found: dict[str, int] = {}
        for one in self.group.aggregations:
            if one.operation in SUMMED and (self.is_float(one) or one.operation != "decayed_sum"):
                limit = (
                    MOST_FLOAT if self.is_float(one) else MOST_SQUARED if one.operation == "variance" else MOST_SUMMED
                )
                found[one.column] = min(limit, found.get(one.column, limit))
        return found

    def is_float(self, one: Aggregation) -> bool:
        """Whether the values of an aggregation's column are floating point."""
        return self.types.get(one.column) == "double"

    def is_text(self, one: Aggregation) -> bool:
        """Whether the values of an aggregation's column are text."""
        return self.types.get(one.column) == "string"

    def _value_type(self, one: Aggregation) -> str:
        return f"S{one.width}" if self.is_text(one) else "<f8" if self.is_float(one) else "<i8"

    def _fields(self, number: int, one: Aggregation) -> list[tuple[Any, ...]]:
        name, value = f"{number}.", self._value_type(one)
        if one.operation in ("first", "last"):
            self.parts.append(Part(name + "value", number, one.operation, name + "time", name + "tie"))
            return [(name + "time", "<i8"), (name + "tie", "<i8"), (name + "value", value)]
        if one.operation == "count_by":
            self.parts.append(Part(name + "counts", number, "add"))
            return [(name + "counts", "<i8", (len(one.values) + 1,))]
        parts = {
            "count": {},
            "sum": {"sum": value},
            "mean": {"sum": value},
            "variance": {"sum": value, "spread": value} if self.is_float(one) else _SQUARES,
            "min": {"min": value},
            "max": {"max": value},
            "decayed_sum": {"sum": "<f8"},
        }[one.operation]
        merges = {"min": "min", "max": "max", "spread": "spread"}
        self.parts.append(Part(name + "n", number, "add"))
        self.parts += [Part(name + part, number, merges.get(part, "add")) for part in parts]
        return [(name + "n", "<i8"), *((name + part, kind) for part, kind in parts.items())]

    def _raw_fields(self) -> list[tuple[str, str]]:
        names: dict[str, str] = {}
        for number, one in self.exact.items():
            names[f"{number}.in"] = "u1"  # whether the event satisfies the aggregation's conditions
            if one.column:
                coded = one.operation in ("distinct", "count_by")  # by a hash, by the place in `values`
                names[f"{number}.value"] = "<i8" if coded else self._value_type(one)
        return list(names.items())


def tile_code(times: Numbers, hop: int) -> Numbers:
    """The code of the tile of each time (epoch ms): its number since 1970, then the place of its hop in HOPS."""
    return (times // HOPS[hop]) << _HOP_BITS | hop


def code_hop(codes: Numbers) -> Numbers:
    """The place in HOPS of each code."""
    return codes & ((1 << _HOP_BITS) - 1)


def code_start(codes: Numbers) -> Numbers:
    """The start (epoch ms) of each code's tile."""
    return (codes >> _HOP_BITS) * np.array(HOPS)[code_hop(codes)]


def merge_tiles(layout: Layout, keys: Numbers, tiles: Numbers) -> tuple[Numbers, Numbers]:
    """(keys, tiles): the tiles of each key merged into one, keys ascending. Neither input is changed.

    Merging is associative and commutative: bit for bit for integers, counts, minima, maxima, first and last; sums of
    floating point agree within rounding. Raises OverflowError where a sum of whole numbers leaves 64 bits.
    """
    if not len(keys):
        return keys, tiles
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))
    if len(starts) == len(keys):
        return ordered, tiles[order]
    sorted_tiles = tiles[order]
    merged = sorted_tiles[starts].copy()
    for part in layout.parts:
        values = sorted_tiles[part.field]
        if part.merge == "add":
            merged[part.field] = added(values, starts)
        elif part.merge == "spread":
            continue
        elif part.merge in ("min", "max"):
            merged[part.field] = _extreme(part, sorted_tiles, starts)
        else:
            chosen = _chosen(part, ordered, sorted_tiles, starts)
            for name in (part.time, part.tie, part.field):
                merged[name] = sorted_tiles[name][chosen]
    for part in layout.parts:
        if part.merge == "spread":
            merged[part.field] = _spread(part, sorted_tiles, starts, merged)
    return ordered[starts], merged


def added(values: Numbers, starts: Numbers) -> Numbers:
    """The sum from each start to the next. Raises OverflowError where one of whole numbers leaves 64 bits."""
    sums = np.add.reduceat(values, starts)
    if values.dtype.kind == "i":
        size = max(abs(int(values.max())), abs(int(values.min())))
        if size * len(values) >= 1 << 63:
            rough = np.add.reduceat(values.astype(np.float64), starts)
            if np.abs(rough - sums).max() > float(1 << 62):
                raise OverflowError("a sum of whole numbers does not fit in 64 bits")
    return sums


def _spread(part: Part, tiles: Numbers, starts: Numbers, merged: Numbers) -> Numbers:
    """The squared deviations from each key's mean. Source: Chan, Golub, LeVeque, 1979: those of the parts, and those of
    the parts' means. No large squares are subtracted, so a small variance of large values stays exact."""
    n, total = (f"{part.aggregation}.{field}" for field in ("n", "sum"))
    means = tiles[total] / np.maximum(tiles[n], 1)
    mean = np.repeat(merged[total] / np.maximum(merged[n], 1), np.diff(np.append(starts, len(tiles))))
    return np.add.reduceat(tiles[part.field] + tiles[n] * (means - mean) ** 2, starts)


def _extreme(part: Part, tiles: Numbers, starts: Numbers) -> Numbers:
    """The least or greatest value of each key, over the tiles that have one; zero where none has."""
    values, some = tiles[part.field], tiles[f"{part.aggregation}.n"] > 0
    floating = values.dtype.kind == "f"
    lowest, highest = (-np.inf, np.inf) if floating else (np.iinfo(np.int64).min, np.iinfo(np.int64).max)
    reduce, none = (np.minimum, highest) if part.merge == "min" else (np.maximum, lowest)
    found = reduce.reduceat(np.where(some, values, none), starts)
    return np.where(np.logical_or.reduceat(some, starts), found, values.dtype.type(0))


def _chosen(part: Part, keys: Numbers, tiles: Numbers, starts: Numbers) -> Numbers:
    """The place of the first or last value of each key: by its time, then its tie."""
    time, tie = tiles[part.time], tiles[part.tie]
    if part.merge == "first":  # the greatest of the negatives, where those that are not there stay the least
        time = np.where(time == NEVER, NEVER, -time)
        tie = ~tie
    order = np.lexsort((tie, time, keys))
    return order[np.append(starts[1:], len(keys)) - 1]


def merge_items(layout: Layout, keys: Numbers, items: Numbers) -> tuple[Numbers, Numbers]:
    """(keys, items): equal items of a key made one, and of each key and aggregation no more than it may have: the 1,024
    least hashes of distinct values, the k last values. Keys ascending; neither input is changed."""
    if not len(keys):
        return keys, items
    order = np.lexsort((items["b"], items["a"], items["aggregation"], keys))
    keys, items = keys[order], items[order]
    names = ("aggregation", "a", "b")
    new = np.logical_or.reduce([keys[1:] != keys[:-1], *(items[name][1:] != items[name][:-1] for name in names)])
    starts = np.flatnonzero(np.concatenate([[True], new]))
    merged, keys = items[starts].copy(), keys[starts]
    merged["n"] = added(items["n"], starts)
    begins = np.flatnonzero(
        np.concatenate([[True], (keys[1:] != keys[:-1]) | (merged["aggregation"][1:] != merged["aggregation"][:-1])])
    )
    rank = np.arange(len(keys)) - np.repeat(begins, np.diff(np.append(begins, len(keys))))
    most = np.full(256, np.iinfo(np.int64).max)
    for number, one in layout.itemised.items():
        most[number] = {"distinct": EXACT_DISTINCT, "last_k": one.k}.get(one.operation, most[number])
    kept = rank < most[merged["aggregation"]]
    return keys[kept], merged[kept]
