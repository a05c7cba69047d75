"""The values of one entity, without numpy: for one entity its calls cost more than the arithmetic.

`values_at` is the meaning; a property test holds that both give the same values, bit for bit.
"""

from __future__ import annotations

import struct
from bisect import bisect_left
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from schemas.features.declarations import Aggregation
from schemas.features.stamps import STAMP_BYTES
from schemas.features.windows import HOPS, hop_of
from transforms.features.layout import NEVER, Layout
from transforms.features.rows import decode_rows
from transforms.features.tiles import Parts
from transforms.features.values import known_values, ratio_of

Columns = list[tuple[Any, ...]]  # the fields of some tiles: for each field its values
Final = Callable[[Columns], Any]
_COUNTS = struct.Struct("<II")
_HEADER = STAMP_BYTES + _COUNTS.size
_TIME = struct.Struct("<q")  # what items and raw events begin with
_FIRST = np.zeros(1, np.int64)
_HOP_BITS, _HOP = 3, 7
_NEVER = int(NEVER)


class EntityValues(NamedTuple):
    """The values in the order of the names, None where nothing is known, and when the newest event was (epoch ms; None
    where none is known)."""

    values: list[Any]
    newest: int | None


class _Window(NamedTuple):
    """Features over the same tiles: the window, its hop, and the place and function of each feature."""

    window: int
    hop: int
    finals: list[tuple[int, Final]]


class EntityPlan:
    """How some features of a group, each named once, are computed from the rows of an entity: worked out once, used
    for every read."""

    def __init__(self, layout: Layout, names: Sequence[str]) -> None:
        self._layout, self._count = layout, len(names)
        features = {name: (one, window) for name, one, window in layout.group.features}
        ratios = {name: features[name][0] for name in names if features[name][0].operation == "ratio"}
        below = [other for name, one in ratios.items() for other in ratio_of(name, one)]
        self._names = list(dict.fromkeys([*names, *below]))
        places = {name: place for place, name in enumerate(self._names)}
        self._tile, columns = _struct(layout)
        windows: dict[int, _Window] = {}
        self._ratios: list[tuple[int, int, int]] = []
        self._others: list[str] = []
        for name, place in places.items():
            one, window = features[name]
            number = layout.group.aggregations.index(one)
            final = None if number in layout.exact else _final(layout, columns, number, one)
            if one.operation == "ratio":
                upper, lower = ratio_of(name, one)
                self._ratios.append((place, places[upper], places[lower]))
            elif final is None:
                self._others.append(name)
            else:
                windows.setdefault(window, _Window(window, hop_of(window), [])).finals.append((place, final))
        self._windows = list(windows.values())
        self._other_places = [places[name] for name in self._others]

    def known(self, rows: Sequence[bytes], now: int) -> EntityValues:
        """The values at a time (epoch ms). Raises ValueError for bytes that are no row."""
        values: list[Any] = [None] * len(self._names)
        tiles, newest = self._tiles(rows)
        for window, hop, finals in self._windows:
            length = HOPS[hop]
            first, end = ((now - window) // length) << _HOP_BITS | hop, -(-now // length) << _HOP_BITS | hop
            if len(rows) == 1:  # the tiles of a row are sorted
                within = tiles[bisect_left(tiles, (first,)) : bisect_left(tiles, (end,))]
            else:
                within = [tile for tile in tiles if first <= tile[0] < end]
            chosen = [tile for tile in within if tile[0] & _HOP == hop]
            if chosen:
                columns = list(zip(*chosen, strict=True))
                for place, final in finals:
                    values[place] = final(columns)
        if self._others and rows:
            found = known_values(self._layout, _together(decode_rows(self._layout, rows)), 1, now, self._others)
            for place, (value,) in zip(self._other_places, found.values(), strict=True):
                values[place] = value
        for place, upper, lower in self._ratios:
            if values[lower]:
                values[place] = (values[upper] or 0) / values[lower]
        return EntityValues(values[: self._count], newest)

    def _tiles(self, rows: Sequence[bytes]) -> tuple[list[tuple[Any, ...]], int | None]:
        """The tiles of all rows, and the newest time. In a row the newest tile, item and raw event are the last."""
        tiles, newest = list[tuple[Any, ...]](), _NEVER
        item_bytes, raw_bytes = self._layout.item.itemsize, self._layout.raw.itemsize
        for row in rows:
            if len(row) < _HEADER:
                raise ValueError(f"a row of {self._layout.group.id} has only {len(row)} bytes")
            tile_count, item_count = _COUNTS.unpack_from(row, STAMP_BYTES)
            first = _HEADER + tile_count * self._tile.size
            second = first + item_count * item_bytes
            rest = len(row) - second
            if rest < 0 or rest % raw_bytes:
                raise ValueError(f"a row of {self._layout.group.id} is damaged: it has {len(row)} bytes")
            if tile_count:
                tiles += self._tile.iter_unpack(row[_HEADER:first])
                newest = max(newest, _start(tiles[-1][0]))
            if item_count:
                newest = max(newest, _start(_TIME.unpack_from(row, second - item_bytes)[0]))
            if rest:
                newest = max(newest, _TIME.unpack_from(row, len(row) - raw_bytes)[0])
        return tiles, None if newest == _NEVER else newest


def _start(code: int) -> int:
    return (code >> _HOP_BITS) * HOPS[code & _HOP]


def _together(parts: Parts) -> Parts:
    """Parts of which all records belong to the first entity."""
    places = {name: np.zeros_like(getattr(parts, name)) for name in ("tile_entities", "item_entities", "raw_entities")}
    return parts._replace(**places)


def _struct(layout: Layout) -> tuple[struct.Struct, dict[str, int]]:
    """How a tile is unpacked, and the place of each field's first value."""
    text, places, place = "<", dict[str, int](), 0
    for name in layout.tile.names or ():
        kind = layout.tile[name]
        many = int(np.prod(kind.shape, dtype=int))
        base = kind.base
        text += f"{base.itemsize}s" if base.kind == "S" else f"{many}{'d' if base.kind == 'f' else 'q'}"
        places[name], place = place, place + many
    return struct.Struct(text), places


def _final(layout: Layout, columns: dict[str, int], number: int, one: Aggregation) -> Final | None:
    """The function of an aggregation; None for one that numpy computes."""
    place = {name.partition(".")[2]: at for name, at in columns.items() if name.startswith(f"{number}.")}
    floating = layout.is_float(one)
    if one.operation == "count":
        return partial(_count, place["n"])
    if one.operation in ("sum", "mean"):
        return partial(_sum if one.operation == "sum" else _mean, place["n"], place["sum"], _added if floating else sum)
    if one.operation in ("min", "max"):
        reduce = {"min": min, "max": max} if not floating else {"min": _least, "max": _greatest}
        return partial(_extreme, place["n"], place[one.operation], reduce[one.operation])
    if one.operation in ("first", "last"):
        sign = -1 if one.operation == "first" else 1
        return partial(_chosen, sign, place["time"], place["tie"], place["value"])
    if one.operation == "count_by":
        return partial(_counts, range(place["counts"], place["counts"] + len(one.values) + 1))
    return None


def _count(n: int, columns: Columns) -> int | None:
    return sum(columns[n]) or None


def _sum(n: int, total: int, add: Any, columns: Columns) -> Any:
    return add(columns[total]) if any(columns[n]) else None


def _mean(n: int, total: int, add: Any, columns: Columns) -> float | None:
    count = sum(columns[n])
    return add(columns[total]) / count if count else None


def _extreme(n: int, value: int, reduce: Any, columns: Columns) -> Any:
    values = [value for value, some in zip(columns[value], columns[n], strict=True) if some]
    return reduce(values) if values else None


def _chosen(sign: int, time: int, tie: int, value: int, columns: Columns) -> Any:
    """The first (sign -1) or last value: by its time, then its tie; of equals the last tile's, as in `merge_tiles`."""
    times, ties = columns[time], columns[tie]
    some = [place for place, at in enumerate(times) if at != _NEVER]
    if not some:
        return None
    found = columns[value][max(some, key=lambda place: (sign * times[place], sign * ties[place], place))]
    return found.rstrip(b"\0").decode("utf-8", "ignore") if isinstance(found, bytes) else found


def _counts(places: range, columns: Columns) -> list[int] | None:
    row = [sum(columns[place]) for place in places]
    return row if any(row) else None


def _added(values: tuple[float, ...]) -> float:
    """The sum in numpy's order of additions, which is not the order of the values."""
    return float(np.add.reduceat(np.array(values), _FIRST)[0])


def _least(values: list[float]) -> float:
    return float(np.minimum.reduce(values))


def _greatest(values: list[float]) -> float:
    return float(np.maximum.reduce(values))
