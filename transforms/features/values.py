"""The values of an entity's features at a time, from its rows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from schemas.features.declarations import EXACT_DISTINCT, Aggregation
from schemas.features.windows import HOPS, duration_ms, hop_of
from transforms.features.layout import NEVER, Layout, added, code_hop, code_start, merge_items, merge_tiles
from transforms.features.tiles import Parts, bin_middle, bin_of, squares_of

Numbers = npt.NDArray[Any]
Values = dict[str, list[Any]]
_HASHES = 1 << 63


def window_start(window: int, now: Any, exact: bool) -> Any:
    """The first millisecond of a window (ms) that ends at `now`, a number or an array; that of its tile, unless the
    window is exact."""
    start = now - window
    return start if exact else start // HOPS[hop_of(window)] * HOPS[hop_of(window)]


def values_at(layout: Layout, parts: Parts, count: int, now: int, names: Sequence[str] | None = None) -> Values:
    """The value of each feature (of all, unless `names` says which) for each of `count` entities, by its name.

    A record's place says whose it is; an entity may have several rows. Events at `now` or later do not count, where
    the record tells: in tiles it is the tile's start. An entity without an event gets the declared default.
    """
    defaults = {name: one.default for name, one, _ in layout.group.features}
    known = known_values(layout, parts, count, now, names)
    return {name: [defaults[name] if value is None else value for value in found] for name, found in known.items()}


def known_values(layout: Layout, parts: Parts, count: int, now: int, names: Sequence[str] | None = None) -> Values:
    """As `values_at`, with None where the default stands: no event of the entity counts, or a ratio has nothing or zero
    below."""
    features = {name: (one, window) for name, one, window in layout.group.features}
    by_window: dict[int, tuple[Numbers, Numbers]] = {}
    values: Values = {}

    def found(name: str) -> list[Any]:
        if name not in values:
            one, window = features[name]
            if one.operation == "ratio":
                upper, lower = (found(other) for other in ratio_of(name, one))
                values[name] = [(a or 0) / b if b else None for a, b in zip(upper, lower, strict=True)]
            else:
                values[name] = _spread_out(_found(layout, parts, one, window, now, by_window), count)
        return values[name]

    return {name: found(name) for name in (features if names is None else names)}


def ratio_of(name: str, one: Aggregation) -> tuple[str, str]:
    """The names of the two features that a feature divides: those of the same window."""
    window = name[len(one.title) :]
    return one.of[0] + window, one.of[1] + window


def newest_times(parts: Parts, count: int) -> list[int | None]:
    """When the newest event that is known of each entity was (epoch ms), as far as the records tell: the start of its
    tile, or its own time where raw events are kept. None where nothing is known."""
    newest = np.full(count, NEVER)
    for places, times in (
        (parts.tile_entities, code_start(parts.tiles["tile"])),
        (parts.item_entities, code_start(parts.items["tile"])),
        (parts.raw_entities, parts.raw["time"]),
    ):
        np.maximum.at(newest, places, times)
    return [None if time == NEVER else time for time in newest.tolist()]


def _found(
    layout: Layout, parts: Parts, one: Aggregation, window: int, now: int, by_window: dict[int, tuple[Numbers, Numbers]]
) -> tuple[Numbers, list[Any]]:
    """The places of entities and their values. `by_window` keeps merged tiles for other features of a window."""
    number = layout.group.aggregations.index(one)
    start, hop = window_start(window, now, one.exact), hop_of(window)
    if one.exact:
        return _of_raw(layout, parts, number, one, start, now)
    if number in layout.itemised:
        return _of_items(layout, parts, number, one, start, now, hop)
    if one.operation == "decayed_sum":
        return _decayed(layout, parts, number, one, start, now, hop)
    if window not in by_window:
        by_window[window] = _merged(layout, parts, start, now, hop)
    places, tiles = by_window[window]
    return places, tile_values(layout, tiles, number, one)


def _spread_out(found: tuple[Numbers, list[Any]], count: int) -> list[Any]:
    values: list[Any] = [None] * count
    for place, value in zip(found[0].tolist(), found[1], strict=True):
        values[place] = value
    return values


def _within(records: Numbers, start: int, now: int, hop: int) -> Numbers:
    codes = records["tile"]
    begins = code_start(codes)
    return (code_hop(codes) == hop) & (begins >= start) & (begins < now)


def _merged(layout: Layout, parts: Parts, start: int, now: int, hop: int) -> tuple[Numbers, Numbers]:
    chosen = _within(parts.tiles, start, now, hop)
    return merge_tiles(layout, parts.tile_entities[chosen], parts.tiles[chosen])


def tile_values(layout: Layout, tiles: Numbers, number: int, one: Aggregation) -> list[Any]:
    """The value of an aggregation (of `declarations.TILED` or count_by) in each tile; None where no event counted."""
    name = f"{number}."
    if one.operation in ("first", "last"):
        texts = _plain(tiles[name + "value"])
        return [value if time != NEVER else None for value, time in zip(texts, tiles[name + "time"], strict=True)]
    if one.operation == "count_by":
        return [row if any(row) else None for row in tiles[name + "counts"].tolist()]
    n = tiles[name + "n"]
    if one.operation == "count":
        return [value or None for value in n.tolist()]
    if one.operation in ("sum", "min", "max"):
        values = tiles[name + one.operation].tolist()
        return [value if some else None for value, some in zip(values, n.tolist(), strict=True)]
    totals = tiles[name + "sum"].tolist()
    if one.operation == "mean":
        return [total / some if some else None for total, some in zip(totals, n.tolist(), strict=True)]
    if layout.is_float(one):
        return [
            spread / some if some else None
            for spread, some in zip(tiles[name + "spread"].tolist(), n.tolist(), strict=True)
        ]
    parts_of_squares = (tiles[name + field].tolist() for field in ("squares", "squares_high"))
    return [variance(*row) for row in zip(n.tolist(), totals, *parts_of_squares, strict=True)]


def variance(n: int, total: int, squares: int, squares_high: int) -> float | None:
    """The population's variance of whole numbers, exact until the division; None of none."""
    return (n * ((squares_high << 32) + squares) - total * total) / (n * n) if n else None


def _plain(values: Numbers) -> list[Any]:
    if values.dtype.kind == "S":
        return [value.decode("utf-8", "ignore") for value in values.tolist()]
    return values.tolist()


def _decayed(
    layout: Layout, parts: Parts, number: int, one: Aggregation, start: int, now: int, hop: int
) -> tuple[Numbers, list[Any]]:
    """Each tile's sum halves with the age of the tile's start."""
    chosen = _within(parts.tiles, start, now, hop) & (parts.tiles[f"{number}.n"] > 0)
    tiles, places = parts.tiles[chosen], parts.tile_entities[chosen]
    weights = np.exp2((code_start(tiles["tile"]) - now) / duration_ms(one.half_life))
    different, at = np.unique(places, return_inverse=True)
    return different, np.bincount(at, tiles[f"{number}.sum"] * weights, len(different)).tolist()


def _of_items(
    layout: Layout, parts: Parts, number: int, one: Aggregation, start: int, now: int, hop: int
) -> tuple[Numbers, list[Any]]:
    chosen = _within(parts.items, start, now, hop) & (parts.items["aggregation"] == number)
    places, items = merge_items(layout, parts.item_entities[chosen], parts.items[chosen])
    return _by_entity(places, items, lambda own: _of_entity(layout, one, own))


def _by_entity(places: Numbers, records: Numbers, final: Any) -> tuple[Numbers, list[Any]]:
    if not len(places):
        return places, []
    starts = np.flatnonzero(np.concatenate([[True], places[1:] != places[:-1]]))
    ends = np.append(starts[1:], len(places))
    return places[starts], [final(records[a:b]) for a, b in zip(starts.tolist(), ends.tolist(), strict=True)]


def _of_entity(layout: Layout, one: Aggregation, items: Numbers) -> Any:
    """The value of the merged items of one entity."""
    if one.operation == "distinct":
        return distinct_count(items["a"])
    if one.operation == "last_k":
        values = items["text" if layout.is_text(one) else "value"]
        return _plain(values.view("<f8") if layout.is_float(one) else values)
    return quantile_values(items["a"], items["n"], one.quantiles)


def distinct_count(hashes: Numbers) -> int:
    """The number of distinct values with these ascending hashes, the least of all: exact below 1,024 of them.

    Source: KMV (Bar-Yossef et al., RANDOM 2002): (k - 1) / (the k-th least hash, as a part of all).
    """
    if len(hashes) < EXACT_DISTINCT:
        return len(hashes)
    return round((EXACT_DISTINCT - 1) / (int(hashes[EXACT_DISTINCT - 1]) / _HASHES))


def quantile_values(bins: Numbers, counts: Numbers, quantiles: Sequence[float]) -> list[float]:
    """The value at each quantile: the middle of the bin that holds the value of that rank, counted from 0."""
    order = np.argsort(bins, kind="stable")
    totals = np.cumsum(counts[order])
    ranks = [math.floor(part * (int(totals[-1]) - 1)) for part in quantiles]
    return bin_middle(bins[order][np.searchsorted(totals, ranks, "right")]).tolist()


def _of_raw(
    layout: Layout, parts: Parts, number: int, one: Aggregation, start: int, now: int
) -> tuple[Numbers, list[Any]]:
    raw = parts.raw
    chosen = (raw["time"] >= start) & (raw["time"] < now) & (raw[f"{number}.in"] == 1)
    places, raw = parts.raw_entities[chosen], raw[chosen]
    order = np.lexsort((raw["tie"], raw["time"], places))
    return _by_entity(places[order], raw[order], lambda own: exact_value(layout, number, one, own, now))


def exact_value(layout: Layout, number: int, one: Aggregation, raw: Numbers, now: int) -> Any:
    """The value of an aggregation over the raw events of one entity, by time and tie; there is at least one."""
    if one.operation == "count":
        return len(raw)
    values = raw[f"{number}.value"]
    if one.operation in ("first", "last"):
        return _plain(values)[0 if one.operation == "first" else -1]
    if one.operation == "last_k":
        return _plain(values[::-1][: one.k])
    if one.operation == "distinct":
        return len(np.unique(values))
    if one.operation == "count_by":
        return np.bincount(values, minlength=len(one.values) + 1).tolist()
    if one.operation == "quantiles":
        bins, numbers = np.unique(bin_of(values), return_counts=True)
        return quantile_values(bins, numbers, one.quantiles)
    if one.operation == "decayed_sum":
        return float((values * np.exp2((raw["time"] - now) / duration_ms(one.half_life))).sum())
    if one.operation in ("min", "max"):
        return getattr(values, one.operation)().item()
    if one.operation == "variance" and layout.is_float(one):
        return float(np.var(values))
    total = added(values, np.zeros(1, np.int64)).item()
    if one.operation == "sum":
        return total
    if one.operation == "mean":
        return total / len(raw)
    return variance(len(raw), total, *(part.sum().item() for part in squares_of(values)))
