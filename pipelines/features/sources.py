"""The source of features: the partitions of a type in the event store, from where the feature store has them folded."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from connectors.kafka.client import KafkaClient
from connectors.open import open_partitions
from connectors.uri import source_uri
from pipelines.engines.memory import collect_rarely
from schemas.features.stamps import FIRST
from schemas.transport import Envelope, PartitionedReader, Poll
from stores.features.open import open_store

_POLL = 5_000
GROUP = "campaigns-features"


@dataclass(frozen=True)
class TypeSource:
    """Where the events of one type are, and which groups of which store they are folded into. `idle_s`: a partition is
    done when nothing has come for so many seconds; `stop` ends them all."""

    events: str
    type: str
    store: str
    groups: tuple[str, ...]
    kafka: KafkaClient
    idle_s: float | None
    stop: Callable[[], bool]

    def open_log(self, idle_s: float | None = None) -> PartitionedReader:
        """A reader of the type's partitions."""
        uri = source_uri(type_uri(self.events, self.type))
        return open_partitions(uri, self.kafka, GROUP, idle_s=idle_s, stop=self.stop)

    def make_reader(self) -> PartitionedReader:
        """The reader of a process; a partition begins at the first position that some group lacks."""
        collect_rarely()
        return _FromStore(self.open_log(self.idle_s), self)

    def first_positions(self, partitions: int) -> list[int]:
        """The first position of each partition that some group lacks."""
        store = open_store(self.store)
        try:
            noted = [store.positions(group) for group in self.groups]
        finally:
            store.close()
        return [min(one.get(partition, FIRST).position for one in noted) for partition in range(partitions)]

    def read_range(self, partition: int, first: int, end: int) -> Iterator[list[Envelope]]:
        """The envelopes of a partition from a position on and before another."""
        if first >= end:
            return
        log = self.open_log(1.0)
        log.open()
        try:
            while first < end:
                poll = log.poll(partition, first, _POLL)
                envelopes = [envelope for envelope in poll.envelopes if _position(envelope) < end]
                if envelopes:
                    yield envelopes
                if poll.done:
                    return
                first = max(first, poll.handle)
        finally:
            log.close()


def _position(envelope: Envelope) -> int:
    return int(envelope.message_id.rpartition(":")[2])


def type_uri(events: str, name: str) -> str:
    """The URI of a type's log: a topic PREFIX.TYPE, or a folder in the event store's."""
    return f"{events}/{name}" if events.startswith("file:") else f"{events}.{name}"


class _FromStore:
    """A reader whose partitions begin where the feature store says."""

    def __init__(self, log: PartitionedReader, source: TypeSource) -> None:
        self._log, self._source = log, source

    def open(self) -> None:
        """Connect."""
        self._log.open()

    def close(self) -> None:
        """Disconnect."""
        self._log.close()

    def starts(self, seen: int) -> list[int]:
        """The first positions of the partitions from number `seen` on."""
        found = self._log.starts(seen)
        return self._source.first_positions(seen + len(found))[seen:]

    def ended(self) -> bool:
        """Whether no partition will be added any more."""
        return self._log.ended()

    def poll(self, partition: int, offset: int, most: int) -> Poll:
        """The next envelopes of a partition."""
        return self._log.poll(partition, offset, most)

    def commit(self, partition: int, offset: int) -> None:
        """Notes in the log that everything before is folded, for monitoring."""
        self._log.commit(partition, offset)

    def oldest(self, partition: int) -> float:
        """Seconds since the epoch: nothing published earlier is still to come."""
        return self._log.oldest(partition)
