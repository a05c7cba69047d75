"""Rebatch: at-least-once campaign events in, each customer reached once, up to 50 a call.

    read | decode | skip what is settled | group by retailer | drop repeats | hold until due
         | batch by retailer | pace and deliver | record receipts and dead letters

Skipping settled events, and the spool, serve engines that keep their state in memory (docs/decisions/007).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import apache_beam as beam

from pipelines.engines.choose import EngineTraits
from pipelines.rebatch.factories import (
    LocalSource,
    make_buffer,
    make_dispatcher,
    make_ledger,
    make_partition_reader,
    make_reader,
    make_spooling_reader,
)
from pipelines.rebatch.options import RebatchConfig
from pipelines.rebatch.rounds import Part
from pipelines.rebatch.settings import Settings
from stores.dead_letters import write_dead_letters
from stores.deliveries.delivery_folder import DeliveryFolder
from stores.deliveries.receipts import write_receipts
from stores.deliveries.waiting_batches import read_waiting
from transforms.delivery.batch_by_retailer import BatchByRetailer
from transforms.delivery.decode_events import Decode
from transforms.delivery.deliver_batches import DeliverBatches, Dispatcher
from transforms.delivery.group_by_retailer import GroupByRetailer
from transforms.delivery.read_waiting import ReadWaiting
from transforms.delivery.record_receipts import RecordDeadLetters, RecordReceipts, UnreportedReceipts
from transforms.delivery.skip_settled import SkipSettled
from transforms.streaming.counters import Limit
from transforms.streaming.drop_duplicates import DropDuplicates
from transforms.streaming.hold_until_due import HoldUntilDue
from transforms.streaming.read_messages import ReadMessages
from transforms.streaming.read_partitions import ReadPartitions
from transforms.streaming.read_pubsub import ReadNativePubsub

AHEAD = Limit(20_000, 16 << 20)  # messages, and bytes, on their way to the delivery before the sources wait
RELEASED = Limit(25_000, 20 << 20)  # the same, before what has become due waits: it goes before what is new


def build(
    p: beam.Pipeline,
    config: RebatchConfig,
    settings: Settings,
    engine: EngineTraits,
    source: LocalSource | None = None,
    part: Part | None = None,
) -> None:
    """The pipeline, for an engine with these promises. `source` is where an engine in this process reads; `part`
    is what this run does where a drain is several runs."""
    folder, delivery, clock = DeliveryFolder(config.output), settings.delivery(), time.time
    ledger, wall_clock_timers, alone = partial(make_ledger, config.ledger), engine.wall_clock_timers, engine.alone
    good, unread = _read(p, config, engine, source, part) | "Decode" >> Decode(clock, ignore_times=config.ignore_times)
    dispatcher: Callable[[], Dispatcher] = partial(make_dispatcher, config, settings)
    patience_s, buffer = config.patience, partial(make_buffer, config.output) if alone else None
    batches = (
        (good | "SkipSettled" >> SkipSettled(ledger) if alone else good)
        | "GroupByRetailer" >> GroupByRetailer()
        | "DropRepeats"
        >> DropDuplicates(delivery.remember.total_seconds(), clock, wall_clock_timers=wall_clock_timers, alone=alone)
        | "HoldUntilDue"
        >> HoldUntilDue(
            clock, wall_clock_timers=wall_clock_timers, buffer=buffer, most_ahead=RELEASED if alone else None
        )
        | "BatchByRetailer"
        >> BatchByRetailer(delivery.wait.total_seconds(), clock, wall_clock_timers=wall_clock_timers, alone=alone)
    )
    if part is not None:
        dispatcher, patience_s = partial(part.dispatcher, dispatcher), part.patience_s
        waiting = p | "ReadWaiting" >> ReadWaiting(part.waiting, read_waiting)
        batches = (batches, waiting) | "AllBatches" >> beam.Flatten()
    receipts = batches | "DeliverBatches" >> DeliverBatches(
        dispatcher,
        clock,
        wall_clock_timers=wall_clock_timers,
        patience_s=patience_s,
        leave=part.leave if part else None,
        buffer=buffer,
    )
    write, letters = partial(write_receipts, folder.receipts), partial(write_dead_letters, folder.dead_letters)
    if part is None or part.read.number == 1:
        unreported = p | "UnreportedReceipts" >> UnreportedReceipts(ledger)
        receipts = (receipts, unreported) | "Receipts" >> beam.Flatten()
    _ = receipts | "RecordReceipts" >> RecordReceipts(ledger, write, letters)
    _ = unread | "RecordDeadLetters" >> RecordDeadLetters(ledger, letters)


def _read(
    p: beam.Pipeline, config: RebatchConfig, engine: EngineTraits, source: LocalSource | None, part: Part | None
) -> Any:
    """Envelopes of the events, and of what an earlier run left in the spool."""
    if engine.reads_pubsub and (subscription := config.events.subscription_path):
        return p | "ReadEvents" >> ReadNativePubsub(subscription)
    if config.events.has_partitions and not engine.alone:
        return p | "ReadEvents" >> ReadPartitions(partial(make_partition_reader, config), time.time)
    if source is None:
        return p | "ReadEvents" >> ReadMessages(
            partial(make_reader, config), config.readers, early=engine.early_finalization
        )
    reader = partial(make_spooling_reader, source)  # one source: a Flatten of two would be one more hop
    ahead, round_ = (AHEAD, None) if part is None else (None, part.read)
    return p | "ReadEvents" >> ReadMessages(reader, source.readers, most_ahead=ahead, source=source.name, round_=round_)
