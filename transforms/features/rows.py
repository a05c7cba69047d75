"""Rows: what a store keeps of an entity and a partition of the log, as bytes, and how events are folded into it.

A row is a function of its epoch and of the log's events before its position. So whoever writes it, however often and
however late: of two rows of one epoch the one with the larger position is right, and both are true. A correction or an
erasure starts a new epoch, which wins over every row of an earlier one (docs/decisions/017).
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from schemas.features.stamps import STAMP_BYTES, Stamp, pack_stamp, stamp_of
from transforms.features.layout import Layout, code_hop, code_start
from transforms.features.tiles import Parts, Selected, empty_parts, merge_by_item, merge_by_tile, parts_of, sort_raw

Numbers = npt.NDArray[Any]
_COUNTS = struct.Struct("<II")  # of tiles and of items, behind the stamp; then tiles, items, raw events
_HEADER_BYTES = STAMP_BYTES + _COUNTS.size


def decode_rows(layout: Layout, rows: Sequence[bytes | None]) -> Parts:
    """The parts of rows; with each record the place of its row. Raises ValueError for bytes that are no row."""
    tiles, items, raw = list[memoryview](), list[memoryview](), list[memoryview]()
    tile_counts, item_counts, raw_counts = (np.zeros(len(rows), np.int64) for _ in range(3))
    tile_bytes, item_bytes, raw_bytes = layout.tile.itemsize, layout.item.itemsize, layout.raw.itemsize
    for place, row in enumerate(rows):
        if row is None:
            continue
        if len(row) < _HEADER_BYTES:
            raise ValueError(f"a row of {layout.group.id} has only {len(row)} bytes")
        tile_count, item_count = _COUNTS.unpack_from(row, STAMP_BYTES)
        first = _HEADER_BYTES + tile_count * tile_bytes
        second = first + item_count * item_bytes
        rest, odd = divmod(len(row) - second, raw_bytes)
        if odd or rest < 0:
            raise ValueError(f"a row of {layout.group.id} is damaged: it has {len(row)} bytes")
        view = memoryview(row)
        tile_counts[place], item_counts[place], raw_counts[place] = tile_count, item_count, rest
        tiles.append(view[_HEADER_BYTES:first])
        if item_count:
            items.append(view[first:second])
        if rest:
            raw.append(view[second:])
    at = np.arange(len(rows))
    return Parts(
        [],
        np.repeat(at, tile_counts),
        np.frombuffer(b"".join(tiles), layout.tile),
        np.repeat(at, item_counts),
        np.frombuffer(b"".join(items), layout.item),
        np.repeat(at, raw_counts),
        np.frombuffer(b"".join(raw), layout.raw),
    )


def encode_rows(layout: Layout, parts: Parts, stamps: Sequence[Stamp]) -> list[bytes]:
    """A row of each stamp, with the records of its place, which are sorted by place."""
    count = len(stamps)
    tiles, items, raw = parts.tiles.tobytes(), parts.items.tobytes(), parts.raw.tobytes()
    tile_edges, item_edges, raw_edges = (
        np.searchsorted(places, np.arange(count + 1)).tolist()
        for places in (parts.tile_entities, parts.item_entities, parts.raw_entities)
    )
    a, b, c = layout.tile.itemsize, layout.item.itemsize, layout.raw.itemsize
    rows = list[bytes]()
    for place, stamp in enumerate(stamps):
        first, end = tile_edges[place], tile_edges[place + 1]
        item_first, item_end = item_edges[place], item_edges[place + 1]
        row = pack_stamp(stamp) + _COUNTS.pack(end - first, item_end - item_first) + tiles[first * a : end * a]
        if items:
            row += items[item_first * b : item_end * b]
        if raw:
            row += raw[raw_edges[place] * c : raw_edges[place + 1] * c]
        rows.append(row)
    return rows


def merge_parts(layout: Layout, both: Sequence[Parts], now: int) -> Parts:
    """The parts of the same entities merged, without what is older than the group keeps at a time (epoch ms)."""

    def joined(name: str) -> Numbers:
        return np.concatenate([getattr(parts, name) for parts in both])

    tile_entities, tiles = _kept(layout, joined("tile_entities"), joined("tiles"), now)
    item_entities, items = _kept(layout, joined("item_entities"), joined("items"), now)
    raw_entities, raw = joined("raw_entities"), joined("raw")
    recent = raw["time"] >= now - layout.raw_ms
    return Parts(
        [],
        *merge_by_tile(layout, tile_entities, tiles),
        *merge_by_item(layout, item_entities, items),
        *sort_raw(raw_entities[recent], raw[recent]),
    )


def _kept(layout: Layout, places: Numbers, records: Numbers, now: int) -> tuple[Numbers, Numbers]:
    """The records of tiles that end within what the group keeps of their hop."""
    if not len(records):
        return places, records
    kept_ms = np.zeros(8, np.int64)
    for hop, retention in layout.group.retention_ms.items():
        kept_ms[hop] = retention
    codes = records["tile"]
    kept = code_start(codes) >= now - kept_ms[code_hop(codes)]
    return (places, records) if kept.all() else (places[kept], records[kept])


def update_rows(
    layout: Layout, selected: Selected, rows: Sequence[bytes | None], end: int, now: int, epoch: int = 0
) -> dict[str, bytes]:
    """The new rows of the selected entities, whose rows these are. Events before a row's position are in it already.

    `end` is the position behind the last event of the poll. A row keeps its epoch, and a new one has `epoch`.
    """
    if not selected.entities:
        return {}
    stamps = [stamp_of(row) for row in rows]
    positions = np.array([stamp.position for stamp in stamps])
    new = selected.events.positions >= positions[selected.places]
    if not new.all():
        selected = selected._replace(events=selected.events.take(new), places=selected.places[new])
        if not new.any():
            return {}
    parts = merge_parts(layout, [decode_rows(layout, rows), parts_of(layout, selected, now)], now)
    changed = np.unique(selected.places).tolist()
    encoded = encode_rows(layout, parts, [Stamp(max(epoch, stamp.epoch), end) for stamp in stamps])
    return {selected.entities[place]: encoded[place] for place in changed}


def empty_row(layout: Layout, stamp: Stamp) -> bytes:
    """The row of an entity of which nothing is known."""
    return encode_rows(layout, empty_parts(layout), [stamp])[0]
