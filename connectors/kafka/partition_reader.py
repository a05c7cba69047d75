"""A Kafka topic partition by partition, for engines that keep the offsets in their checkpoints."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from threading import Lock

from connectors.kafka.client import KafkaClient
from connectors.kafka.consumer import LINGER_S, PartitionConsumer, Start, begin_group, current_offsets
from connectors.kafka.reader import QUIET_S, Decoder
from connectors.uri import KafkaUri
from schemas.problems import JobError
from schemas.transport import Poll

_WAIT_S = 0.01  # others wait behind an idle partition
_UNUSED_S = 300.0  # then the partition is read elsewhere


@dataclass
class _Open:
    """A client that reads one partition: its next offset, and the times of its last message and its last poll."""

    consumer: PartitionConsumer
    at: int
    last: float
    asked: float
    oldest: float = 0.0


class KafkaPartitionReader:
    """Reads the partitions of a topic, each by a client of its own in this process. `idle_s`: a partition is done once
    it was read to its end and nothing has come for so long; `stop` ends them all. A poll that
    found messages waits `linger_s` for more."""

    def __init__(
        self,
        uri: KafkaUri,
        client: KafkaClient,
        group: str,
        *,
        start: Start | None = None,
        idle_s: float | None = None,
        look_every_s: float = 30.0,
        stop: Callable[[], bool] = lambda: False,
        linger_s: float = LINGER_S,
    ) -> None:
        self._uri, self._client, self._group, self._start = uri, client, group, start
        self._linger_s = linger_s
        self._idle_s, self._look_every_s, self._stop = idle_s, look_every_s, stop

    def open(self) -> None:
        """Nothing is read yet."""
        self._decoder, self._lock = Decoder(self._client), Lock()
        self._opened: dict[int, _Open] = {}
        self._finder: PartitionConsumer | None = None
        self._looked = float("-inf")

    def close(self) -> None:
        """Disconnect from all."""
        for one in [*(each.consumer for each in self._opened.values()), *([self._finder] if self._finder else [])]:
            one.close()

    def starts(self, seen: int) -> list[int]:
        """The first offsets of the partitions from number `seen` on: the group's, or their first message. The first
        call makes a new group begin at `start`."""
        now = time.monotonic()
        if seen and now - self._looked < self._look_every_s:
            return []
        self._looked = now
        if not seen:
            begin_group(self._uri, self._client, self._group, self._start)
        if self._finder is None:
            self._finder = PartitionConsumer(self._uri, self._client, self._group).open()
        try:
            offsets = current_offsets(self._finder, range(seen, self._finder.partitions()))
        except JobError:
            if not seen:
                raise
            return []  # the brokers are away; the next look finds them
        return [offsets[partition] for partition in sorted(offsets)]

    def ended(self) -> bool:
        """Whether no partition will be added: the input is drained, or was told to stop."""
        return self._idle_s is not None or self._stop()

    def poll(self, partition: int, offset: int, most: int) -> Poll:
        """The next messages of a partition from an offset on; the handle is the offset behind them."""
        if self._stop():
            return Poll([], offset, done=True)
        opened = self._reader(partition, offset)
        messages = opened.consumer.take(most, _WAIT_S, self._linger_s)
        opened.asked = now = time.monotonic()
        if messages:
            opened.at, opened.last = messages[-1].offset() + 1, now
        idle = self._idle_s is not None and not messages and now - opened.last > self._idle_s
        if idle and not opened.consumer.read_all():
            opened.last, idle = now, False
        envelopes = self._decoder.envelopes(messages)
        if envelopes:
            opened.oldest = min(envelope.published_at for envelope in envelopes) / 1000
        elif opened.consumer.ends:
            opened.oldest = time.time() - QUIET_S
        return Poll(envelopes, opened.at, idle)

    def commit(self, partition: int, offset: int) -> None:
        """Commit: the engine has stored everything before the offset."""
        if partition in self._opened:
            self._opened[partition].consumer.commit({partition: offset})

    def oldest(self, partition: int) -> float:
        """Seconds since the epoch: nothing published before is still to come from there, as far as is known. A
        partition that was read to its end is as far as the clock, but for two seconds."""
        return self._opened[partition].oldest if partition in self._opened else 0.0

    def _reader(self, partition: int, offset: int) -> _Open:
        """The client of a partition, at the offset: an engine goes back when a bundle failed."""
        now = time.monotonic()
        with self._lock:
            for name in [name for name, opened in self._opened.items() if now - opened.asked > _UNUSED_S]:
                self._opened.pop(name).consumer.close()
            opened = self._opened.get(partition)
            if opened is None:
                consumer = PartitionConsumer(self._uri, self._client, self._group).open()
                opened = self._opened[partition] = _Open(consumer, -1, now, now)
        if opened.at != offset:
            opened.consumer.assign({partition: offset})
            opened.at = offset
        return opened
