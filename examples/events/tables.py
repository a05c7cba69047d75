"""Events as tables: their envelope, their rows, their Avro bodies, and their replay at another speed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from schemas.codec.avro_columns import encode_records
from schemas.events.event_types import EventType, load_event_types
from schemas.events.versions import columns_of

Numbers = npt.NDArray[Any]
Row = tuple[str, dict[str, Any]]
_LAG_MS = 40  # from the event to its publication, at least
_ARROW = {"string": pa.string(), "long": pa.int64(), "double": pa.float64(), "boolean": pa.bool_()}


class Generated(NamedTuple):
    """Events of one type, ordered by published_at, and the truth that they were drawn from: what a model or a detector
    should find, never part of the events."""

    type: str
    events: pa.Table
    truth: pa.Table

    def rows(self) -> Iterator[Row]:
        """(type, event) of each."""
        return ((self.type, row) for row in self.events.to_pylist())


def event_table(
    name: str, event_ids: Sequence[str], occurred_at: Numbers, lag_ms: Numbers | int, **columns: Any
) -> pa.Table:
    """A table of events of the newest version, ordered by published_at: `lag_ms` after they occurred, and 40 ms."""
    event_type = load_event_types()[name]
    count = len(event_ids)
    envelope = {
        "event_id": event_ids,
        "type": [name] * count,
        "version": np.full(count, event_type.newest),
        "occurred_at": occurred_at,
        "published_at": occurred_at + lag_ms + _LAG_MS,
        "producer": [event_type.owner] * count,
    }
    given = {**envelope, **columns}
    arrays = {column: pa.array(given[column], _ARROW[kind]) for column, kind in event_type.columns.items()}
    return pa.table(arrays).sort_by([("published_at", "ascending"), ("event_id", "ascending")])


def encode(event_type: EventType, events: pa.Table, version: int = 0) -> pa.LargeBinaryArray:
    """The Avro body of each event, in a version (0: the newest); columns that it does not have are left out."""
    version = version or event_type.newest
    names = columns_of(event_type.versions[version])
    columns = {name: _whole(events[name]) for name in names if name in events.column_names}
    return encode_records(event_type.versions[version], {**columns, "version": version}, events.num_rows)


def encode_rows(event_type: EventType, rows: Iterable[Mapping[str, Any]], version: int = 0) -> list[bytes]:
    """The Avro bodies of rows, which have every column of the newest version."""
    given = list(rows)
    arrays = {name: pa.array([row[name] for row in given], _ARROW[kind]) for name, kind in event_type.columns.items()}
    bodies: list[bytes] = encode(event_type, pa.table(arrays), version).to_pylist()
    return bodies


def _whole(column: pa.ChunkedArray) -> pa.Array:
    return pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)


def at_speed(events: pa.Table, start_ms: int, speed_up: float) -> pa.Table:
    """The events as if the first was published at `start_ms` and time went `speed_up` times as fast since. Every column
    that ends in `_at` moves with them."""
    first = events["published_at"][0].as_py()
    for place, name in enumerate(events.column_names):
        if name.endswith("_at"):
            column = _whole(events[name])
            times = column.fill_null(first).to_numpy(zero_copy_only=False)
            moved = start_ms + np.floor((times - first) / speed_up).astype(np.int64)
            mask = column.is_null().to_numpy(zero_copy_only=False)
            events = events.set_column(place, name, pa.array(moved, pa.int64(), mask=mask))
    return events


def ending_at(events: pa.Table, end_ms: int) -> pa.Table:
    """The events as if the last was published at `end_ms`."""
    first, last = (events["published_at"][place].as_py() for place in (0, -1))
    return at_speed(events, end_ms - (last - first), 1)


def as_they_come(
    events: pa.Table, clock: Callable[[], float], sleep: Callable[[float], None], step_s: float = 0.05
) -> Iterator[pa.Table]:
    """The events in the moment at which they are published, by a clock (epoch seconds): some every `step_s`."""
    published = _whole(events["published_at"]).to_numpy()
    done = 0
    while done < len(published):
        due = int(np.searchsorted(published, clock() * 1000, side="right"))
        if due > done:
            yield events.slice(done, due - done)
            done = due
        else:
            sleep(max(step_s, published[done] / 1000 - clock()))
