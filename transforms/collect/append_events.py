"""AppendEvents: the events of lists into the event store, each id once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import apache_beam as beam

from schemas.events.raw_event import RawEvent
from schemas.problems import shown
from schemas.transport import Envelope
from transforms.collect.counters import COUNTERS, rule_counter
from transforms.collect.decode_events import KeepQuarantined, Quarantined, quarantined
from transforms.collect.elements import RawEvents, event_ids


class EventStore(Protocol):
    """Where events are appended, by type; of each entity in order. One thread at a time uses it."""

    def open(self) -> None:
        """Connects. Raises JobError."""

    def append(self, events: Sequence[RawEvent], ids: Sequence[bytes]) -> int:
        """Begins to append events, but for those with an id that is known to be there; how many. Raises JobError."""

    def settle(self) -> list[tuple[RawEvent, str]]:
        """Returns when all that was appended is safe: the events that the store refuses for good, and why. Raises
        JobError."""

    def close(self) -> None:
        """Disconnects."""


class _Append(beam.DoFn):
    def __init__(self, make_store: Callable[[], EventStore], keep: KeepQuarantined) -> None:
        self._make_store, self._keep = make_store, keep
        self._appended, self._repeats = COUNTERS.counter("appended"), COUNTERS.counter("repeats")
        self._quarantined = COUNTERS.counter("quarantined")

    def setup(self) -> None:
        self._store = self._make_store()
        self._store.open()

    def process(self, element: Any) -> Iterator[Any]:
        events: list[RawEvent] = (element if isinstance(element, RawEvents) else element[1]).items
        appended = self._store.append(events, event_ids(events))
        size = sum(len(event.body) for event in events)
        self._appended.inc(appended, size)
        self._repeats.inc(len(events) - appended)
        yield from ()

    def finish_bundle(self) -> None:
        refused = self._store.settle()
        if refused:
            self._keep([_refused(event, reason) for event, reason in refused])
            for event, _ in refused:
                rule_counter("quarantined", event.type, event.version, "refused_by_store").inc()
            self._quarantined.inc(len(refused))
            self._appended.inc(-len(refused))

    def teardown(self) -> None:
        self._store.close()


def _refused(event: RawEvent, reason: str) -> Quarantined:
    envelope = Envelope(event.message_id, {}, event.body, event.published_at)
    return quarantined(event.type, event.version, "refused_by_store", shown(reason), envelope)


class AppendEvents(beam.PTransform):
    """Appends lists of events, keyed or not, to the store that `make_store` makes in a worker. What the store refuses
    goes into quarantine by `keep`. All is safe when the bundle is committed. Counts `appended`, `repeats`,
    `quarantined`. Steps: Append."""

    def __init__(self, make_store: Callable[[], EventStore], keep: KeepQuarantined) -> None:
        super().__init__()
        self._append = _Append(make_store, keep)

    def expand(self, lists: beam.PCollection[Any]) -> beam.PCollection[Any]:
        return lists | "Append" >> beam.ParDo(self._append)
