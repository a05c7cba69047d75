"""KafkaEventStore: topics of Kafka as the event store that `collect` writes, PREFIX.TYPE for each type of event."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from threading import Lock

from connectors.kafka.client import KafkaClient
from connectors.kafka.sink import KafkaPublisher
from connectors.log.recent_ids import RecentIds
from connectors.uri import KafkaUri
from schemas.events.raw_event import RawEvent

_REMEMBER = 1_000_000  # ids of a process


class _Remembered:
    """The ids that this process has published."""

    def __init__(self) -> None:
        self._ids, self._lock = RecentIds(_REMEMBER), Lock()

    def unseen(self, ids: Sequence[bytes]) -> list[int]:
        with self._lock:
            return self._ids.unseen(list(ids))

    def add(self, ids: list[bytes]) -> None:
        with self._lock:
            self._ids.add(ids)


@cache
def _remembered(uri: KafkaUri) -> _Remembered:
    return _Remembered()


class KafkaEventStore:
    """Publishes events to PREFIX.TYPE, keyed by entity. An id that this process has published is left out; after a
    crash some events may stand there twice, close to each other, and readers drop them (transforms/features)."""

    def __init__(self, prefix: KafkaUri, client: KafkaClient, types: Sequence[str]) -> None:
        self._prefix, self._client, self._types = prefix, client, types
        self._publishers: dict[str, KafkaPublisher] = {}
        self._sent: list[tuple[RawEvent, bytes]] = []

    def open(self) -> None:
        """Nothing is connected yet."""
        self._ids = _remembered(self._prefix)

    def append(self, events: Sequence[RawEvent], ids: Sequence[bytes]) -> int:
        """Begins to publish events, but for those that are there; how many. Raises JobError."""
        pending = {id_ for _, id_ in self._sent}
        fresh = [(events[place], ids[place]) for place in self._ids.unseen(ids) if ids[place] not in pending]
        by_type: dict[str, list[RawEvent]] = {}
        for event, _ in fresh:
            by_type.setdefault(event.type, []).append(event)
        start = len(self._sent)
        self._sent += fresh
        places = {id(event): start + number for number, (event, _) in enumerate(fresh)}
        for name, same in by_type.items():
            rows = [(places[id(event)], event.body, event.entity, list[tuple[str, str]]()) for event in same]
            self._publisher(name).submit(rows)
        return len(fresh)

    def settle(self) -> list[tuple[RawEvent, str]]:
        """Waits until all events are published or refused; the refused ones, and why. Raises JobError."""
        sent, self._sent = self._sent, []
        refused: dict[int, str] = {}
        for publisher in self._publishers.values():
            refused |= {refusal.row: refusal.detail for refusal in publisher.settle()}
        self._ids.add([id_ for _, id_ in sent])
        return [(sent[row][0], reason) for row, reason in refused.items()]

    def close(self) -> None:
        """Disconnects."""
        for publisher in self._publishers.values():
            publisher.close()
        self._publishers = {}

    def _publisher(self, name: str) -> KafkaPublisher:
        if name not in self._publishers:
            self._publishers[name] = KafkaPublisher(self._prefix.of_type(name), self._client).open()
        return self._publishers[name]
