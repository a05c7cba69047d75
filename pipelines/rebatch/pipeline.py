"""Rebatch: at-least-once campaign events in, each customer reached once, up to 50 a call.

    read events | decode | skip what is settled | group by retailer | drop duplicates | hold until due
                | batch by retailer | pace and deliver | record receipts and dead letters

`skip what is settled` and the spool are for engines whose state does not survive the run: a restart of such a job reads
again what it had read and not settled, and the delivery ledger tells what was (docs/decisions/007).
"""

from __future__ import annotations

import time
from functools import partial

import apache_beam as beam

from pipelines.operations.ledger.opened import receipt_writers
from pipelines.rebatch.factories import make_buffer, make_dispatcher, make_ledger
from pipelines.rebatch.options import RebatchConfig
from pipelines.rebatch.rounds import Part
from pipelines.rebatch.settings import Settings
from pipelines.rebatch.sources import LocalSource, read_events
from stores.deliveries.delivery_folder import DeliveryFolder
from stores.deliveries.waiting_batches import read_waiting
from transforms.delivery.batch_by_retailer import BatchByRetailer
from transforms.delivery.counters import COUNTERS
from transforms.delivery.decode_events import read_envelopes
from transforms.delivery.deliver_batches import DeliverBatches
from transforms.delivery.elements import Messages, due_times, duplicate_ids, event_id_of, retailer_of
from transforms.delivery.read_waiting import ReadWaiting
from transforms.delivery.record_receipts import RecordDeadLetters, RecordReceipts, UnreportedReceipts
from transforms.delivery.skip_settled import SkipSettled
from transforms.streaming.counters import Limit
from transforms.streaming.decode import Decode
from transforms.streaming.drop_duplicates import DropDuplicates
from transforms.streaming.engine_traits import EngineTraits
from transforms.streaming.group_by_shard import GroupByShard
from transforms.streaming.hold_until_due import HoldUntilDue

RELEASED = Limit(25_000, 20 << 20)  # in flight before what is due waits: more than sources.IN_FLIGHT, to go first


def build(
    p: beam.Pipeline,
    config: RebatchConfig,
    settings: Settings,
    engine: EngineTraits,
    source: LocalSource | None = None,
    part: Part | None = None,
) -> None:
    """Builds the pipeline for an engine with these promises. `source` is read where the engine's state does not survive
    the run; `part` is what this run does where a drain is several runs."""
    folder, delivery, clock = DeliveryFolder(config.output), settings.delivery(), time.time
    ledger, buffer = partial(make_ledger, config.ledger), partial(make_buffer, config.output)
    write, write_letters = receipt_writers(folder)
    decode = partial(read_envelopes, ignore_times=config.ignore_times)
    envelopes = p | "ReadEvents" >> read_events(config, engine, source, part)
    messages, malformed = envelopes | "Decode" >> Decode(decode, Messages, clock, COUNTERS)
    if not engine.durable_state:
        messages = messages | "SkipSettled" >> SkipSettled(ledger)
    batches = (
        messages
        | "GroupByRetailer" >> GroupByShard(Messages, retailer_of, event_id_of, time.monotonic)
        | "DropRepeats" >> DropDuplicates(duplicate_ids, delivery.remember.total_seconds(), clock, engine, COUNTERS)
        | "HoldUntilDue"
        >> HoldUntilDue(Messages, due_times, clock, engine, COUNTERS, buffer=buffer, most_in_flight=RELEASED)
        | "BatchByRetailer" >> BatchByRetailer(delivery.wait.total_seconds(), clock, engine)
    )
    dispatcher, patience_s = partial(make_dispatcher, config, settings), config.patience
    if part is not None:
        dispatcher, patience_s = partial(part.dispatcher, dispatcher), part.patience_s
        waiting = p | "ReadWaiting" >> ReadWaiting(part.waiting, read_waiting)
        batches = (batches, waiting) | "AllBatches" >> beam.Flatten()
    receipts = batches | "DeliverBatches" >> DeliverBatches(
        dispatcher, clock, engine, patience_s=patience_s, hand_over=part.leave if part else None, buffer=buffer
    )
    if part is None or part.read.number == 1:
        unreported = p | "UnreportedReceipts" >> UnreportedReceipts(ledger)
        receipts = (receipts, unreported) | "Receipts" >> beam.Flatten()
    _ = receipts | "RecordReceipts" >> RecordReceipts(ledger, write, write_letters, clock)
    _ = malformed | "RecordDeadLetters" >> RecordDeadLetters(ledger, write_letters, clock)
