"""The source of rebatch: native Pub/Sub, Kafka partitions, or readers that spool what comes from a broker."""

from __future__ import annotations

import time
import uuid
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import apache_beam as beam

from connectors.open import last_lease, open_partitions, open_reader
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
    folder = DeliveryFolder(config.output).spool
    return LocalSource(uuid.uuid4().hex, config, tuple(Spool(folder).files()), last_lease(config.events, folder))


def read_events(
    config: RebatchConfig, engine: EngineTraits, source: LocalSource | None, part: Part | None
) -> beam.PTransform:
    """The transform that reads the envelopes of the events, and of the spool of a local source."""
    if source is not None:  # one source: a Flatten of events and spool would be one more hop
        reader = partial(make_spooling_reader, source)
        limit, round_ = (IN_FLIGHT, None) if part is None else (None, part.read)
        return ReadMessages(
            reader, engine, COUNTERS, source.readers, most_in_flight=limit, source=source.name, round_=round_
        )
    if engine.native_pubsub and (subscription := config.events.subscription_path):
        return ReadNativePubsub(subscription)
    if config.events.has_partitions:
        return ReadPartitions(partial(make_partition_reader, config), time.time)
    return ReadMessages(partial(make_reader, config), engine, COUNTERS, config.readers)


def make_reader(config: RebatchConfig, index: int, leases: tuple[Path, float] | None = None) -> Reader:
    """The reader of the events with an index below `config.readers`."""
    return open_reader(
        config.events,
        config.kafka,
        config.group,
        index=index,
        readers=config.readers,
        idle_s=config.idle if config.drain else None,
        stop=DeliveryFolder(config.output).must_stop,
        leases=leases,
    )


def make_partition_reader(config: RebatchConfig) -> PartitionedReader:
    """The reader of a Kafka topic, for an engine that keeps the offsets in its checkpoints."""
    collect_rarely()
    idle_s = config.idle if config.drain else None
    stop = DeliveryFolder(config.output).must_stop
    return open_partitions(config.events, config.kafka, config.group, start=config.start, idle_s=idle_s, stop=stop)


def make_spooling_reader(source: LocalSource, index: int) -> Reader:
    """The reader of a source with an index below `source.readers`. It writes what comes from a broker into the spool;
    the last one reads what earlier runs left there."""
    config, folder = source.config, DeliveryFolder(source.config.output)
    spool = Spool(folder.spool)
    if index == config.readers:
        return SpoolReader(spool, source.spooled)
    reader = make_reader(config, index, (folder.spool, source.leased_until))
    enough = make_disk(config.output, config.ledger).enough
    return reader if config.events.folder is not None else SpooledReader(reader, spool, enough)
