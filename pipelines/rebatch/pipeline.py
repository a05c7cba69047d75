"""Rebatch: at-least-once campaign events in, each customer reached once, up to 50 a call.

    read | decode | skip what is settled | group by retailer | drop repeats | hold until due
         | batch by retailer | pace and deliver | record receipts and dead letters

`skip what is settled` and the spool are for engines that keep their state in memory: a restart of such a job reads
again what it had read and not settled, and the delivery ledger tells what was (docs/decisions/007).
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

import apache_beam as beam
from apache_beam.io.filesystems import FileSystems
from apache_beam.options.pipeline_options import PipelineOptions

from connectors.secrets import Secrets
from connectors.uri import KafkaUri, SubscriptionUri
from pipelines.command_line.commands import read_rebatch
from pipelines.command_line.engine_options import print_warnings
from pipelines.command_line.exit_codes import Ending, exit_code
from pipelines.engines.choose import EngineTraits, choose_engine
from pipelines.engines.dataflow.checks import local_problems, needs_secrets, on_dataflow, rebatch_problems
from pipelines.engines.dataflow.submit import Submitted, submit
from pipelines.engines.servers import expect_lost_server, lost_server
from pipelines.engines.stable_ids import new_pipeline
from pipelines.rebatch.counts import Show, counts, ledger_counts, swept_at_times, watched_counts
from pipelines.rebatch.factories import (
    LocalSource,
    begin_source,
    check_disk,
    local_source,
    make_buffer,
    make_dispatcher,
    make_ledger,
    make_log,
    make_reader,
    make_spooling_reader,
    prepare_stores,
    recover_calls,
    sweep,
)
from pipelines.rebatch.inputs import check_inputs, make_settings
from pipelines.rebatch.options import RebatchConfig, RebatchOptions
from pipelines.rebatch.rounds import Part, Rounds
from pipelines.settings import Settings
from schemas.problems import InputError, JobError
from stores.dead_letters import write_dead_letters
from stores.deliveries.delivery_folder import DeliveryFolder
from stores.deliveries.receipts import write_receipts
from stores.deliveries.waiting_batches import read_waiting
from stores.local.stop_signals import StopSignals, say, stop_signals
from transforms.delivery.batch_by_retailer import BatchByRetailer
from transforms.delivery.decode_events import Decode
from transforms.delivery.deliver_batches import DeliverBatches, Dispatcher
from transforms.delivery.group_by_retailer import GroupByRetailer
from transforms.delivery.read_waiting import ReadWaiting
from transforms.delivery.record_receipts import RecordDeadLetters, RecordReceipts, UnreportedReceipts
from transforms.delivery.skip_settled import SkipSettled
from transforms.streaming.counters import Limit, on_the_way
from transforms.streaming.drop_duplicates import DropDuplicates
from transforms.streaming.hold_until_due import HoldUntilDue
from transforms.streaming.read_messages import ReadMessages, close_readers
from transforms.streaming.read_partitions import ReadPartitions
from transforms.streaming.read_pubsub import ReadNativePubsub

_PASSES = 3  # of a drain: what an engine dropped on its way is read again
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
        batches = (
            batches,
            p | "ReadWaiting" >> ReadWaiting(part.waiting, read_waiting),
        ) | "AllBatches" >> beam.Flatten()
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
    if engine.reads_pubsub and isinstance(config.events, SubscriptionUri):
        return p | "ReadEvents" >> ReadNativePubsub(config.events.path)
    if isinstance(config.events, KafkaUri) and not engine.alone:
        return p | "ReadEvents" >> ReadPartitions(partial(make_log, config), time.time)
    if source is None:
        return p | "ReadEvents" >> ReadMessages(
            partial(make_reader, config), config.readers, early=engine.early_finalization
        )
    reader = partial(make_spooling_reader, source)  # one source: a Flatten of two would be one more hop
    ahead, round_ = (AHEAD, None) if part is None else (None, part.read)
    return p | "ReadEvents" >> ReadMessages(reader, source.readers, most_ahead=ahead, source=source.name, round_=round_)


def rebatch(config: RebatchConfig, options: PipelineOptions, show: Show, signals: StopSignals) -> dict[str, Any]:
    """The counts of a run that ended: drained, or stopped by a signal.

    Raises InputError for mistakes in the settings, before anything ran, and JobError when it cannot go on; the
    same call then goes on where it stopped.
    """
    if problems := local_problems(config):
        raise InputError(problems)
    folder = DeliveryFolder(config.output)
    folder.prepare()
    engine = choose_engine(options, ends=config.drain, drains=config.drain)
    stop = partial(_end, folder) if engine.alone or config.drain else _leave
    with folder.locked():
        settings = make_settings(config)
        check_inputs(config, Secrets(config.secrets))
        prepare_stores(config)
        if engine.alone:
            begin_source(config)
        recover_calls(config)
        read, every_s = (counts, 1.0) if engine.alone else (partial(ledger_counts, config.ledger), 10.0)
        started, before = time.perf_counter(), read()
        if not engine.alone:  # what waits is a level there, not a count: what waited before is read again
            before |= {"read": before["read"] - before["left_waiting"], "left_waiting": 0}
        missing = 0
        with watched_counts(show, read, every_s), swept_at_times(partial(sweep, config)):
            for _ in range(_PASSES):
                if signals.asked:
                    break
                missing = on_the_way()
                _deliver(config, options, settings, engine, signals, stop)
                missing = on_the_way() - missing
                if missing <= 0 or not config.drain or folder.must_stop():
                    break
        counted = {name: value - before[name] for name, value in read().items()}
        summary = {**counted, "missing": missing, "swept": sweep(config)}
        folder.write_summary({**summary, "seconds": round(time.perf_counter() - started, 1)})
        check_disk(config)
        return summary


def _deliver(
    config: RebatchConfig,
    options: PipelineOptions,
    settings: Settings,
    engine: EngineTraits,
    signals: StopSignals,
    stop: Callable[[], None],
) -> None:
    """One pass over the source: a run of the pipeline, or several where the engine delivers at the end of its input."""
    source = local_source(config) if engine.alone else None

    def run(part: Part | None) -> None:
        p = new_pipeline(options)
        build(p, config, settings, engine, source, part)
        _run_pipeline(p, signals, stop)

    if source is None:
        return run(None)
    try:
        if engine.wall_clock_timers:
            run(None)
        else:
            waiting = DeliveryFolder(config.output).waiting
            Rounds(source.name, waiting, source.readers, config.patience, run).run()
    finally:
        close_readers(source.name)


def on_the_cloud(config: RebatchConfig, options: PipelineOptions) -> Submitted:
    """The job on Dataflow, or its template: the same pipeline, with nothing of this machine in it.

    Raises InputError for what workers there could not use, and JobError when Google refuses the job.
    """
    FileSystems.set_options(options)
    if problems := rebatch_problems(config, options):
        raise InputError(problems)
    settings, delivers = (
        make_settings(config),
        check_inputs(config, Secrets(config.secrets, environment=not config.secrets)),
    )
    if problems := needs_secrets(config.secrets, delivers):
        raise InputError(problems)
    say(
        f"There is no journal of calls with --output {config.output}: when a worker is lost, every event that it had "
        "claimed is in doubt, and `on_unknown` decides when its lease ends"
    )
    p = new_pipeline(options)
    build(p, config, settings, choose_engine(options, ends=False))
    return submit(p, options)[0]


def _run_pipeline(p: beam.Pipeline, signals: StopSignals, stop: Callable[[], None]) -> None:
    """Runs the pipeline to its end, or until the command leaves it. Raises JobError when Prism has ended before it,
    unless that was part of a stop: a service manager may signal every process."""
    try:
        with suppress(_Left), signals.calling(stop):
            p.run().wait_until_finish()
    except Exception as error:
        if not lost_server(error):
            raise
        if not signals.asked:
            todo = "Run the same command again: nothing is lost"
            raise JobError(f"the process of Prism has ended before its job. {todo}") from error
        say("Prism was stopped too: the next run delivers what it still held")


def _end(folder: DeliveryFolder) -> None:
    say("stopping: what was read is delivered first; give the signal again to stop at once")
    folder.ask_to_stop()
    expect_lost_server()


class _Left(Exception):
    """The command ends and its job goes on, on a cluster."""


def _leave() -> None:
    say("this command ends and the job goes on; to stop the job: campaigns flink stop (docs/engines.md)")
    raise _Left


def _stop_submitting() -> None:
    raise JobError("stopped while the job was submitted. See at Dataflow whether it is there, else submit it again")


def run(argv: list[str] | None = None, show: Show = lambda counts: None, *, exits: bool = False) -> int:
    """Rebatch as the options say; the exit code (pipelines/command_line/exit_codes.py). `exits`: the process ends when
    this returns."""
    logging.getLogger("apache_beam.runners.common").setLevel(logging.CRITICAL)  # it would log the same error
    with stop_signals(exits=exits) as signals:
        return exit_code(partial(_run, argv, show, signals), "Rebatch stopped: ")


def _run(argv: list[str] | None, show: Show, signals: StopSignals) -> Ending:
    given = read_rebatch(sys.argv[1:] if argv is None else argv)
    options = given.options
    config = RebatchConfig.of(options.view_as(RebatchOptions), given.problems)
    print_warnings(given)
    if on_dataflow(options):
        with signals.calling(_stop_submitting):
            print(on_the_cloud(config, options))
        return Ending.DONE
    summary = rebatch(config, options, show, signals)
    print("\n".join(f"{name.replace('_', ' '):>16}  {value:>12,}" for name, value in summary.items()))
    if left := summary["left_waiting"] + max(0, summary["missing"]):
        why = "paused, over their pace, not yet due, or claimed by another run"
        print(f"{left:,} events were not delivered: {why}. Run the same command again to deliver them")
    if config.drain and isinstance(config.events, SubscriptionUri):
        print("Not counted: messages that another subscriber has pulled and not acknowledged; Pub/Sub redelivers them")
    return Ending.DONE
