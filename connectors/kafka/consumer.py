"""Partitions of a Kafka topic, assigned by hand, and where a group begins and goes on."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from confluent_kafka import OFFSET_INVALID, Consumer, KafkaError, KafkaException, TopicPartition

from connectors.kafka.client import FATAL, WAIT_S, KafkaClient, KafkaErrors, connected, count_partitions, failure
from connectors.uri import KafkaUri
from schemas.problems import JobError
from schemas.transport import POLL_BYTES

_WAIT_S, _LINGER_S = 0.2, 0.05
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
    """Where a group begins that has read nothing yet: `earliest`, `latest`, the first message of a time (epoch ms),
    or given offsets, with `earliest` for the partitions that are not given."""

    word: str = "earliest"
    at: int | None = None
    offsets: tuple[tuple[int, int], ...] = ()


class PartitionConsumer:
    """Some partitions of a topic in one client, from offsets that are given to it. One thread at a time polls.

    Raises JobError when the topic cannot be read until somebody acts.
    """

    def __init__(self, uri: KafkaUri, client: KafkaClient, group: str) -> None:
        self._uri, self._client, self._group = uri, client, group

    def open(self) -> PartitionConsumer:
        """Connects (lazily)."""
        given = dict(self._client.properties)
        ours = {**{key: value for key, value in _SETTINGS.items() if key not in given}, **_OWN, "group.id": self._group}
        self._errors = KafkaErrors()
        self._consumer = connected(Consumer, self._client, self._uri, self._errors, ours)
        self._failure: JobError | None = None
        self.ends: dict[int, int] = {}
        self.assigned: set[int] = set()
        self._body_bytes = 1024.0  # of a message, on average in the last poll
        return self

    def close(self) -> None:
        """Disconnects."""
        self._consumer.close()

    def partitions(self, wait_s: float = WAIT_S) -> int:
        """How many partitions the topic has now."""
        return count_partitions(self._consumer, self._uri, self._errors, wait_s)

    def committed(self, partitions: range) -> dict[int, int]:
        """The group's offsets, of the partitions that it has one for."""
        asked = [self._at(number) for number in partitions]
        found = self._asked("group cannot be read", lambda: self._consumer.committed(asked, timeout=WAIT_S))
        for one in found:
            if one.error is not None:
                raise failure(self._uri, "group cannot be read", one.error)
        return {one.partition: one.offset for one in found if one.offset >= 0}

    def bounds(self, partition: int, wait_s: float = WAIT_S) -> tuple[int, int]:
        """(the first offset that is there, the next that will be)."""
        return self._asked(
            "cannot be read",
            lambda: self._consumer.get_watermark_offsets(self._at(partition), timeout=wait_s, cached=False),
        )

    def at_time(self, partitions: range, at: int) -> dict[int, int]:
        """The offset of the first message published at that time (epoch ms) or after it; the end if there is none."""
        asked = [self._at(number, at) for number in partitions]
        found = self._asked("cannot be read", lambda: self._consumer.offsets_for_times(asked, timeout=WAIT_S))
        return {one.partition: one.offset if one.offset >= 0 else self.bounds(one.partition)[1] for one in found}

    def commit(self, offsets: Mapping[int, int]) -> None:
        """Keeps the group's offsets. A failure only means that messages come again."""
        made = [self._at(partition, offset) for partition, offset in offsets.items()]
        try:
            self._asked("group cannot be kept", lambda: self._consumer.commit(offsets=made, asynchronous=False))
        except (JobError, RuntimeError) as error:  # RuntimeError: closed
            _log.warning("The offsets of group %s could not be kept: %s", self._group, error)

    def assign(self, offsets: Mapping[int, int]) -> None:
        """Read these partitions, from these offsets, beside those that are read."""
        again = [self._at(one) for one in offsets if one in self.assigned]
        if again:
            self._consumer.incremental_unassign(again)
        for one in offsets:
            self.ends.pop(one, None)
        self.assigned |= offsets.keys()
        if offsets:
            self._consumer.incremental_assign([self._at(one, offset) for one, offset in offsets.items()])

    def take(self, most: int, wait_s: float = _WAIT_S) -> list[Any]:
        """The next messages, once something is there, and what comes in the next moment: as many as fill POLL_BYTES
        if they are as long as those before. A message that is longer counts for the next poll; what the client has
        fetched ahead (`queued.max.messages.kbytes`) bounds this one."""
        if self._failure is not None:
            raise self._failure
        most = max(1, min(most, int(POLL_BYTES / self._body_bytes)))
        got = self._good(self._consumer.consume(most, 0) or self._consumer.consume(1, wait_s))
        if got and len(got) < most:
            got += self._good(self._consumer.consume(most - len(got), _LINGER_S))
        if not got and self._failure is not None:
            raise self._failure
        if got:
            self._body_bytes = max(1.0, sum(len(message) for message in got) / len(got))
        return got

    def read_all(self) -> bool:
        """Whether every partition was read to its end, which the brokers confirm."""
        if self.ends.keys() != self.assigned:
            return False
        try:
            return all(self.bounds(partition, ALIVE_S)[1] <= end for partition, end in list(self.ends.items()))
        except JobError:
            return False

    def _good(self, messages: list[Any]) -> list[Any]:
        """The messages without the news among them: the end of a partition, an error."""
        good, ends = [message for message in messages if message.error() is None], self.ends
        if ends or len(good) < len(messages):
            good = self._sorted_out(messages)
        last_error = self._errors.last
        if good:
            self._errors.last = None
        elif last_error is not None and last_error.code() in FATAL:
            self._failure = failure(self._uri, "cannot be read", last_error)
        return good

    def _sorted_out(self, messages: list[Any]) -> list[Any]:
        """The same, the news heeded in their order."""
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
                self._failure = failure(self._uri, "cannot be read", error)
        return good

    def _at(self, partition: int, offset: int = OFFSET_INVALID) -> TopicPartition:
        return TopicPartition(self._uri.topic, partition, offset)

    def _asked(self, what: str, ask: Callable[[], Any]) -> Any:
        end = time.monotonic() + WAIT_S
        while True:
            try:
                return ask()
            except KafkaException as error:
                told = error.args[0]
                if told.code() not in _PASSING or time.monotonic() > end:
                    raise failure(self._uri, what, self._errors.last or told) from error
            time.sleep(_AGAIN_S)


def begin(uri: KafkaUri, client: KafkaClient, group: str, start: Start | None) -> None:
    """Keeps where the group begins, for the partitions of which it has read nothing: from then on every restart goes
    on from the group's offsets. A group that has begun is left as it is, but for partitions that are new to it."""
    consumer = PartitionConsumer(uri, client, group).open()
    try:
        everyone = range(consumer.partitions())
        known = consumer.committed(everyone)
        if known and start is not None:
            told = "%s: the group %s goes on where it stopped; --start is for a group that has read nothing"
            _log.warning(told, uri, group)
        missing = [one for one in everyone if one not in known]
        offsets = first_offsets(consumer, Start() if known or start is None else start, everyone)
        if missing:
            consumer.commit({one: offsets[one] for one in missing})
    finally:
        consumer.close()


def first_offsets(consumer: PartitionConsumer, start: Start, partitions: range) -> dict[int, int]:
    """The offset of each partition that a start means."""
    if start.at is not None:
        return consumer.at_time(partitions, start.at)
    given = dict(start.offsets)
    end = start.word == "latest"
    return {one: given[one] if one in given else consumer.bounds(one)[end] for one in partitions}


def offsets_now(consumer: PartitionConsumer, partitions: range) -> dict[int, int]:
    """Where the group goes on: at its own offsets, and at the first message of what it has not read."""
    if not partitions:
        return {}
    known = consumer.committed(partitions)
    return {one: known[one] if one in known else consumer.bounds(one)[0] for one in partitions}
