"""Reads the whole log of event types as columns, as the pipeline `features` counts it: scanned, each event once."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping

import numpy as np

from connectors.kafka.client import KafkaClient
from connectors.open import open_partitions
from connectors.uri import store_uri
from pipelines.features.sources import GROUP
from pipelines.operations.features.recompute import LogPart, ReadEvents
from schemas.events.event_types import EventType
from schemas.transport import PartitionedReader
from transforms.features.recent_ids import REMEMBERED, RecentIds
from transforms.features.scan_events import scan

_POLL = 10_000
_IDLE_S = 1.0  # a partition has been read when nothing comes for so long
Clock = Callable[[], float]


def log_reader(events: str, types: Mapping[str, EventType], kafka: KafkaClient, clock: Clock = time.time) -> ReadEvents:
    """A reader of the logs in an event store (`file:DIR` or `kafka:HOST:PORT/PREFIX`), each to its present end. Events
    that a rule refuses are left out, and those whose id stands in the log shortly before."""

    def read(name: str, columns: Collection[str]) -> Iterator[LogPart]:
        log = open_partitions(store_uri(events).of_type(name), kafka, GROUP, idle_s=_IDLE_S)
        log.open()
        try:
            for partition, first in enumerate(log.starts(0)):
                yield from _partition(log, partition, first, types[name], columns, clock)
        finally:
            log.close()

    return read


def _partition(
    log: PartitionedReader, partition: int, first: int, event_type: EventType, columns: Collection[str], clock: Clock
) -> Iterator[LogPart]:
    ids, done = RecentIds(first, REMEMBERED), False
    while not done:
        poll = log.poll(partition, first, _POLL)
        done = poll.done
        if not poll.envelopes:
            continue
        first = poll.handle
        scanned = scan(event_type, poll.envelopes, int(clock() * 1000), columns=columns)
        new = ids.first_seen(scanned.events.positions.tolist(), scanned.event_ids)
        yield LogPart(partition, first, scanned.events.take(np.array(new, bool)))
