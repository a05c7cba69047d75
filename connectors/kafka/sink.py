"""Publishes to Kafka: an idempotent producer, thousands of messages in flight, refusals by row."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import pyarrow as pa
from confluent_kafka import KafkaError, KafkaException, Producer

from connectors.kafka.client import KafkaClient, KafkaErrors, count_partitions, kafka_error, open_client
from connectors.kafka.schema_registry import SchemaRegistry
from connectors.uri import KafkaUri
from schemas.elements import EventBatch, Refusal
from schemas.problems import JobError

_AGAIN = "then run the same command again: it goes on where it stopped"
_KEY = "retailer_id"
_TOO_LARGE = (KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.INVALID_MSG_SIZE)
_REFUSED = KafkaError.INVALID_RECORD
_PURGED = (KafkaError._PURGE_QUEUE, KafkaError._PURGE_INFLIGHT)
_SETTINGS = {
    "enable.idempotence": True,
    "message.timeout.ms": 0,  # never: this module watches the progress itself
    "delivery.report.only.error": True,
    "partitioner": "murmur2_random",  # as Java's producers do it
    "linger.ms": 20,
    "compression.type": "lz4",
    "queue.buffering.max.messages": 200_000,
    "queue.buffering.max.kbytes": 131_072,
}
_OWN = ("enable.idempotence", "message.timeout.ms", "delivery.report.only.error")
Row = tuple[int, bytes, str | None, list[tuple[str, str]]]  # its number, body, key and headers


class KafkaPublisher:
    """Publishes messages to one topic, as many in flight as librdkafka likes.

    `submit` queues and returns; `settle` waits for all and returns what was refused. Nothing published for
    `deadline_s` seconds is a JobError, and so is an error that only somebody can put right.
    """

    def __init__(
        self,
        uri: KafkaUri,
        client: KafkaClient,
        *,
        deadline_s: float = 60.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._uri, self._client, self._deadline_s, self._clock = uri, client, deadline_s, clock
        self._producer: Any = None

    def open(self) -> KafkaPublisher:
        """Connects. Raises JobError when the topic cannot be used."""
        self._errors = KafkaErrors()
        properties = dict(self._client.properties)
        self._settings = {key: value for key, value in _SETTINGS.items() if key in _OWN or key not in properties}
        self._producer = self._connect(self._settings)
        count_partitions(self._producer, self._uri, self._errors, min(self._deadline_s, 20.0))
        self._sent: list[Iterable[Row]] = []
        self._refused: dict[bytes, KafkaError] = {}
        self._failure: JobError | None = None
        self._in_flight, self._progressed_at = 0, self._clock()
        return self

    def close(self) -> None:
        """Drops what was not sent and disconnects. May be called twice."""
        if self._producer is not None:
            self._producer.purge()
            self._producer.flush(0)
            self._producer = None

    def __enter__(self) -> KafkaPublisher:
        return self.open()

    def __exit__(self, *_: object) -> None:
        self.close()

    def submit(self, rows: Iterable[Row]) -> None:
        """Queues messages; the rows can be gone through again. Raises the JobError of an earlier one."""
        self._check_progress()
        self._sent.append(rows)
        self._produce(self._producer, rows)

    def settle(self) -> list[Refusal]:
        """Waits until every message is published or refused; the refused ones, by row. Raises JobError when one could
        not be published; what was queued behind it is dropped."""
        self._flush(self._producer)
        sent, self._sent = self._sent, []
        if any(error.code() in _TOO_LARGE for error in self._refused.values()):
            self._publish_one_by_one(sent)
        refused, self._refused = self._refused, {}
        if not refused:
            return []
        return sorted(_refusal(row, refused[row[1]]) for rows in sent for row in rows if row[1] in refused)

    def _connect(self, settings: Mapping[str, Any]) -> Any:
        return open_client(Producer, self._client, self._uri, self._errors, settings)

    def _produce(self, producer: Any, rows: Iterable[Row]) -> None:
        produce, topic, on_delivery = producer.produce, self._uri.topic, self._delivered
        for count, (_, body, key, headers) in enumerate(rows):
            while True:
                try:  # one callback for all: one a message would be kept, and looked through, until it is delivered
                    produce(topic, body, key, headers=headers, on_delivery=on_delivery)
                except BufferError:
                    producer.poll(0.1)
                    self._check_progress(producer)
                    continue
                except KafkaException as error:
                    self._note_failure(body, error.args[0])
                break
            if count % 1_000 == 999:
                producer.poll(0)

    def _delivered(self, error: KafkaError | None, message: Any) -> None:
        if error is not None:
            self._note_failure(message.value(), error)

    def _note_failure(self, body: bytes, error: KafkaError) -> None:
        if error.code() in (*_TOO_LARGE, _REFUSED):
            self._refused[body] = error
        elif self._failure is None and error.code() not in _PURGED:
            self._failure = kafka_error(self._uri, "could not be published to", error)

    def _publish_one_by_one(self, sent: list[Iterable[Row]]) -> None:
        """Publish the messages that were refused as too large alone: a broker refuses a whole batch for one of them."""
        too_large = [row for rows in sent for row in rows if row[1] in self._refused]
        self._refused = {body: error for body, error in self._refused.items() if error.code() not in _TOO_LARGE}
        too_large = [row for row in too_large if row[1] not in self._refused]
        producer = self._connect({**self._settings, "batch.num.messages": 1, "linger.ms": 0})
        self._produce(producer, too_large)
        self._flush(producer)

    def _flush(self, producer: Any) -> None:
        self._progressed_at = self._clock()
        while producer.flush(0.2):
            self._check_progress(producer)
        self._check_progress(producer)

    def _check_progress(self, producer: Any = None) -> None:
        """Raises JobError once a message has failed for good, or nothing has moved for too long."""
        in_flight, now = len(producer or self._producer), self._clock()
        if in_flight != self._in_flight or not in_flight:
            self._in_flight, self._progressed_at = in_flight, now
        if self._failure is None and now - self._progressed_at >= self._deadline_s:
            last = self._errors.last
            cause = f" ({last.name()}: {last.str()})" if last else ""
            happened = f"Nothing could be published to {self._uri} for {now - self._progressed_at:.0f} s{cause}"
            self._failure = JobError(happened, f"Check the brokers and the network, {_AGAIN}")
        if self._failure is not None:
            failed, self._failure = self._failure, None
            self._sent, self._refused = [], {}
            (producer or self._producer).purge()
            raise failed


class KafkaEvents:
    """Publishes each event as one message of a topic: its retailer is the key, its attributes are the headers."""

    def __init__(self, uri: KafkaUri, client: KafkaClient, **publisher: Any) -> None:
        self._uri = uri
        self._registry = SchemaRegistry(client.registry) if client.registry else None
        self._publisher = KafkaPublisher(uri, client, **publisher)

    def open(self) -> None:
        """Connect."""
        self._publisher.open()

    def send(self, events: EventBatch) -> None:
        """Start publishing the batch. Raises JobError when an earlier batch could not be published."""
        frame = self._registry.frame(self._uri.topic, events.attributes["schema"]) if self._registry else b""
        self._publisher.submit(_Rows(events, frame))

    def settle(self) -> list[Refusal]:
        """Wait until all events are published or refused; the refused ones."""
        return self._publisher.settle()

    def close(self) -> None:
        """Disconnect."""
        self._publisher.close()


def _refusal(row: Row, error: KafkaError) -> Refusal:
    number, body, _, _ = row
    if error.code() in _TOO_LARGE:
        return Refusal(number, "over_size", f"{len(body):,} bytes; the topic or the client takes less ({error.str()})")
    return Refusal(number, "refused_by_broker", error.str())


class _Rows:
    """The rows of a batch, built again by each iteration."""

    def __init__(self, events: EventBatch, frame: bytes) -> None:
        self._events, self._frame = events, frame

    def __iter__(self) -> Iterator[Row]:
        bodies, attributes, frame = self._events.bodies, self._events.attributes, self._frame
        always = [(name, value) for name, value in attributes.items() if isinstance(value, str)]
        columns = {name: _texts(column) for name, column in attributes.items() if not isinstance(column, str)}
        keys = columns.get(_KEY) or [attributes.get(_KEY)] * len(bodies)
        names = list(columns)
        for row, (body, key, *values) in enumerate(zip(bodies.to_pylist(), keys, *columns.values(), strict=True)):
            headers = [(name, value) for name, value in zip(names, values, strict=True) if value is not None]
            yield row, frame + body if frame else body, key, headers + always


def _texts(column: Any) -> list[Any]:
    return list((column.cast(pa.string()) if pa.types.is_dictionary(column.type) else column).to_pylist())
