"""Run rebatch: on an engine here until it is drained or stopped, or as a job that Dataflow takes."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from apache_beam.io.filesystems import FileSystems
from apache_beam.options.pipeline_options import PipelineOptions

from connectors.open import begin_group
from connectors.secrets import Secrets
from pipelines.command_line.commands import read_rebatch
from pipelines.command_line.engine_options import print_warnings
from pipelines.command_line.exit_codes import Ending, exit_code
from pipelines.command_line.logs import configure_logs, logs_are_json, say
from pipelines.engines.choose import choose_engine, prepare_engine
from pipelines.engines.dataflow.checks import local_problems, needs_secrets, on_dataflow, rebatch_problems
from pipelines.engines.dataflow.submit import Submitted, submit
from pipelines.engines.run import leave, run_pipeline, stop_sources
from pipelines.engines.stable_ids import new_pipeline
from pipelines.rebatch.counts import RunCounts, Show, log_counts, repeated_sweep, watched_counts
from pipelines.rebatch.factories import check_disk, prepare_stores, recover_calls, sweep
from pipelines.rebatch.options import RebatchConfig, RebatchOptions
from pipelines.rebatch.pipeline import build
from pipelines.rebatch.rounds import Part, Rounds
from pipelines.rebatch.settings import Settings, check_inputs, make_settings
from pipelines.rebatch.sources import local_source
from schemas.problems import InputError, JobError
from stores.deliveries.delivery_folder import DeliveryFolder
from stores.local.stop_signals import StopSignals, stop_signals
from transforms.delivery.counters import COUNTERS
from transforms.streaming.engine_traits import EngineTraits
from transforms.streaming.read_messages import close_readers

_PASSES = 3  # of a drain: what an engine dropped on its way is read again


def rebatch(config: RebatchConfig, options: PipelineOptions, show: Show, signals: StopSignals) -> dict[str, Any]:
    """Runs rebatch until its source is drained or a signal stops it; the counts of the run.

    Raises InputError for mistakes in the settings, before anything runs, and JobError when the run cannot continue; the
    same call then resumes it.
    """
    if problems := local_problems(config):
        raise InputError(problems)
    folder = DeliveryFolder(config.output)
    folder.prepare()
    engine = choose_engine(options, drain=config.drain)
    prepare_engine(options)
    asked = partial(stop_sources, folder.ask_to_stop, "delivered")
    stop = asked if engine.single_process or config.drain else leave
    with folder.locked():
        settings = make_settings(config)
        check_inputs(config, Secrets(config.secrets))
        prepare_stores(config)
        if not engine.durable_state:
            begin_group(config.events, config.kafka, config.group, config.start)
        recover_calls(config)
        started, counts, missing = time.perf_counter(), RunCounts(engine, config.ledger), 0
        with watched_counts(show, counts), repeated_sweep(partial(sweep, config)):
            for _ in range(_PASSES):
                if signals.asked:
                    break
                missing = COUNTERS.in_flight()
                _deliver(config, options, settings, engine, signals, stop)
                missing = COUNTERS.in_flight() - missing
                if missing <= 0 or not config.drain or folder.must_stop():
                    break
        summary = {**counts.of_run(), "missing": missing, "swept": sweep(config)}
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
    """Runs the pipeline once over the source, or in rounds where the engine delivers only at the end of its input."""
    source = None if engine.durable_state else local_source(config)

    def run(part: Part | None) -> None:
        p = new_pipeline(options)
        build(p, config, settings, engine, source, part)
        run_pipeline(p, signals, stop)

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


def submit_to_dataflow(config: RebatchConfig, options: PipelineOptions) -> Submitted:
    """Submits the same pipeline to Dataflow: the job, or the template that was written.

    Raises InputError for inputs that workers there cannot read, and JobError when Google refuses the job.
    """
    FileSystems.set_options(options)
    if problems := rebatch_problems(config, options):
        raise InputError(problems)
    needs_keys = check_inputs(config, Secrets(config.secrets, environment=not config.secrets))
    if problems := needs_secrets(config.secrets, needs_keys):
        raise InputError(problems)
    say(
        f"There is no journal of calls with --output {config.output}: when a worker is lost, every event that it had "
        "claimed is in doubt, and `on_unknown` decides when its lease ends"
    )
    p = new_pipeline(options)
    build(p, config, make_settings(config), choose_engine(options, drain=False))
    return submit(p, options)[0]


def _stop_submitting() -> None:
    raise JobError("stopped while the job was submitted. See at Dataflow whether it is there, else submit it again")


def run(argv: list[str] | None = None, show: Show = lambda counts: None, *, exits: bool = False) -> int:
    """Runs rebatch with the options of a command line; the exit code (pipelines/command_line/exit_codes.py). With
    `exits` the process ends when this returns."""
    logging.getLogger("apache_beam.runners.common").setLevel(logging.CRITICAL)  # it would log the same error
    with stop_signals(exits=exits) as signals:
        return exit_code(partial(_run, argv, show, signals), "Rebatch stopped: ")


def _run(argv: list[str] | None, show: Show, signals: StopSignals) -> Ending:
    parsed = read_rebatch(sys.argv[1:] if argv is None else argv)
    options = parsed.options
    configure_logs(options.view_as(RebatchOptions).log_format)
    config = RebatchConfig.of(options.view_as(RebatchOptions), parsed.problems)
    print_warnings(parsed)
    if on_dataflow(options):
        with signals.calling(_stop_submitting):
            print(submit_to_dataflow(config, options))
        return Ending.DONE
    summary = rebatch(config, options, log_counts() if logs_are_json() else show, signals)
    if logs_are_json():
        say("rebatch has ended", counts=summary)
    print("\n".join(f"{name.replace('_', ' '):>16}  {value:>12,}" for name, value in summary.items()))
    if undelivered := summary["left_waiting"] + max(0, summary["missing"]):
        why = "paused, over their pace, not yet due, or claimed by another run"
        print(f"{undelivered:,} events were not delivered: {why}. Run the same command again to deliver them")
    if config.drain and config.events.subscription_path:
        print("Not counted: messages that another subscriber has pulled and not acknowledged; Pub/Sub redelivers them")
    return Ending.DONE
