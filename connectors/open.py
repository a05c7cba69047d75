"""Opens transports: the only place that knows which class reads, writes or creates what a URI names."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from connectors.event_sinks import FileEvents, PubsubEvents
from connectors.files import replay as files
from connectors.files.reader import FileReader
from connectors.kafka import client as kafka_client
from connectors.kafka import replay as kafka
from connectors.kafka.client import KafkaClient
from connectors.kafka.consumer import LINGER_S, Start
from connectors.kafka.consumer import begin_group as begin_kafka_group
from connectors.kafka.event_store import KafkaEventStore
from connectors.kafka.partition_reader import KafkaPartitionReader
from connectors.kafka.reader import KafkaReader
from connectors.kafka.sink import KafkaEvents
from connectors.log import scan as log
from connectors.log.reader import LogPartitionReader
from connectors.log.segments import LogSettings, create_log, is_log, read_settings
from connectors.log.store import LogEventStore
from connectors.log.writer import LogWriter
from connectors.pubsub import replay as pubsub
from connectors.pubsub.admin import create_topic as create_pubsub_topic
from connectors.pubsub.leases import LeaseFile, leased_until
from connectors.pubsub.publisher import PubsubPublisher
from connectors.pubsub.reader import PubsubReader
from connectors.replay import Publish, Window, read_window
from connectors.uri import BrokerTopicUri, FileUri, KafkaUri, SinkUri, SourceUri, StoreUri, SubscriptionUri
from schemas.transport import PartitionedReader, Reader

_IDLE_S = 5.0  # a subscription that gives nothing for so long has given everything


def open_reader(
    uri: SourceUri,
    client: KafkaClient,
    group: str,
    *,
    index: int = 0,
    readers: int = 1,
    idle_s: float | None = None,
    stop: Callable[[], bool] = lambda: False,
    leases: tuple[Path, float] | None = None,
) -> Reader:
    """One of `readers` readers of a source, to be opened. `client` and `group` are for Kafka.

    With `idle_s` it is done after the files that are there, or once a broker has given nothing for so many seconds;
    without, it waits for more until `stop`. `leases` are a folder, in which a reader of a subscription notes until
    when its leases last, and until when those of earlier readers do (epoch seconds).
    """
    if isinstance(uri, FileUri):
        return FileReader(uri.directory, index=index, readers=readers, follow=idle_s is None, stop=stop)
    if isinstance(uri, KafkaUri):
        return KafkaReader(uri, client, group, index=index, readers=readers, idle_s=idle_s, stop=stop)
    file = LeaseFile(leases[0], uri.path, index, leases[1]) if leases else None
    return PubsubReader(uri.path, idle_s=idle_s, stop=stop, leases=file)


def open_partitions(
    uri: SourceUri,
    client: KafkaClient,
    group: str,
    *,
    start: Start | None = None,
    idle_s: float | None = None,
    stop: Callable[[], bool] = lambda: False,
    linger_s: float = LINGER_S,
) -> PartitionedReader:
    """A reader of a source that has partitions, for an engine that keeps the offsets in its checkpoints. A
    poll of Kafka that found messages waits `linger_s` for more. Raises InputError for a folder that is no log."""
    if isinstance(uri, FileUri):
        begin = _log_positions(Path(uri.directory), start or Start())
        return LogPartitionReader(Path(uri.directory), begin=begin, idle_s=idle_s, stop=stop)
    if not isinstance(uri, KafkaUri):
        raise ValueError(f"{uri} has no partitions")
    return KafkaPartitionReader(uri, client, group, start=start, idle_s=idle_s, stop=stop, linger_s=linger_s)


def has_partitions(uri: SourceUri) -> bool:
    """Whether `open_partitions` opens a source: a Kafka topic, or the log of a type in an embedded event store."""
    return uri.has_partitions or (isinstance(uri, FileUri) and is_log(uri.directory))


def open_log_writer(uri: SinkUri, partitions: int, retention_ms: int | None = None) -> LogWriter:
    """A writer of the log in a folder, which is created unless it is there. Raises InputError when it has another
    number of partitions, JobError when it cannot be created."""
    if not isinstance(uri, FileUri):
        raise ValueError(f"{uri} is no folder")
    create_log(Path(uri.directory), LogSettings(partitions, retention_ms))
    return LogWriter(Path(uri.directory)).open()


def open_event_store(
    uri: StoreUri, client: KafkaClient, settings: Mapping[str, LogSettings]
) -> LogEventStore | KafkaEventStore:
    """The event store of some types, to be opened, for appending. `client` is for Kafka."""
    if isinstance(uri, KafkaUri):
        return KafkaEventStore(uri, client, list(settings))
    return LogEventStore(uri.directory, settings)


def create_event_store(uri: StoreUri, client: KafkaClient, settings: Mapping[str, LogSettings]) -> None:
    """Creates the logs or topics of types that are missing. Raises InputError for a log with another number of
    partitions, JobError."""
    for name, wanted in settings.items():
        if isinstance(uri, KafkaUri):
            kafka_client.create_topic(uri.of_type(name), client, wanted.partitions, retention_ms=wanted.retention_ms)
        else:
            create_log(Path(uri.of_type(name).directory), wanted)


def existing_logs(uri: StoreUri, settings: Mapping[str, LogSettings]) -> dict[str, LogSettings]:
    """The settings of the logs that are there, and these of the others. Topics keep their own."""
    if isinstance(uri, KafkaUri):
        return dict(settings)
    folders = {name: Path(uri.of_type(name).directory) for name in settings}
    return {name: read_settings(folder) if is_log(folder) else settings[name] for name, folder in folders.items()}


def expire_events(uri: StoreUri, types: Sequence[str], now_ms: int) -> int:
    """Deletes what is older than the retention of its type; the number of segments. Kafka does so itself."""
    if isinstance(uri, KafkaUri):
        return 0
    return sum(len(log.expire(Path(uri.of_type(name).directory), now_ms)) for name in types)


def _log_positions(folder: Path, start: Start) -> dict[int, int]:
    """Where to begin to read the partitions of a log; those that are left out begin with their first event."""
    every = range(read_settings(folder).partitions)
    if start.at is not None:
        return {partition: log.position_at(folder, partition, start.at) for partition in every}
    if start.word == "latest":
        return {partition: log.bounds(folder, partition).end for partition in every}
    return dict(start.offsets)


def begin_group(uri: SourceUri, client: KafkaClient, group: str, start: Start | None) -> None:
    """Store where a Kafka group begins, before any of its readers reads. Raises JobError."""
    if isinstance(uri, KafkaUri):
        begin_kafka_group(uri, client, group, start)


def last_lease(uri: SourceUri, folder: Path) -> float:
    """Until when (epoch seconds) leases noted in a folder may last; 0 where there are none."""
    return leased_until(folder, uri.path) if isinstance(uri, SubscriptionUri) else 0.0


def open_sink(uri: SinkUri, client: KafkaClient, deadline_s: float) -> FileEvents | PubsubEvents | KafkaEvents:
    """The sink of a launch's event batches, to be opened. It fails when nothing is published for `deadline_s`."""
    if isinstance(uri, FileUri):
        return FileEvents(uri.directory)
    if isinstance(uri, KafkaUri):
        return KafkaEvents(uri, client, deadline_s=deadline_s)
    return PubsubEvents(uri.path, deadline_s=deadline_s)


def create_topic(uri: BrokerTopicUri, client: KafkaClient, partitions: int, subscription: str | None) -> str:
    """Create a topic unless it is there; one line that says what was created. `partitions` are for Kafka,
    `subscription` for Pub/Sub. Raises JobError."""
    if isinstance(uri, KafkaUri):
        created = kafka_client.create_topic(uri, client, partitions)
        return f"{uri}: {'made' if created else 'was there already'}"
    return str(create_pubsub_topic(uri, subscription=subscription))


def read_between(uri: SourceUri, client: KafkaClient, since: int, until: int) -> Iterator[Window]:
    """Lists of the messages published from `since` on and before `until` (epoch ms; in files by `emitted_at`), each
    with a function that acknowledges them.

    A Kafka topic is read by offsets and leaves its groups alone. A subscription is set back to `since`: it gives its
    messages to all who read it, and those that are not acknowledged stay there. Raises JobError.
    """
    until = min(until, int(time.time() * 1000))
    if isinstance(uri, KafkaUri):
        return kafka.read_between(uri, client, since, until)
    if isinstance(uri, FileUri) and is_log(uri.directory):
        return log.read_between(Path(uri.directory), since, until)
    if isinstance(uri, SubscriptionUri):
        pubsub.seek(uri, since)
    return read_window(open_reader(uri, client, "", idle_s=_IDLE_S), since, until)


@contextmanager
def open_publisher(uri: SinkUri, client: KafkaClient, part: str | None = None) -> Iterator[Publish]:
    """A function that publishes messages, bodies and attributes verbatim, and returns how many were accepted once they
    are safe. A file is named after `part`, by default after a new id. Raises JobError."""
    if isinstance(uri, FileUri):
        name = part or uuid.uuid4().hex[:12]
        yield lambda messages: files.write_messages(uri.directory, name, messages)
    elif isinstance(uri, KafkaUri):
        with kafka.publisher(uri, client) as publish:
            yield publish
    else:
        with PubsubPublisher(uri.path) as publisher:
            yield lambda messages: pubsub.publish(publisher, uri.path, messages)
