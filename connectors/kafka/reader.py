"""Reads a Kafka topic in one process, for engines that keep no offsets: a restart goes on at the group's."""

from __future__ import annotations

import time
from collections.abc import Callable
from threading import Lock
from typing import Any

from connectors.kafka.client import WAIT_S, KafkaClient
from connectors.kafka.consumer import ALIVE_S, PartitionConsumer, current_offsets
from connectors.kafka.schema_registry import SchemaRegistry
from connectors.uri import KafkaUri
from schemas.problems import JobError
from schemas.transport import Envelope, Poll

QUIET_S = 2.0  # a message of an idle partition may carry a time that is so much older than now


class Decoder:
    """Turns messages of a topic into envelopes; with a schema registry it takes off the frame of their bodies."""

    def __init__(self, client: KafkaClient) -> None:
        self._registry = SchemaRegistry(client.registry) if client.registry else None

    def envelopes(self, messages: list[Any]) -> list[Envelope]:
        """An envelope a message, in order. A producer may give any time: one that is still to come counts as now."""
        envelopes, now = [], int(time.time() * 1000)
        for message in messages:
            headers = message.headers() or ()
            try:
                attributes = {name: value.decode() for name, value in headers}
            except (UnicodeDecodeError, AttributeError):  # no UTF-8, or null
                attributes = {name: (value or b"").decode("utf-8", "backslashreplace") for name, value in headers}
            name, time_ms = f"{message.partition()}:{message.offset()}", message.timestamp()[1]
            envelopes.append(Envelope(name, attributes, message.value() or b"", min(max(0, time_ms), now)))
        return envelopes if self._registry is None else [self._registry.unframe(envelope) for envelope in envelopes]


class KafkaReader:
    """Reads one process's share of a topic's partitions, from the group's offsets on.

    It looks for new partitions every `look_every_s`. The reader is done once `stop()` is true, which each poll asks,
    and with `idle_s` once every partition was read to its end and nothing has come for so many seconds.
    """

    def __init__(
        self,
        uri: KafkaUri,
        client: KafkaClient,
        group: str,
        *,
        index: int = 0,
        readers: int = 1,
        idle_s: float | None = None,
        look_every_s: float = 30.0,
        stop: Callable[[], bool] = lambda: False,
    ) -> None:
        self._client, self._index, self._readers = client, index, readers
        self._idle_s, self._look_every_s, self._stop = idle_s, look_every_s, stop
        self._consumer = PartitionConsumer(uri, client, group)

    def open(self) -> None:
        """Connect, and begin at the group's offsets."""
        self._decoder = Decoder(self._client)
        self._lock = Lock()
        self._committed: dict[int, int] = {}
        self._consumer.open()
        self._count, self._found_at, self._last, self._oldest = 0, float("-inf"), time.monotonic(), time.time()
        self._find_partitions()

    def close(self) -> None:
        """Disconnect; messages that were not committed come again."""
        self._consumer.close()

    def poll(self, most: int) -> Poll:
        """The next messages; the handle holds the next offset of each partition."""
        if self._stop():
            return Poll([], {}, done=True)
        self._find_partitions()
        messages = self._consumer.take(most)
        now = time.monotonic()
        if messages:
            self._last = now
        idle = self._idle_s is not None and not messages and now - self._last > self._idle_s
        if idle and not self._consumer.read_all():
            self._last, idle = now, False
        envelopes = self._decoder.envelopes(messages)
        self._oldest = min((one.published_at / 1000 for one in envelopes), default=self._quiet())
        return Poll(envelopes, {one.partition(): one.offset() + 1 for one in messages}, idle)

    def commit(self, handle: dict[int, int]) -> None:
        """Commit the offsets behind these messages."""
        with self._lock:
            before = self._committed
            news = {partition: offset for partition, offset in handle.items() if offset > before.get(partition, -1)}
            before.update(news)
        if news:
            self._consumer.commit(news)

    def oldest(self) -> float:
        """The oldest time of the last messages, or now while there are none."""
        return self._oldest

    def _quiet(self) -> float:
        every = self._consumer.ends.keys() == self._consumer.assigned
        return time.time() - QUIET_S if every else self._oldest

    def _find_partitions(self) -> None:
        """Assign the partitions that are new."""
        now = time.monotonic()
        if now - self._found_at < self._look_every_s:
            return
        self._found_at = now
        try:
            count = self._consumer.partitions(ALIVE_S if self._count else WAIT_S)
        except JobError:
            if not self._count:
                raise
            return  # the brokers are away; the next look finds them
        mine = [partition for partition in range(self._count, count) if partition % self._readers == self._index]
        starts = current_offsets(self._consumer, range(self._count, count)) if mine else {}
        self._consumer.assign({partition: starts[partition] for partition in mine})
        self._count = count
