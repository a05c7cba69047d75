"""The events of a type in the event store, as they come."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from connectors.kafka.client import KafkaClient
from connectors.kafka.consumer import Start
from connectors.open import has_partitions, open_partitions
from connectors.uri import store_uri
from pipelines.command_line.parse import did_you_mean
from pipelines.launch.options import read_uri
from schemas.events.event_types import EventType, load_event_types
from schemas.problems import InputError, Problem
from schemas.transport import Envelope
from transforms.features.scan_events import scan

_POLL = 1_000


def tail_events(
    store: str,
    name: str,
    since: int | None,
    idle_s: float | None,
    client: KafkaClient,
    types_folder: str | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> Iterator[dict[str, Any]]:
    """The events of a type as dictionaries with their `position`, those of a partition in order: published from a time
    on (epoch ms; None: from now on). It ends when no event has come for `idle_s` seconds, if given, or by `stop`.

    Raises InputError for a store or a type that is not there, JobError when the store cannot be read.
    """
    problems: list[Problem] = []
    uri, types = read_uri(store_uri, store, problems, "STORE"), load_event_types(types_folder)
    if name not in types:
        fix = f"{did_you_mean(name, list(types))}`campaigns events list` has the types"
        problems.append(Problem("command line", "TYPE", name, fix))
    elif uri is not None and not has_partitions(uri.of_type(name)):
        fix = "has no log of this type; name the --store of collect"
        problems.append(Problem("command line", "STORE", store, fix))
    if problems or uri is None:
        raise InputError(problems)
    start = Start("latest") if since is None else Start(at=since)
    group = f"campaigns-tail-{uuid.uuid4().hex[:12]}"
    reader = open_partitions(uri.of_type(name), client, group, start=start, idle_s=idle_s, stop=stop)
    reader.open()
    try:
        offsets = dict(enumerate(reader.starts(0)))
        while offsets:
            for partition, offset in list(offsets.items()):
                poll = reader.poll(partition, offset, _POLL)
                offsets[partition] = poll.handle
                if poll.envelopes:
                    yield from event_rows(types[name], poll.envelopes, since or 0)
                if poll.done:
                    del offsets[partition]
    finally:
        reader.close()


def event_rows(event_type: EventType, envelopes: list[Envelope], since: int = 0) -> Iterator[dict[str, Any]]:
    """The events that are let in, published from a time on, as dictionaries; times as text."""
    scanned = scan(event_type, envelopes, max(envelope.published_at for envelope in envelopes) + _FUTURE_MS)
    columns = {name: _values(scanned.events, name) for name in event_type.columns}
    times = {"occurred_at", "published_at", event_type.time}
    for number, (place, published) in enumerate(zip(scanned.places.tolist(), scanned.published.tolist(), strict=True)):
        if published >= since:
            row = {name: values[number] for name, values in columns.items()}
            row |= {name: _time(row[name]) for name in times if row[name] is not None}
            yield {"position": envelopes[place].message_id, **row}


_FUTURE_MS = 1 << 40  # the store has let them in: no time is in the future


def _values(events: Any, name: str) -> list[Any]:
    column = events.columns[name]
    if isinstance(column, pa.Array | pa.ChunkedArray):
        return list(column.to_pylist())
    return [value if there else None for value, there in zip(column.tolist(), events.has(name).tolist(), strict=True)]


def _time(at: int) -> str:
    return datetime.fromtimestamp(at / 1000, UTC).isoformat(timespec="milliseconds")
