"""The source of rebatch: native Pub/Sub, Kafka partitions, or readers that spool what comes from a broker."""

from __future__ import annotations

import time
import uuid
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import apache_beam as beam

from connectors.files.reader import FileReader
from connectors.kafka.consumer import begin
from connectors.kafka.partition_reader import KafkaPartitionReader
from connectors.kafka.reader import KafkaReader
from connectors.pubsub.leases import LeaseFile, leased_until
from connectors.pubsub.reader import PubsubReader
from connectors.uri import FileUri, KafkaUri, SubscriptionUri
from pipelines.engines.memory import collect_rarely
from pipelines.rebatch.factories import make_disk
from pipelines.rebatch.options import RebatchConfig
from pipelines.rebatch.rounds import Part
from schemas.transport import PartitionedReader, Reader
from stores.deliveries.delivery_folder import DeliveryFolder
from stores.deliveries.spool import Spool, SpooledReader, SpoolReader
from transforms.delivery.counters import COUNTERS
from transforms.streaming.counters import Limit
from transforms.streaming.engine_traits import EngineTraits
from transforms.streaming.read_messages import ReadMessages
from transforms.streaming.read_partitions import ReadPartitions
from transforms.streaming.read_pubsub import ReadNativePubsub

IN_FLIGHT = Limit(20_000, 16 << 20)  # messages, and bytes, on their way to the delivery before the sources wait


@dataclass(frozen=True)
class LocalSource:
    """The source of one run on an engine whose state does not survive it: readers of the events, which `name` names in
    this process, and the files that earlier runs left in the spool. Leases of the subscription that a killed run held
    may last until `leased_until` (epoch seconds)."""

    name: str
    config: RebatchConfig
    spooled: tuple[Path, ...]
    leased_until: float

    @property
    def readers(self) -> int:
        """The readers of the events, and one more for the spool if it holds anything."""
        return self.config.readers + bool(self.spooled)


def local_source(config: RebatchConfig) -> LocalSource:
    """A source for one run, with what is in the spool now."""
    folder, events = DeliveryFolder(config.output), config.events
    until = leased_until(folder.spool, events.path) if isinstance(events, SubscriptionUri) else 0.0
    return LocalSource(uuid.uuid4().hex, config, tuple(Spool(folder.spool).files()), until)


def read_events(
    config: RebatchConfig, engine: EngineTraits, source: LocalSource | None, part: Part | None
) -> beam.PTransform:
    """The transform that reads the envelopes of the events, and of the spool of a local source."""
    if source is not None:  # one source: a Flatten of events and spool would be one more hop
        reader, limit = partial(make_spooling_reader, source), IN_FLIGHT if part is None else None
        return ReadMessages(
            reader,
            engine,
            COUNTERS,
            source.readers,
            most_in_flight=limit,
            source=source.name,
            round_=part.read if part else None,
        )
    if engine.native_pubsub and isinstance(config.events, SubscriptionUri):
        return ReadNativePubsub(config.events.path)
    if isinstance(config.events, KafkaUri):
        return ReadPartitions(partial(make_partition_reader, config), time.time)
    return ReadMessages(partial(make_reader, config), engine, COUNTERS, config.readers)


def make_reader(config: RebatchConfig, index: int, leases: LeaseFile | None = None) -> Reader:
    """The reader of the events with an index below `config.readers`."""
    events, stop = config.events, DeliveryFolder(config.output).must_stop
    if isinstance(events, FileUri):
        return FileReader(events.directory, index=index, readers=config.readers, follow=not config.drain, stop=stop)
    idle_s = config.idle if config.drain else None
    if isinstance(events, KafkaUri):
        own = {"index": index, "readers": config.readers}
        return KafkaReader(events, config.kafka, config.group, **own, idle_s=idle_s, stop=stop)
    return PubsubReader(events.path, idle_s=idle_s, stop=stop, leases=leases)


def make_partition_reader(config: RebatchConfig) -> PartitionedReader:
    """The reader of a Kafka topic, for an engine that keeps the offsets in its checkpoints."""
    assert isinstance(config.events, KafkaUri)
    collect_rarely()
    idle_s = config.idle if config.drain else None
    stop = DeliveryFolder(config.output).must_stop
    return KafkaPartitionReader(config.events, config.kafka, config.group, start=config.start, idle_s=idle_s, stop=stop)


def begin_source(config: RebatchConfig) -> None:
    """Notes where a Kafka group begins, before any of several readers reads. Raises JobError."""
    if isinstance(config.events, KafkaUri):
        begin(config.events, config.kafka, config.group, config.start)


def make_spooling_reader(source: LocalSource, index: int) -> Reader:
    """The reader of a source with an index below `source.readers`. It writes what comes from a broker into the spool;
    the last one reads what earlier runs left there."""
    config, folder = source.config, DeliveryFolder(source.config.output)
    spool, leases = Spool(folder.spool), None
    if index == config.readers:
        return SpoolReader(spool, source.spooled)
    if isinstance(config.events, SubscriptionUri):
        leases = LeaseFile(folder.spool, config.events.path, index, source.leased_until)
    reader = make_reader(config, index, leases)
    enough = make_disk(config.output, config.ledger).enough
    return reader if isinstance(config.events, FileUri) else SpooledReader(reader, spool, enough)
