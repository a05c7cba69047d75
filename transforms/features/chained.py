"""Chained groups: the complete tiles of a group's rows as events, over which another group's features are computed.

The chained group has no rows of its own, so nothing can fall apart: a late event or a correction changes the tile, and
the next read sees it. A tile counts once it is complete, at its last millisecond; as of an instant within an hour, that
hour is not there yet.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from schemas.features.operations import TILED
from schemas.features.windows import HOPS, duration_ms
from transforms.features.event_columns import SEPARATOR, EventColumns
from transforms.features.layout import Layout, code_hop, code_start
from transforms.features.tiles import Parts, merge_by_tile, parts_of, select
from transforms.features.values import Values, tile_values, values_at

Numbers = npt.NDArray[Any]


def chained_values(chain: Layout, source: Layout, parts: Parts, entities: Sequence[str], now: int) -> Values:
    """The value of each feature of a chained group, by name, for each entity; `parts` are its rows of the source, with
    the place of each record's entity."""
    return values_at(chain, chained_parts(chain, source, parts, entities, now), len(entities), now)


def chained_parts(chain: Layout, source: Layout, parts: Parts, entities: Sequence[str], now: int) -> Parts:
    """The parts of a chained group, with the place of each record's entity; each entity is there once."""
    events = tile_events(source, parts, entities, chain.group.every, now)
    selected = select(chain, events, now)
    found = parts_of(chain, selected, now)
    numbers = {name: number for number, name in enumerate(entities)}
    own = np.array([numbers[name] for name in selected.entities], np.int64)
    places = [own[one] for one in (found.tile_entities, found.item_entities, found.raw_entities)]
    return Parts([], places[0], found.tiles, places[1], found.items, places[2], found.raw)


def chained_events(source: Layout, events: EventColumns, every: str) -> EventColumns:
    """The events of a chained group from those of its source, for values as of many instants."""
    times = events.columns[source.group.time]
    if not len(times):
        return tile_events(source, parts_of(source, select(source, events, 0), 0), [], every, 0)
    selected = select(source, events, int(times.min()))
    parts = parts_of(source, selected, int(times.min()))
    return tile_events(source, parts, selected.entities, every, int(times.max()) + duration_ms(every))


def tile_events(source: Layout, parts: Parts, entities: Sequence[str], every: str, now: int) -> EventColumns:
    """An event of each complete tile of this length: the columns of the key as text, `occurred_at`, and the value of
    each aggregation that tiles hold, by title."""
    hop = HOPS.index(duration_ms(every))
    codes = parts.tiles["tile"]
    chosen = (code_hop(codes) == hop) & (code_start(codes) + HOPS[hop] <= now)
    places, tiles = merge_by_tile(source, parts.tile_entities[chosen], parts.tiles[chosen])
    columns: dict[str, Any] = {"occurred_at": code_start(tiles["tile"]) + HOPS[hop] - 1}
    texts = [entities[place].split(SEPARATOR) for place in places.tolist()]
    for number, name in enumerate(source.group.key):
        columns[name] = pa.array([text[number] for text in texts], pa.string())
    present: dict[str, Any] = {}
    for number, one in enumerate(source.group.aggregations):
        if one.operation not in TILED or one.exact:
            continue
        values, kind = tile_values(source, tiles, number, one), one.kind(source.types)[0]
        if kind == "string":
            columns[one.title] = pa.array(values, pa.string())
        else:
            present[one.title] = np.array([value is not None for value in values], bool)
            columns[one.title] = np.array(
                [value or 0 for value in values], np.float64 if kind == "double" else np.int64
            )
    return EventColumns(np.arange(len(tiles)), np.arange(len(tiles)), columns, present)
