"""The source of features: the partitions of a type in the event store, from where the feature store has them folded."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from connectors.kafka.client import KafkaClient
from connectors.kafka.consumer import LINGER_S
from connectors.open import open_partitions
from connectors.uri import StoreUri
from pipelines.engines.memory import collect_rarely
from schemas.features.stamps import FIRST
from schemas.transport import Envelope, PartitionedReader, Poll, position_of
from stores.features.open import open_store

_POLL = 5_000
_LINGER_S, _GATHER_S = 1.0, 0.02
GROUP = "campaigns-features"


@dataclass(frozen=True)
class TypeSource:
    """Where the events of one type are, and which groups of which store they are folded into. `idle_s`: a partition is
    done when nothing has come for so many seconds; `stop` ends them all. `together`: one reader has all partitions, for
    an engine in this process that repeats no bundle."""

    events: StoreUri
    type: str
    store: str
    groups: tuple[str, ...]
    kafka: KafkaClient
    idle_s: float | None
    stop: Callable[[], bool]
    together: bool = False

    @property
    def linger_s(self) -> float:
        """How long a bundle reads on though little comes: nobody else waits for one reader of all partitions."""
        return _LINGER_S if self.together else 0.0

    def open_log(self, idle_s: float | None = None) -> PartitionedReader:
        """A reader of the type's partitions."""
        uri, linger_s = self.events.of_type(self.type), 0.0 if self.together else LINGER_S
        return open_partitions(uri, self.kafka, GROUP, idle_s=idle_s, stop=self.stop, linger_s=linger_s)

    def make_reader(self) -> PartitionedReader:
        """The reader of a process; a partition begins at the first position that some group lacks."""
        collect_rarely()
        reader = _FromStore(self.open_log(self.idle_s), self)
        return _Together(reader) if self.together else reader

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
                envelopes = [envelope for envelope in poll.envelopes if position_of(envelope) < end]
                if envelopes:
                    yield envelopes
                if poll.done:
                    return
                first = max(first, poll.handle)
        finally:
            log.close()


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
        return self._source.first_positions(seen + len(found))[seen:] if found else []

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


class _Together:
    """All partitions of a reader as one, whose offsets count polls. It remembers the positions itself: a restart begins
    at those of the store."""

    def __init__(self, log: PartitionedReader) -> None:
        self._log, self._positions, self._most_behind = log, list[int](), 0

    def open(self) -> None:
        """Connect."""
        self._log.open()

    def close(self) -> None:
        """Disconnect."""
        self._log.close()

    def starts(self, seen: int) -> list[int]:
        """The one partition, at its first poll."""
        return [] if seen else [0]

    def ended(self) -> bool:
        """Always True: no partition is added beside the one."""
        return True

    def poll(self, partition: int, offset: int, most: int) -> Poll:
        """The next envelopes of every partition, also of those that were added; done when all are."""
        self._positions += self._log.starts(len(self._positions))
        if self._most_behind < most // 10:  # a fold costs much the same for one event as for fifty
            time.sleep(_GATHER_S)
        envelopes, done, self._most_behind = list[Envelope](), True, 0
        for number, position in enumerate(self._positions):
            poll = self._log.poll(number, position, most)
            envelopes += poll.envelopes
            self._most_behind = max(self._most_behind, len(poll.envelopes))
            self._positions[number] = poll.handle
            done = done and poll.done
        return Poll(envelopes, offset + 1, done and self._log.ended())

    def commit(self, partition: int, offset: int) -> None:
        """Notes in the log that everything before the positions is folded, for monitoring."""
        for number, position in enumerate(self._positions):
            self._log.commit(number, position)

    def oldest(self, partition: int) -> float:
        """Seconds since the epoch: nothing published earlier is still to come."""
        return min([self._log.oldest(number) for number in range(len(self._positions))], default=0.0)
