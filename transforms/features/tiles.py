"""The tiles, items and raw events that a list of events adds to each entity of a group."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from schemas.features.declarations import Aggregation
from schemas.features.windows import HOPS, duration_ms
from transforms.columnar.hashing import hash64_rows
from transforms.features.event_columns import EventColumns, entities, matches
from transforms.features.layout import NEVER, Layout, merge_items, merge_tiles, tile_code

Numbers = npt.NDArray[Any]
_GAMMA = np.log(1.01 / 0.99)  # bins of quantiles: any value in one is within 1 % of its middle
_ZERO_BIN = 1 << 40
_LEAST = 1e-9  # a smaller value counts as zero


class Parts(NamedTuple):
    """Records of entities: `entities` by place, and with each record the place of its entity."""

    entities: list[str]
    tile_entities: Numbers
    tiles: Numbers
    item_entities: Numbers
    items: Numbers
    raw_entities: Numbers
    raw: Numbers


class Selected(NamedTuple):
    """The events that belong to a group, the different entities, and the place in them of each event's.

    Other events have a null in their key (the number `unkeyed`), do not satisfy the group's conditions (`filtered`), or
    are older than it keeps (`late`: their places among the given events), or have a number too large for the group's
    sums (`oversized`, likewise).
    """

    events: EventColumns
    entities: list[str]
    places: Numbers
    unkeyed: int
    filtered: int
    late: Numbers
    oversized: Numbers = np.zeros(0, np.int64)


def empty_parts(layout: Layout) -> Parts:
    """The parts of no entity."""
    none = np.zeros(0, np.int64)
    return Parts([], none, np.zeros(0, layout.tile), none, np.zeros(0, layout.item), none, np.zeros(0, layout.raw))


def select(layout: Layout, events: EventColumns, now: int) -> Selected:
    """The events that a group counts at a time (epoch ms)."""
    group = layout.group
    filtered = ~(matches(events, group.where) & events.has(group.time))
    late = ~filtered & (events.columns[group.time] < now - layout.longest_ms)
    names, places = entities(events, group.key)
    oversized = too_large(layout, events) & ~(filtered | late)
    used = ~(filtered | late | oversized)
    unkeyed = int(np.count_nonzero(used & (places < 0)))
    used &= places >= 0
    different, places = np.unique(places[used], return_inverse=True)
    chosen = [names[place] for place in different.tolist()]
    left_out = (int(np.count_nonzero(filtered)), np.flatnonzero(late), np.flatnonzero(oversized))
    return Selected(events.take(used), chosen, places, unkeyed, *left_out)


def too_large(layout: Layout, events: EventColumns) -> Numbers:
    """Where an event has a number beyond the group's limits (Layout.limits)."""
    found = np.zeros(len(events), bool)
    for name, limit in layout.limits.items():
        column = events.columns[name]
        found |= ((column > limit) | (column < -limit)) & events.counts(name)
    return found


def parts_of(layout: Layout, selected: Selected, now: int) -> Parts:
    """The parts of the selected events: an event is a tile of one event, and those of a tile are merged."""
    if not len(selected.events):
        return empty_parts(layout)
    return _spread(layout, selected, _records(layout, selected.events), now)


class _Records(NamedTuple):
    tiles: Numbers
    items: list[tuple[Numbers, Numbers]]  # (the events, an item of each)
    raw: Numbers


def _records(layout: Layout, events: EventColumns) -> _Records:
    """A tile and a raw event of each event, and its items, all without their tile's code."""
    count = len(events)
    tiles, raw = np.zeros(count, layout.tile), np.zeros(count, layout.raw)
    items = list[tuple[Numbers, Numbers]]()
    times = events.columns[layout.group.time]
    raw["time"], raw["tie"] = times, events.ties
    for number, one in enumerate(layout.group.aggregations):
        if one.operation == "ratio":
            continue
        chosen = matches(events, one.where)
        if one.column:
            chosen &= events.counts(one.column)
        if number in layout.exact:
            raw[f"{number}.in"] = chosen
            if one.column:
                raw[f"{number}.value"] = _raw_values(events, one)
        elif number in layout.itemised:
            at = np.flatnonzero(chosen)
            items.append((at, _items(layout, number, one, events, at)))
        else:
            _fill(layout, tiles, number, one, events, chosen)
    return _Records(tiles, items, raw)


def values_of(events: EventColumns, one: Aggregation) -> Numbers:
    """The values of an aggregation's column: numbers with zero for null, or text as bytes."""
    column = events.columns[one.column]
    if isinstance(column, np.ndarray):
        return column
    return np.array(pc.fill_null(column, "").cast(pa.binary()).to_pylist(), dtype=f"S{one.width}")


def _raw_values(events: EventColumns, one: Aggregation) -> Numbers:
    if one.operation == "distinct":
        return hash_of(events.columns[one.column], np.arange(len(events)))
    return bucket_of(events, one) if one.operation == "count_by" else values_of(events, one)


def _fill(layout: Layout, tiles: Numbers, number: int, one: Aggregation, events: EventColumns, chosen: Numbers) -> None:
    """Writes an aggregation's fields of the tiles."""
    name = f"{number}."
    values: Any = values_of(events, one) if one.column and one.operation != "count_by" else None
    if one.operation in ("first", "last"):
        tiles[name + "time"] = np.where(chosen, events.columns[layout.group.time], NEVER)
        tiles[name + "tie"], tiles[name + "value"] = np.where(chosen, events.ties, 0), values
        tiles[name + "value"][~chosen] = np.zeros((), tiles[name + "value"].dtype)
        return
    if one.operation == "count_by":
        at = np.flatnonzero(chosen)
        tiles[name + "counts"][at, bucket_of(events, one)[at]] = 1
        return
    tiles[name + "n"] = chosen
    if one.operation in ("sum", "mean", "variance", "decayed_sum"):
        tiles[name + "sum"] = np.where(chosen, values, 0)
    if one.operation == "variance" and not layout.is_float(one):
        tiles[name + "squares"], tiles[name + "squares_high"] = squares_of(np.where(chosen, values, 0))
    if one.operation in ("min", "max"):
        tiles[name + one.operation] = np.where(chosen, values, 0) + 0  # -0.0 becomes 0.0, whatever the order


def bucket_of(events: EventColumns, one: Aggregation) -> Numbers:
    """The place of each event's value in `values`; behind the last for any other value."""
    column = pa.array(events.columns[one.column])
    found = pc.index_in(column, value_set=pa.array(one.values).cast(column.type))
    return found.fill_null(len(one.values)).to_numpy(zero_copy_only=False)


def _items(layout: Layout, number: int, one: Aggregation, events: EventColumns, at: Numbers) -> Numbers:
    """The items of an aggregation, of the events at these places."""
    items = np.zeros(len(at), layout.item)
    items["aggregation"], items["n"] = number, 1
    if one.operation == "distinct":
        items["a"] = hash_of(events.columns[one.column], at)
        return items
    values = values_of(events, one)[at]
    if one.operation == "quantiles":
        items["a"] = bin_of(values)
        return items
    items["a"], items["b"] = -events.columns[layout.group.time][at], ~events.ties[at]
    items["text" if values.dtype.kind == "S" else "value"] = values.view("<i8") if values.dtype.kind == "f" else values
    return items


def squares_of(values: Numbers) -> tuple[Numbers, Numbers]:
    """(the lower 32 bits of each square, the rest), so that sums of squares do not overflow."""
    squares = values * values
    return squares & 0xFFFFFFFF, squares >> 32


def hash_of(column: Any, at: Numbers) -> Numbers:
    """63 bits of a hash of the values at these places, the same for the same value on any machine, evenly spread."""
    if isinstance(column, np.ndarray):
        bits = (
            (column[at].astype(np.float64) + 0.0).view(np.uint64)  # -0.0 becomes 0.0
            if column.dtype.kind == "f"
            else column[at].astype(np.uint64)
        )
    else:
        bits = hash64_rows(pc.fill_null(column.take(pa.array(at)), ""))
    with np.errstate(over="ignore"):  # the finalizer of splitmix64 (Steele, Lea, Flood 2014)
        bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return ((bits ^ (bits >> np.uint64(31))) >> np.uint64(1)).astype(np.int64)


def bin_of(values: Numbers) -> Numbers:
    """The bin of each value, ascending with it. Source: DDSketch (Masson, Rim, Lee, VLDB 2019), 1 % relative error."""
    size = np.abs(values.astype(np.float64))
    small = size < _LEAST
    place = np.ceil(np.log(np.where(small, 1.0, size)) / _GAMMA).astype(np.int64) + _ZERO_BIN
    return np.where(small, 0, np.where(values > 0, place, -place))


def bin_middle(bins: Numbers) -> Numbers:
    """The value in the middle of each bin."""
    place = np.abs(bins) - _ZERO_BIN
    middle = np.exp(place * _GAMMA) * 2 / (1 + np.exp(_GAMMA))
    return np.where(bins == 0, 0.0, np.sign(bins) * middle)


def _spread(layout: Layout, selected: Selected, records: _Records, now: int) -> Parts:
    """The records under the code of each hop's tile that is still kept, merged by entity and tile."""
    times, places = selected.events.columns[layout.group.time], selected.places
    tile_parts, tile_keys, item_parts, item_keys = [], [], [], []
    decayed = [number for number, one in enumerate(layout.group.aggregations) if one.operation == "decayed_sum"]
    for hop in layout.hops:
        codes = tile_code(times, hop)
        kept = np.flatnonzero(times >= now - layout.group.retention_ms[hop])
        tiles = records.tiles[kept]
        tiles["tile"] = codes[kept]
        for number in decayed:
            if number not in layout.exact:
                half_life = duration_ms(layout.group.aggregations[number].half_life)
                tiles[f"{number}.sum"] *= np.exp2((times[kept] % HOPS[hop]) / half_life)
        tile_parts.append(tiles)
        tile_keys.append(places[kept])
        alive = times >= now - layout.group.retention_ms[hop]
        for at, items in records.items:
            some = alive[at]
            hop_items = items[some]
            hop_items["tile"] = codes[at][some]
            item_parts.append(hop_items)
            item_keys.append(places[at][some])
    tile_entities, tiles = merge_by_tile(layout, _joined(tile_keys), _joined(tile_parts, layout.tile))
    item_entities, items = merge_by_item(layout, _joined(item_keys), _joined(item_parts, layout.item))
    recent = times >= now - layout.raw_ms if layout.exact else np.zeros(len(times), bool)
    raw_entities, raw = sort_raw(places[recent], records.raw[recent])
    return Parts(selected.entities, tile_entities, tiles, item_entities, items, raw_entities, raw)


def _joined(parts: list[Numbers], kind: Any = np.int64) -> Numbers:
    return np.concatenate(parts) if parts else np.zeros(0, kind)


def merge_by_tile(layout: Layout, places: Numbers, tiles: Numbers) -> tuple[Numbers, Numbers]:
    """(places, tiles): the tiles of one entity and code merged; by entity, then by code."""
    keys, codes = _pair_keys(places, tiles["tile"])
    keys, merged = merge_tiles(layout, keys, tiles)
    return _places(keys, codes), merged


def merge_by_item(layout: Layout, places: Numbers, items: Numbers) -> tuple[Numbers, Numbers]:
    """(places, items): the items of one entity and tile merged; by entity, then by code."""
    keys, codes = _pair_keys(places, items["tile"])
    keys, merged = merge_items(layout, keys, items)
    return _places(keys, codes), merged


def sort_raw(places: Numbers, raw: Numbers) -> tuple[Numbers, Numbers]:
    """(places, raw events) by entity, then by time and tie; each event once."""
    order = np.lexsort((raw["tie"], raw["time"], places))
    places, raw = places[order], raw[order]
    if len(places) < 2:
        return places, raw
    same = (places[1:] == places[:-1]) & (raw["time"][1:] == raw["time"][:-1]) & (raw["tie"][1:] == raw["tie"][:-1])
    once = np.concatenate([[True], ~same])
    return places[once], raw[once]


def _pair_keys(places: Numbers, codes: Numbers) -> tuple[Numbers, Numbers]:
    """(one number for each pair of a place and a code, ascending with them; the different codes)."""
    different, code_places = np.unique(codes, return_inverse=True)
    return places * max(1, len(different)) + code_places, different


def _places(keys: Numbers, codes: Numbers) -> Numbers:
    return keys // max(1, len(codes))
