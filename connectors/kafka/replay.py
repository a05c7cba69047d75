"""Messages of a Kafka topic, read between two times by offsets, and published again."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from connectors.kafka.client import KafkaClient
from connectors.kafka.consumer import PartitionConsumer
from connectors.kafka.reader import Decoder
from connectors.kafka.schema_registry import SchemaRegistry
from connectors.kafka.sink import KafkaPublisher, Row
from connectors.replay import MOST, Message, Publish, Window
from connectors.uri import KafkaUri
from schemas.contracts import is_known
from schemas.problems import JobError

_LATE_MS = 600_000  # a message of a partition may be so much older than the one before it
_SILENT_S = 60.0


def read_between(uri: KafkaUri, client: KafkaClient, since: int, until: int) -> Iterator[Window]:
    """The messages published from `since` on and before `until` (epoch ms). Raises JobError."""
    consumer, decoder = PartitionConsumer(uri, client, "campaigns-replay").open(), Decoder(client)
    try:
        partitions = range(consumer.partitions())
        first, last = consumer.at_time(partitions, since), consumer.at_time(partitions, until + _LATE_MS)
        unread = {partition for partition in partitions if first[partition] < last[partition]}
        consumer.assign({partition: first[partition] for partition in unread})
        progress = time.monotonic()
        while unread:
            messages = consumer.take(MOST)
            progress = time.monotonic() if messages or consumer.ends.keys() & unread else progress
            if time.monotonic() - progress > _SILENT_S:
                raise JobError(f"{uri} gave nothing for {_SILENT_S:.0f} s", "Check the brokers, then try again")
            before_end = [message for message in messages if message.offset() < last[message.partition()]]
            chosen = [message for message in before_end if since <= message.timestamp()[1] < until]
            unread -= {one.partition() for one in messages if one.offset() >= last[one.partition()] - 1}
            unread -= {partition for partition, end in consumer.ends.items() if end >= last[partition]}
            if chosen:
                yield decoder.envelopes(chosen), lambda: None
    finally:
        consumer.close()


@contextmanager
def publisher(uri: KafkaUri, client: KafkaClient) -> Iterator[Publish]:
    """A function that publishes messages and returns how many were accepted. Raises JobError."""
    registry = SchemaRegistry(client.registry) if client.registry else None
    with KafkaPublisher(uri, client) as kafka:

        def publish(messages: Sequence[Message]) -> int:
            rows: list[Row] = []
            for number, (body, attributes) in enumerate(messages):
                schema_id = attributes.get("schema", "")
                # The bodies of a schema that is not ours were read with their frame.
                frame = registry.frame(uri.topic, schema_id) if registry and is_known(schema_id) else b""
                rows.append((number, frame + body, attributes.get("retailer_id"), list(attributes.items())))
            kafka.submit(rows)
            return len(messages) - len(kafka.settle())

        yield publish
