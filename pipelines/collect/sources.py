"""ReadSources: the messages of all sources of collect, which stay in their sources until they are in the store."""

from __future__ import annotations

import time
from functools import partial
from typing import Any

import apache_beam as beam

from connectors.open import open_partitions, open_reader
from connectors.uri import SourceUri
from pipelines.collect.options import CollectConfig
from pipelines.engines.memory import collect_rarely
from schemas.transport import PartitionedReader, Reader
from transforms.collect.counters import COUNTERS
from transforms.streaming.elements import Envelopes
from transforms.streaming.engine_traits import EngineTraits
from transforms.streaming.read_messages import ReadMessages
from transforms.streaming.read_partitions import ReadPartitions
from transforms.streaming.read_pubsub import ReadNativePubsub


class ReadSources(beam.PTransform):
    """Envelopes of all sources. Where the engine keeps no state, one step reads them all, so that no hop stands between
    a source and the store: what a source was told to forget is in the store. Steps: Sources, or Source0, Source1, …,
    Both."""

    def __init__(self, config: CollectConfig, engine: EngineTraits) -> None:
        super().__init__()
        self._config, self._engine = config, engine

    def expand(self, begin: Any) -> beam.PCollection[Envelopes]:
        config, engine = self._config, self._engine
        if not engine.durable_state:
            readers = config.readers * len(config.sources)
            return begin | "Sources" >> ReadMessages(partial(make_reader, config), engine, COUNTERS, readers)
        read = [begin | f"Source{number}" >> self._read(uri, number) for number, uri in enumerate(config.sources)]
        return read[0] if len(read) == 1 else tuple(read) | "Both" >> beam.Flatten()

    def _read(self, uri: SourceUri, number: int) -> beam.PTransform:
        config, engine = self._config, self._engine
        if engine.native_pubsub and (subscription := uri.subscription_path):
            return ReadNativePubsub(subscription)
        if uri.has_partitions:
            return ReadPartitions(partial(make_partitions, config, number), time.time)
        one = partial(make_reader, config, first=number * config.readers)
        return ReadMessages(one, engine, COUNTERS, config.readers)


def make_reader(config: CollectConfig, index: int, first: int = 0) -> Reader:
    """The reader of an index: `readers` of the first source, then of the next."""
    number, index = divmod(first + index, config.readers)
    return open_reader(
        config.sources[number],
        config.kafka,
        config.group,
        index=index,
        readers=config.readers,
        idle_s=config.idle if config.drain else None,
        stop=config.stop_file.exists,
    )


def make_partitions(config: CollectConfig, number: int) -> PartitionedReader:
    """The reader of a Kafka topic, for an engine that keeps the offsets in its checkpoints."""
    collect_rarely()
    return open_partitions(
        config.sources[number],
        config.kafka,
        config.group,
        start=config.start,
        idle_s=config.idle if config.drain else None,
        stop=config.stop_file.exists,
    )
