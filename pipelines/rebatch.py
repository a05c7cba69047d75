"""Rebatch: at-least-once campaign events in, each customer reached once, up to 50 a call.

    read | decode | skip what is settled | group by retailer | drop repeats | hold until due
         | batch by retailer | pace and deliver | record receipts and dead letters

`skip what is settled` and the spool are for engines that keep their state in memory: a restart of such a job reads
again what it had read and not settled, and the delivery ledger tells what was (docs/decisions/007).
"""

from __future__ import annotations

import logging
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import apache_beam as beam
from apache_beam.io.filesystems import FileSystems
from apache_beam.options.pipeline_options import PipelineOptions

from pipelines.counts import Show, counts, ledger_counts, swept_at_times, watched_counts
from pipelines.dataflow.checks import local_problems, needs_secrets, on_dataflow, rebatch_problems
from pipelines.dataflow.submit import Submitted, submit
from pipelines.engines.choose import Engine, choose_engine
from pipelines.engines.presets import with_preset
from pipelines.engines.stable_ids import new_pipeline
from pipelines.rebatch_options import RebatchConfig, RebatchOptions
from pipelines.rebatch_workers import (
    begin_source,
    check_disk,
    make_dispatcher,
    make_ledger,
    make_log,
    make_reader,
    make_spooling_reader,
    prepare_stores,
    sweep,
)
from pipelines.settings import Settings, check_delivery
from schemas.configuration import load_configuration
from schemas.problems import InputError, LaunchError
from stores.delivery_folder import DeliveryFolder
from stores.remote_folder import RemoteFolder, is_remote
from stores.secrets import Secrets
from stores.transports.dead_letters import write_dead_letters
from stores.transports.receipts import write_receipts
from stores.transports.spool import Spool
from stores.transports.uri import FileUri, KafkaUri, SubscriptionUri
from transforms.rebatch.batch import BatchByRetailer
from transforms.rebatch.counters import on_the_way
from transforms.rebatch.decode import Decode
from transforms.rebatch.deliver import DeliverBatches
from transforms.rebatch.hold import HoldUntilDue
from transforms.rebatch.native import ReadNativePubsub
from transforms.rebatch.read import ReadMessages
from transforms.rebatch.read_kafka import ReadPartitions
from transforms.rebatch.records import RecordDeadLetters, RecordReceipts, UnreportedReceipts
from transforms.rebatch.repeats import DropRepeats
from transforms.rebatch.settled import SkipSettled
from transforms.rebatch.shards import GroupByRetailer

_PASSES = 3  # of a drain: what an engine dropped on its way is read again
AHEAD = 20_000  # messages on their way to the delivery before the sources wait


def build(p: beam.Pipeline, config: RebatchConfig, settings: Settings, engine: Engine) -> None:
    """The pipeline, for an engine with these promises."""
    folder, delivery, clock = DeliveryFolder(config.output), settings.delivery(), time.time
    ledger, real_time, alone = partial(make_ledger, config.ledger), engine.real_time, engine.alone
    good, unread = _read(p, config, engine) | "Decode" >> Decode(clock, ignore_times=config.ignore_times)
    receipts = (
        (good | "SkipSettled" >> SkipSettled(ledger) if alone else good)
        | "GroupByRetailer" >> GroupByRetailer()
        | "DropRepeats" >> DropRepeats(delivery.remember.total_seconds(), clock, real_time=real_time, alone=alone)
        | "HoldUntilDue" >> HoldUntilDue(clock, real_time=real_time)
        | "BatchByRetailer" >> BatchByRetailer(delivery.wait.total_seconds(), clock, real_time=real_time, alone=alone)
        | "DeliverBatches"
        >> DeliverBatches(
            partial(make_dispatcher, config, settings), clock, real_time=real_time, patience_s=config.patience
        )
    )
    unreported = p | "UnreportedReceipts" >> UnreportedReceipts(ledger)
    write, letters = partial(write_receipts, folder.receipts), partial(write_dead_letters, folder.dead_letters)
    receipts = (receipts, unreported) | "Receipts" >> beam.Flatten()
    _ = receipts | "RecordReceipts" >> RecordReceipts(ledger, write, letters)
    _ = unread | "RecordDeadLetters" >> RecordDeadLetters(ledger, letters)


def _read(p: beam.Pipeline, config: RebatchConfig, engine: Engine) -> Any:
    """Envelopes of the events, and of what an earlier run left in the spool."""
    if engine.reads_pubsub and isinstance(config.events, SubscriptionUri):
        return p | "ReadEvents" >> ReadNativePubsub(config.events.path)
    if isinstance(config.events, KafkaUri) and not engine.alone:
        return p | "ReadEvents" >> ReadPartitions(partial(make_log, config), time.time)
    if not engine.alone:
        return p | "ReadEvents" >> ReadMessages(
            partial(make_reader, config), config.readers, early=engine.commits_early
        )
    left = Spool(DeliveryFolder(config.output).spool).files()
    reader = partial(make_spooling_reader, config, left)  # one source: a Flatten of two would be one more hop
    return p | "ReadEvents" >> ReadMessages(reader, config.readers + bool(left), most_ahead=AHEAD)


def rebatch(config: RebatchConfig, options: PipelineOptions, show: Show) -> dict[str, Any]:
    """The counts of a run that ended: drained, or stopped by SIGTERM or Ctrl-C.

    Raises InputError for mistakes in the settings, before anything ran, and LaunchError when it cannot go on; the
    same call then goes on where it stopped.
    """
    if problems := local_problems(config):
        raise InputError(problems)
    folder = DeliveryFolder(config.output)
    folder.prepare()
    engine = choose_engine(options, ends=config.drain and isinstance(config.events, FileUri), drains=config.drain)
    stop = partial(_end, folder) if engine.alone or config.drain else _leave
    with folder.locked(), _stopped_by_signals(stop):
        settings = _settings(config)
        _check(config, Secrets(config.secrets))
        prepare_stores(config)
        if engine.alone:
            begin_source(config)
        read, every_s = (counts, 1.0) if engine.alone else (partial(ledger_counts, config.ledger), 10.0)
        started, before = time.perf_counter(), read()
        if not engine.alone:  # what waits is a level there, not a count: what waited before is read again
            before |= {"read": before["read"] - before["left_waiting"], "left_waiting": 0}
        with watched_counts(show, read, every_s), swept_at_times(partial(sweep, config)):
            for _ in range(_PASSES):
                missing = on_the_way()
                p = new_pipeline(options)
                build(p, config, settings, engine)
                with suppress(_Left):
                    p.run().wait_until_finish()
                missing = on_the_way() - missing
                if missing <= 0 or not config.drain or folder.must_stop():
                    break
        counted = {name: value - before[name] for name, value in read().items()}
        summary = {**counted, "missing": missing, "swept": sweep(config)}
        folder.write_summary({**summary, "seconds": round(time.perf_counter() - started, 1)})
        check_disk(config)
        return summary


def on_the_cloud(config: RebatchConfig, options: PipelineOptions) -> Submitted:
    """The job on Dataflow, or its template: the same pipeline, with nothing of this machine in it.

    Raises InputError for what workers there could not use, and LaunchError when Google refuses the job.
    """
    FileSystems.set_options(options)
    if problems := rebatch_problems(config, options):
        raise InputError(problems)
    settings, delivers = _settings(config), _check(config, Secrets(config.secrets, environment=not config.secrets))
    if problems := needs_secrets(config.secrets, delivers):
        raise InputError(problems)
    p = new_pipeline(options)
    build(p, config, settings, choose_engine(options, ends=False))
    return submit(p, options)[0]


def _settings(config: RebatchConfig) -> Settings:
    outbox = f"{DeliveryFolder(config.output).outbox}/{{retailer}}"
    return Settings(config.campaigns, outbox=outbox, secrets=Secrets(config.secrets))


def _check(config: RebatchConfig, secrets: Secrets) -> bool:
    """Whether the vendor needs keys. Raises InputError with everything that is wrong with the campaigns' folder and
    the workspaces' keys."""
    root = RemoteFolder(config.campaigns).pull() if is_remote(config.campaigns) else Path(config.campaigns)
    loaded, problems = load_configuration(root)
    if loaded is not None:
        common = loaded.engine.workspaces.get("*")
        several = common is None or "{retailer}" in (common.key_env or "{retailer}")
        retailers = [name for name in loaded.engine.workspaces if name != "*" or not several]
        problems += check_delivery(loaded, retailers, secrets)
    if problems or loaded is None:
        raise InputError(problems)
    return loaded.engine.delivery.vendor != "outbox"


def _end(folder: DeliveryFolder) -> None:
    print("stopping: what was read is delivered; once more to stop at once", file=sys.stderr, flush=True)
    folder.ask_to_stop()


class _Left(Exception):
    """The command ends and its job goes on, on a cluster."""


def _leave() -> None:
    told = "this command ends, the job goes on: stop it with a savepoint, as docs/engines.md says"
    print(told, file=sys.stderr, flush=True)
    raise _Left


@contextmanager
def _stopped_by_signals(stop: Callable[[], None]) -> Iterator[None]:
    """The first SIGTERM or Ctrl-C asks to stop; the second ends the process."""
    before = {one: signal.getsignal(one) for one in (signal.SIGTERM, signal.SIGINT)}

    def ask(number: int, frame: Any) -> None:
        for one, handler in before.items():
            signal.signal(one, handler)
        stop()

    for one in before:
        signal.signal(one, ask)
    try:
        yield
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)


def run(argv: list[str] | None = None, show: Show = lambda counts: None) -> int:
    """Rebatch as the options say; 0 when it ended, 1 when it could not go on, 2 for mistakes in the input."""
    logging.getLogger("apache_beam.runners.common").setLevel(logging.CRITICAL)  # it would log what is told below
    try:
        options = PipelineOptions(with_preset(sys.argv[1:] if argv is None else argv, streaming=True))
        config = RebatchConfig.of(options.view_as(RebatchOptions))
        if on_dataflow(options):
            print(on_the_cloud(config, options))
            return 0
        summary = rebatch(config, options, show)
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    except Exception as error:
        told = LaunchError.told(error)
        if told is None:
            raise
        print(f"Rebatch stopped: {told}", file=sys.stderr)
        return 1
    print("\n".join(f"{name.replace('_', ' '):>16}  {value:>12,}" for name, value in summary.items()))
    if left := summary["left_waiting"] + max(0, summary["missing"]):
        print(f"{left:,} events wait for the next run: paused, paced, not yet due, or leased; run it again")
    return 0


if __name__ == "__main__":
    sys.exit(run())
