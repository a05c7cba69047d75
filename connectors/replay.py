"""What was published once: read again between two times from any transport, and published again to any."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
from google.api_core.exceptions import GoogleAPICallError
from google.pubsub_v1 import SubscriberClient
from google.pubsub_v1.services.subscriber.transports import SubscriberGrpcTransport

from connectors.files.reader import FileReader
from connectors.files.sink import FileSink
from connectors.kafka.client import KafkaClient
from connectors.kafka.consumer import PartitionConsumer
from connectors.kafka.reader import Decoder
from connectors.kafka.schema_registry import SchemaRegistry
from connectors.kafka.sink import KafkaPublisher, Row
from connectors.pubsub.publish_requests import publish_requests, pubsub_messages
from connectors.pubsub.publisher import PubsubPublisher, open_channel
from connectors.pubsub.reader import PubsubReader
from connectors.uri import FileUri, KafkaUri, SinkUri, SourceUri, SubscriptionUri
from schemas.contracts import ContractError, decode, resolve
from schemas.problems import JobError
from schemas.transport import Envelope

MOST = 5_000  # messages at a time
_LATE_MS = 600_000  # how much older than one before it a message of a Kafka partition may be
_SILENT_S = 60.0
_IDLE_S = 5.0  # without a message: a subscription has given all
Message = tuple[bytes, dict[str, str]]  # body and attributes
Window = tuple[list[Envelope], Callable[[], None]]


def read_between(uri: SourceUri, client: KafkaClient, since: int, until: int) -> Iterator[Window]:
    """Lists of the messages published from `since` on and before `until` (epoch ms; in files by `emitted_at`), each
    with what to call once it is dealt with.

    A Kafka topic is read by offsets, beside every group. A subscription is set back to `since`: it gives its messages
    to all who read it, and what is not dealt with stays there. Raises JobError.
    """
    until = min(until, int(time.time() * 1000))
    if isinstance(uri, KafkaUri):
        yield from _kafka_between(uri, client, since, until)
        return
    if isinstance(uri, SubscriptionUri):
        _seek(uri, since)
        reader: FileReader | PubsubReader = PubsubReader(uri.path, idle_s=_IDLE_S)
    else:
        reader = FileReader(uri.directory)
    reader.open()
    try:
        done = False
        while not done:
            poll = reader.poll(MOST)
            done = poll.done
            inside = [since <= one.published_at < until for one in poll.envelopes]
            some = [one for one, fits in zip(poll.envelopes, inside, strict=True) if fits]
            acks = [one for one, fits in zip(poll.handle or (), inside, strict=False) if fits]
            if some:
                yield some, lambda acks=acks: reader.commit(acks)  # type: ignore[misc]
    finally:
        if isinstance(reader, PubsubReader):
            reader.close()


def _kafka_between(uri: KafkaUri, client: KafkaClient, since: int, until: int) -> Iterator[Window]:
    consumer, decoder = PartitionConsumer(uri, client, "campaigns-replay").open(), Decoder(client)
    try:
        everyone = range(consumer.partitions())
        first, last = consumer.at_time(everyone, since), consumer.at_time(everyone, until + _LATE_MS)
        left = {one for one in everyone if first[one] < last[one]}
        consumer.assign({one: first[one] for one in left})
        came = time.monotonic()
        while left:
            messages = consumer.take(MOST)
            came = time.monotonic() if messages or consumer.ends.keys() & left else came
            if time.monotonic() - came > _SILENT_S:
                raise JobError(f"{uri} gave nothing for {_SILENT_S:.0f} s", "Check the brokers, then try again")
            inside = [one for one in messages if one.offset() < last[one.partition()]]
            some = [one for one in inside if since <= one.timestamp()[1] < until]
            left -= {one.partition() for one in messages if one.offset() >= last[one.partition()] - 1}
            left -= {one for one, end in consumer.ends.items() if end >= last[one]}
            if some:
                yield decoder.envelopes(some), lambda: None
    finally:
        consumer.close()


def _seek(uri: SubscriptionUri, since: int) -> None:
    with open_channel() as channel:
        client = SubscriberClient(transport=SubscriberGrpcTransport(channel=channel))
        try:
            there = client.get_subscription(subscription=uri.path)
            if not there.retain_acked_messages and not there.topic_message_retention_duration:
                keep = f"gcloud pubsub subscriptions update {uri.subscription} --retain-acked-messages"
                happened = f"{uri} keeps no message that was acknowledged, so none can be read again"
                raise JobError(happened, f"For the next time: `{keep}`")
            client.seek(request={"subscription": uri.path, "time": datetime.fromtimestamp(since / 1000, UTC)})
        except GoogleAPICallError as error:
            happened = f"{uri} could not be set back ({type(error).__name__}: {error.message})"
            raise JobError(happened, "Check its name, and give this account roles/pubsub.editor on it") from error


def fits_file(message: Message) -> bool:
    """Whether a file can hold a message: one broken record makes all of it unreadable."""
    try:
        decode(message[1].get("schema", ""), message[0])
    except ContractError:
        return False
    return True


@contextmanager
def publisher(target: SinkUri, client: KafkaClient, part: str | None = None) -> Iterator[Callable[..., int]]:
    """What publishes messages and says how many of them were accepted, once they are safe: bodies as they are, with
    their attributes. A file is named after `part`, or anew. Raises JobError."""
    if isinstance(target, FileUri):
        yield lambda messages: _write(target, messages, part or uuid.uuid4().hex[:12])
    elif isinstance(target, KafkaUri):
        registry = SchemaRegistry(client.registry) if client.registry else None
        with KafkaPublisher(target, client) as kafka:
            yield lambda messages: _publish_to_kafka(kafka, target, registry, messages)
    else:
        with PubsubPublisher(target.path) as pubsub:
            yield lambda messages: _publish_to_pubsub(pubsub, target.path, messages)


def _write(target: FileUri, messages: Sequence[Message], part: str) -> int:
    for place, (mark, some) in enumerate(_grouped(messages, lambda attributes: attributes.get("schema", ""))):
        bodies = pa.array([body for body, _ in some], pa.large_binary())
        FileSink(target.directory).write(f"replay-{part}{f'-{place}' * bool(place)}", resolve(mark), bodies)
    return len(messages)


def _publish_to_kafka(
    kafka: KafkaPublisher, target: KafkaUri, registry: SchemaRegistry | None, messages: Sequence[Message]
) -> int:
    rows: list[Row] = []
    for number, (body, attributes) in enumerate(messages):
        frame = _frame(registry, target.topic, attributes.get("schema", "")) if registry else b""
        rows.append((number, frame + body, attributes.get("retailer_id"), list(attributes.items())))
    kafka.submit(rows)
    return len(messages) - len(kafka.settle())


def _frame(registry: SchemaRegistry, topic: str, mark: str) -> bytes:
    """Nothing for a schema that is none of ours: those bytes were never taken out of their frame."""
    try:
        resolve(mark)
    except ContractError:
        return b""
    return registry.frame(topic, mark)


def _publish_to_pubsub(pubsub: PubsubPublisher, path: str, messages: Sequence[Message]) -> int:
    refused = 0
    for names, some in _grouped(messages, lambda attributes: tuple(sorted(attributes))):
        columns = {name: pa.array([attributes[name] for _, attributes in some]) for name in names}
        made = pubsub_messages(pa.array([body for body, _ in some], pa.large_binary()), columns)
        requests = publish_requests(path, made)
        refused += len(made.refused) + len(requests.refused)
        pubsub.submit(requests.requests)
    return len(messages) - refused - len(pubsub.settle())


def _grouped(messages: Sequence[Message], key: Callable[[dict[str, str]], Any]) -> list[tuple[Any, list[Message]]]:
    groups: dict[Any, list[Message]] = {}
    for message in messages:
        groups.setdefault(key(message[1]), []).append(message)
    return list(groups.items())
