"""Run collect: on an engine here, until its sources are drained or it is stopped."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from apache_beam.options.pipeline_options import PipelineOptions

from connectors.open import begin_group, create_event_store, expire_events
from pipelines.collect.factories import make_watch
from pipelines.collect.options import CollectConfig, CollectOptions
from pipelines.collect.pipeline import build
from pipelines.command_line.commands import read_collect
from pipelines.command_line.engine_options import print_warnings
from pipelines.command_line.exit_codes import Ending, exit_code
from pipelines.command_line.logs import configure_logs, count_log, logs_are_json, say
from pipelines.engines.choose import choose_engine, prepare_engine
from pipelines.engines.dataflow.checks import on_dataflow
from pipelines.engines.run import leave, run_pipeline, stop_sources
from pipelines.engines.stable_ids import new_pipeline
from pipelines.launch.progress import repeated
from schemas.problems import InputError, JobError, Problem
from stores.local.stop_signals import StopSignals, stop_signals
from transforms.collect.counters import COUNTERS, rule_counts
from transforms.streaming.engine_traits import EngineTraits

_EXPIRE_EVERY_S, _TICK_S = 300.0, 1.0
Show = Callable[[dict[str, int]], None]
_log = logging.getLogger(__name__)


def collect(config: CollectConfig, options: PipelineOptions, show: Show, signals: StopSignals) -> dict[str, Any]:
    """Runs collect until its sources are drained or a signal stops it; the counts of this process.

    Raises InputError for mistakes in the settings, before anything runs, and JobError when the run cannot continue; the
    same call then resumes it.
    """
    engine = choose_engine(options, drain=config.drain)
    prepare_engine(options)
    _prepare(config)
    if not engine.durable_state:
        for uri in config.sources:
            begin_group(uri, config.kafka, config.group, config.start)
    started, before = time.perf_counter(), COUNTERS.tally.copy()
    asked = partial(stop_sources, config.stop_file.touch, "stored")
    stop = asked if engine.single_process or config.drain else leave
    p = new_pipeline(options)
    build(p, config, engine)
    try:
        with ExitStack() as beside:
            beside.enter_context(repeated(_EXPIRE_EVERY_S, partial(_expire, config)))
            if engine.single_process:
                beside.enter_context(repeated(_TICK_S, partial(_tick, config, show)))
            run_pipeline(p, signals, stop)
    finally:
        config.stop_file.unlink(missing_ok=True)
    return {**_counts(engine, before), "seconds": round(time.perf_counter() - started, 1)}


def _prepare(config: CollectConfig) -> None:
    """Creates what is missing of the store, and the folder of the quarantine."""
    try:
        Path(config.home).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        happened = f"{config.home} cannot be made ({error.strerror or error})"
        raise JobError(happened, "Choose a folder that this account may write to") from error
    create_event_store(config.store, config.kafka, config.logs())
    _expire(config)


def _expire(config: CollectConfig) -> None:
    try:
        expire_events(config.store, list(config.event_types()), int(time.time() * 1000))
    except (OSError, JobError) as error:
        _log.warning("old events were not deleted: %s", error)


def _tick(config: CollectConfig, show: Show) -> None:
    make_watch(config).tick(time.time())
    show({name: COUNTERS.tally[name] for name in COUNTERS.names})


def _counts(engine: EngineTraits, before: dict[str, int]) -> dict[str, Any]:
    """What this process counted in the run: all of it where the workers are threads of it."""
    if not engine.single_process:
        return {}
    counts = {name: COUNTERS.tally[name] - before.get(name, 0) for name in COUNTERS.names}
    rules = {name: count - before.get(name, 0) for name, count in rule_counts().items()}
    return {**counts, **{name: count for name, count in rules.items() if count}}


def _describe(counts: dict[str, int]) -> str:
    kept = f"{counts['quarantined']:,} in quarantine"
    return f"read {counts['read']:,}, appended {counts['appended']:,}, {kept}"


def run(argv: list[str] | None = None, *, exits: bool = False) -> int:
    """Runs collect with the options of a command line; the exit code (pipelines/command_line/exit_codes.py). With
    `exits` the process ends when this returns."""
    logging.getLogger("apache_beam.runners.common").setLevel(logging.CRITICAL)  # it would log the same error
    with stop_signals(exits=exits) as signals:
        return exit_code(partial(_run, argv, signals), "Collect stopped: ")


def _run(argv: list[str] | None, signals: StopSignals) -> Ending:
    parsed = read_collect(sys.argv[1:] if argv is None else argv)
    options = parsed.options
    configure_logs(options.view_as(CollectOptions).log_format)
    config = CollectConfig.of(options.view_as(CollectOptions), parsed.problems)
    print_warnings(parsed)
    if on_dataflow(options):
        fix = "collect runs on direct, prism and flink"
        raise InputError([Problem("command line", "--on", "dataflow", fix)])
    counts = collect(config, options, count_log(_describe), signals)
    if logs_are_json():
        say("collect has ended", counts=counts)
    print("\n".join(f"{name.replace('_', ' '):>40}  {value:>12,}" for name, value in counts.items()))
    return Ending.DONE
