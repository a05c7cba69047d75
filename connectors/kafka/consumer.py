"""Consumes assigned partitions of a Kafka topic, and stores where a group begins."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from confluent_kafka import OFFSET_INVALID, Consumer, KafkaError, KafkaException, TopicPartition

from connectors.kafka.client import FATAL, WAIT_S, KafkaClient, KafkaErrors, count_partitions, kafka_error, open_client
from connectors.uri import KafkaUri
from schemas.problems import JobError
from schemas.transport import POLL_BYTES

_WAIT_S, LINGER_S = 0.2, 0.05
_AGAIN_S, ALIVE_S = 0.2, 2.0
_PASSING = {
    KafkaError.NOT_COORDINATOR,
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError.LEADER_NOT_AVAILABLE,
}
_EOF = KafkaError._PARTITION_EOF
_OWN = {"enable.auto.commit": False, "enable.auto.offset.store": False, "enable.partition.eof": True}
_SETTINGS = {
    "auto.offset.reset": "error",
    "queued.max.messages.kbytes": 32_768,
    "fetch.queue.backoff.ms": 20,  # a second by itself, for which a fast reader would wait
    "fetch.wait.max.ms": 100,
}
_log = logging.getLogger(__name__)


class Start(NamedTuple):
    """Where a new group begins: `earliest`, `latest`, the first message of a time (epoch ms), or these offsets, with
    `earliest` for the other partitions."""

    word: str = "earliest"
    at: int | None = None
    offsets: tuple[tuple[int, int], ...] = ()


class PartitionConsumer:
    """A client that reads some partitions of a topic from given offsets. One thread at a time polls. Raises JobError
    when the topic cannot be read until somebody acts."""

    def __init__(self, uri: KafkaUri, client: KafkaClient, group: str) -> None:
        self._uri, self._client, self._group = uri, client, group

    def open(self) -> PartitionConsumer:
        """Connects (lazily)."""
        properties = dict(self._client.properties)
        defaults = {key: value for key, value in _SETTINGS.items() if key not in properties}
        ours = {**defaults, **_OWN, "group.id": self._group}
        self._errors = KafkaErrors()
        self._consumer = open_client(Consumer, self._client, self._uri, self._errors, ours)
        self._failure: JobError | None = None
        self.ends: dict[int, int] = {}
        self.assigned: set[int] = set()
        self._body_bytes = 1024.0  # of a message, on average in the last poll
        return self

    def close(self) -> None:
        """Disconnects."""
        self._consumer.close()

    def partitions(self, wait_s: float = WAIT_S) -> int:
        """The number of partitions that the topic has now."""
        return count_partitions(self._consumer, self._uri, self._errors, wait_s)

    def committed(self, partitions: range) -> dict[int, int]:
        """The group's committed offsets, for the partitions that have one."""
        asked = [self._at(number) for number in partitions]
        positions = self._ask("group cannot be read", lambda: self._consumer.committed(asked, timeout=WAIT_S))
        for position in positions:
            if position.error is not None:
                raise kafka_error(self._uri, "group cannot be read", position.error)
        return {position.partition: position.offset for position in positions if position.offset >= 0}

    def bounds(self, partition: int, wait_s: float = WAIT_S) -> tuple[int, int]:
        """The first offset that is kept, and the one that the next message will have."""
        watermarks, at = self._consumer.get_watermark_offsets, self._at(partition)
        return self._ask("cannot be read", lambda: watermarks(at, timeout=wait_s, cached=False))

    def at_time(self, partitions: range, at: int) -> dict[int, int]:
        """The offset of the first message published at that time (epoch ms) or after it; the end if there is none."""
        asked = [self._at(number, at) for number in partitions]
        positions = self._ask("cannot be read", lambda: self._consumer.offsets_for_times(asked, timeout=WAIT_S))
        return {
            position.partition: position.offset if position.offset >= 0 else self.bounds(position.partition)[1]
            for position in positions
        }

    def commit(self, offsets: Mapping[int, int]) -> None:
        """Commit the group's offsets. After a failure messages are only read again."""
        positions = [self._at(partition, offset) for partition, offset in offsets.items()]
        try:
            self._ask("group cannot be kept", lambda: self._consumer.commit(offsets=positions, asynchronous=False))
        except (JobError, RuntimeError) as error:  # RuntimeError: closed
            _log.warning("The offsets of group %s could not be kept: %s", self._group, error)

    def assign(self, offsets: Mapping[int, int]) -> None:
        """Read these partitions too, from these offsets."""
        reassigned = [self._at(partition) for partition in offsets if partition in self.assigned]
        if reassigned:
            self._consumer.incremental_unassign(reassigned)
        for partition in offsets:
            self.ends.pop(partition, None)
        self.assigned |= offsets.keys()
        if offsets:
            self._consumer.incremental_assign([self._at(partition, offset) for partition, offset in offsets.items()])

    def take(self, most: int, wait_s: float = _WAIT_S, linger_s: float = LINGER_S) -> list[Any]:
        """The next messages: waits for the first one, and `linger_s` for more. Their number fills POLL_BYTES if they
        are as long as those of the last poll. A longer message counts for the next poll; the client's prefetch limit
        (`queued.max.messages.kbytes`) bounds this one."""
        if self._failure is not None:
            raise self._failure
        most = max(1, min(most, int(POLL_BYTES / self._body_bytes)))
        messages = self._messages_only(self._consumer.consume(most, 0) or self._consumer.consume(1, wait_s))
        if messages and len(messages) < most:
            messages += self._messages_only(self._consumer.consume(most - len(messages), linger_s))
        if not messages and self._failure is not None:
            raise self._failure
        if messages:
            self._body_bytes = max(1.0, sum(len(message) for message in messages) / len(messages))
        return messages

    def read_all(self) -> bool:
        """Whether every partition was read to its end, as the brokers confirm."""
        if self.ends.keys() != self.assigned:
            return False
        try:
            return all(self.bounds(partition, ALIVE_S)[1] <= end for partition, end in list(self.ends.items()))
        except JobError:
            return False

    def _messages_only(self, messages: list[Any]) -> list[Any]:
        """The messages without the events among them: the end of a partition, an error."""
        good, ends = [message for message in messages if message.error() is None], self.ends
        if ends or len(good) < len(messages):
            good = self._handle_events(messages)
        last_error = self._errors.last
        if good:
            self._errors.last = None
        elif last_error is not None and last_error.code() in FATAL:
            self._failure = kafka_error(self._uri, "cannot be read", last_error)
        return good

    def _handle_events(self, messages: list[Any]) -> list[Any]:
        """The messages, after each event among them was handled in its order."""
        good, ends = [], self.ends
        for message in messages:
            error = message.error()
            if error is None:
                good.append(message)
                if ends:  # something came behind what was the end
                    ends.pop(message.partition(), None)
            elif error.code() == _EOF:
                ends[message.partition()] = message.offset()
            elif error.code() in FATAL or error.fatal():
                self._failure = kafka_error(self._uri, "cannot be read", error)
        return good

    def _at(self, partition: int, offset: int = OFFSET_INVALID) -> TopicPartition:
        return TopicPartition(self._uri.topic, partition, offset)

    def _ask(self, what: str, ask: Callable[[], Any]) -> Any:
        end = time.monotonic() + WAIT_S
        while True:
            try:
                return ask()
            except KafkaException as error:
                cause = error.args[0]
                if cause.code() not in _PASSING or time.monotonic() > end:
                    raise kafka_error(self._uri, what, self._errors.last or cause) from error
            time.sleep(_AGAIN_S)


def begin_group(uri: KafkaUri, client: KafkaClient, group: str, start: Start | None) -> None:
    """Commit where the group begins, for the partitions without an offset: every restart then goes on from the group's
    offsets. A group that has begun keeps its offsets; partitions that are new to it begin at their first message."""
    consumer = PartitionConsumer(uri, client, group).open()
    try:
        partitions = range(consumer.partitions())
        known = consumer.committed(partitions)
        if known and start is not None:
            text = "%s: the group %s goes on where it stopped; --start is for a group that has read nothing"
            _log.warning(text, uri, group)
        missing = [partition for partition in partitions if partition not in known]
        offsets = first_offsets(consumer, Start() if known or start is None else start, partitions)
        if missing:
            consumer.commit({partition: offsets[partition] for partition in missing})
    finally:
        consumer.close()


def first_offsets(consumer: PartitionConsumer, start: Start, partitions: range) -> dict[int, int]:
    """The offset of each partition for a start."""
    if start.at is not None:
        return consumer.at_time(partitions, start.at)
    end = start.word == "latest"
    known = {partition: offset for partition, offset in start.offsets if partition in partitions}
    return known | {partition: consumer.bounds(partition)[end] for partition in partitions if partition not in known}


def current_offsets(consumer: PartitionConsumer, partitions: range) -> dict[int, int]:
    """Where the group goes on: its committed offsets, or the first message of a partition without one."""
    if not partitions:
        return {}
    known = consumer.committed(partitions)
    return known | {partition: consumer.bounds(partition)[0] for partition in partitions if partition not in known}
