"""The values of declared features as of many instants, from the logs of events and from tables: what training sets
and the check of served values share."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from schemas.features.catalogue import Columns, columns_of
from schemas.features.declarations import FeatureGroup
from schemas.features.references import Declared
from schemas.features.tables import TableGroup
from transforms.features.chained import chained_events
from transforms.features.event_columns import EventColumns, concatenate
from transforms.features.layout import Layout
from transforms.features.point_in_time import Rows, known_as_of, last_as_of

ARROW = {"long": pa.int64(), "double": pa.float64(), "string": pa.string()}


class LogPart(NamedTuple):
    """Events of one partition of a type's log, each once, and the position behind the last that was read."""

    partition: int
    end: int
    events: EventColumns


ReadEvents = Callable[[str, Collection[str]], Iterable[LogPart]]
"""Reads the log of an event type, with at least these columns."""
ReadTable = Callable[[str], pa.Table]
"""Reads the rows of a table group, by its id: its key, time and columns."""


@dataclass
class Recomputation:
    """Computes features as of instants. Each type's log and each table is read once.

    `catalogue` are the declared groups by id, `types` the columns of the event types. `positions` says after a
    computation how far the log of each type was read, by partition; `tables` are the tables that were read.
    """

    catalogue: Mapping[str, Declared]
    types: Columns
    read_events: ReadEvents
    read_table: ReadTable
    positions: dict[str, dict[int, int]] = field(default_factory=dict)
    tables: dict[str, pa.Table] = field(default_factory=dict)
    _events: dict[str, EventColumns | None] = field(default_factory=dict)

    def known(self, group_id: str, rows: Rows) -> dict[str, pa.Array]:
        """The values of each feature of a group by name; null where the default stands."""
        group = self.catalogue[group_id]
        if isinstance(group, TableGroup):
            return self._of_table(group, rows)
        layout = Layout(group, columns_of(group, self.catalogue, self.types))
        events = self._events_of(group)
        if events is None:  # the log is empty
            return {name: pa.nulls(len(rows.times), arrow_type(layout, name)) for name, _, _ in group.features}
        return known_as_of(layout, events, rows)

    def default(self, group_id: str, name: str) -> Any:
        """The declared default of a feature."""
        group = self.catalogue[group_id]
        if isinstance(group, TableGroup):
            return next(column.default for column in group.columns if column.name == name)
        return next(one.default for feature, one, _ in group.features if feature == name)

    def _events_of(self, group: FeatureGroup) -> EventColumns | None:
        source = self.catalogue.get(group.source) if group.every else None
        if not isinstance(source, FeatureGroup):
            return self._log(group.source)
        events = self._log(source.source)
        layout = Layout(source, self.types[source.source])
        return None if events is None else chained_events(layout, events, group.every)

    def _log(self, event_type: str) -> EventColumns | None:
        if event_type not in self._events:
            parts = list[EventColumns]()
            ends = self.positions.setdefault(event_type, {})
            for part in self.read_events(event_type, self._columns[event_type]):
                ends[part.partition] = max(part.end, ends.get(part.partition, 0))
                parts.append(part.events)
            self._events[event_type] = concatenate(parts) if parts else None
        return self._events[event_type]

    @cached_property
    def _columns(self) -> dict[str, list[str]]:
        """The columns that the catalogue's groups read, by event type."""
        found: dict[str, dict[str, None]] = {}
        for group in self.catalogue.values():
            if isinstance(group, FeatureGroup) and not group.every:
                found.setdefault(group.source, {}).update(dict.fromkeys(group.columns))
        return {name: list(columns) for name, columns in found.items()}

    def _of_table(self, group: TableGroup, rows: Rows) -> dict[str, pa.Array]:
        if group.id not in self.tables:
            self.tables[group.id] = self.read_table(group.id).combine_chunks()
        table = self.tables[group.id]
        columns: dict[str, Any] = {name: flat(table[name].cast(pa.string())) for name in group.key}
        times = flat(pc.cast(table[group.time], pa.int64()))
        columns[group.time] = times.fill_null(0).to_numpy(zero_copy_only=False)
        present = {group.time: times.is_valid().to_numpy(zero_copy_only=False)}
        order = np.arange(len(table))
        places = last_as_of(EventColumns(order, order, columns, present), group.key, group.time, rows)
        taken = pa.array(places, mask=places < 0)
        return {one.name: flat(table[one.name]).take(taken).cast(ARROW[one.kind]) for one in group.columns}


def flat(column: Any) -> pa.Array:
    """A column of a table as one array."""
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column


def arrow_type(layout: Layout, name: str) -> pa.DataType:
    """The Arrow type of a feature."""
    kind, most = next(one for feature, one, _ in layout.group.features if feature == name).kind(layout.types)
    return ARROW[kind] if most is None else pa.list_(ARROW[kind])
