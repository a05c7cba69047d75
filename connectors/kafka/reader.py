"""Reading a Kafka topic in one process, for engines that keep no offsets: the group's say where a start goes on."""

from __future__ import annotations

import time
from collections.abc import Callable
from threading import Lock
from typing import Any

from connectors.kafka.client import WAIT_S, KafkaClient
from connectors.kafka.consumer import ALIVE_S, PartitionConsumer, offsets_now
from connectors.kafka.schema_registry import SchemaRegistry
from connectors.uri import KafkaUri
from schemas.problems import JobError
from schemas.transport import Envelope, Poll

QUIET_S = 2.0  # how much later than now a message of an idle partition may still carry its time


class Decoder:
    """Messages of a topic as envelopes; with a schema registry, without the frame around their bodies."""

    def __init__(self, client: KafkaClient) -> None:
        self._registry = SchemaRegistry(client.registry) if client.registry else None

    def envelopes(self, messages: list[Any]) -> list[Envelope]:
        """An envelope a message, in order. A producer may give any time: one that is still to come counts as now."""
        made, now = [], int(time.time() * 1000)
        for message in messages:
            headers = message.headers() or ()
            try:
                attributes = {name: value.decode() for name, value in headers}
            except (UnicodeDecodeError, AttributeError):  # no UTF-8, or null
                attributes = {name: (value or b"").decode("utf-8", "backslashreplace") for name, value in headers}
            name = f"{message.partition()}:{message.offset()}"
            made.append(Envelope(name, attributes, message.value() or b"", min(max(0, message.timestamp()[1]), now)))
        return made if self._registry is None else [self._registry.unframe(one) for one in made]


class KafkaReader:
    """Messages of a topic for one process: its share of the partitions, from the group's offsets on.

    It looks for new partitions every `look_every_s`. `stop` is asked at each poll; once it says yes, or with `idle_s`
    once every partition was read to its end and nothing has come for so long, the reader is done.
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
        """Connect, and begin where the group is."""
        self._decoder = Decoder(self._client)
        self._lock = Lock()
        self._kept: dict[int, int] = {}
        self._consumer.open()
        self._count, self._looked, self._last, self._oldest = 0, float("-inf"), time.monotonic(), time.time()
        self._look()

    def close(self) -> None:
        """Disconnect; what was polled and not committed comes again."""
        self._consumer.close()

    def poll(self, most: int) -> Poll:
        """What is there, once something is; the handle holds the next offset of each partition."""
        if self._stop():
            return Poll([], {}, done=True)
        self._look()
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
        """The group goes on behind these messages."""
        with self._lock:
            news = {one: offset for one, offset in handle.items() if offset > self._kept.get(one, -1)}
            self._kept.update(news)
        if news:
            self._consumer.commit(news)

    def oldest(self) -> float:
        """The oldest time of the last messages, or now while there are none."""
        return self._oldest

    def _quiet(self) -> float:
        every = self._consumer.ends.keys() == self._consumer.assigned
        return time.time() - QUIET_S if every else self._oldest

    def _look(self) -> None:
        """Takes over the partitions that are new."""
        now = time.monotonic()
        if now - self._looked < self._look_every_s:
            return
        self._looked = now
        try:
            count = self._consumer.partitions(ALIVE_S if self._count else WAIT_S)
        except JobError:
            if not self._count:
                raise
            return  # the brokers are away; the next look finds them
        mine = [one for one in range(self._count, count) if one % self._readers == self._index]
        starts = offsets_now(self._consumer, range(self._count, count)) if mine else {}
        self._consumer.assign({one: starts[one] for one in mine})
        self._count = count
