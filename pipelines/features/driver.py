"""Run features: on an engine until the event store is folded or a signal stops it."""

from __future__ import annotations

import sys
import threading
import time
from functools import partial
from typing import Any

from apache_beam.options.pipeline_options import PipelineOptions

from pipelines.command_line.commands import read_features
from pipelines.command_line.engine_options import print_warnings
from pipelines.command_line.exit_codes import Ending, exit_code
from pipelines.command_line.logs import configure_logs, count_log
from pipelines.engines.choose import choose_engine, prepare_engine
from pipelines.engines.run import leave, run_pipeline, stop_sources
from pipelines.engines.stable_ids import new_pipeline
from pipelines.features.options import FeaturesConfig, FeaturesOptions
from pipelines.features.pipeline import build
from pipelines.features.sources import TypeSource
from pipelines.launch.progress import repeated
from schemas.problems import JobError
from stores.features.open import open_store
from stores.features.published import publish, published_folder
from stores.local.stop_signals import StopSignals, stop_signals
from transforms.features.counters import COUNTERS
from transforms.features.layout import Layout
from transforms.features.scan_events import scan

_STOP = threading.Event()  # the workers of an engine in this process ask it by name


def must_stop() -> bool:
    """Whether the sources of this process end."""
    return _STOP.is_set()


def fold_events(config: FeaturesConfig, options: PipelineOptions, signals: StopSignals) -> dict[str, int]:
    """Folds the event store into the feature store until it is drained or a signal stops it; the counts of this
    process. Raises InputError before anything runs, and JobError when the run cannot continue: the same call resumes.
    """
    open_store(config.store).close()
    if folder := published_folder(config.store):
        publish(folder, [group for groups in config.groups.values() for group in groups])
    engine = choose_engine(options, drain=config.idle_s is not None)
    prepare_engine(options)
    _STOP.clear()
    sources, layouts, scans = [], {}, {}
    for name, groups in config.groups.items():
        names = tuple(group.id for group in groups)
        layouts[name] = [Layout(group, config.types[name].columns) for group in groups]
        columns = {column for group in groups for column in group.columns}
        scans[name] = partial(_scan, config.types[name], columns)
        together = engine.memory_mirrors_state
        sources.append(
            TypeSource(config.events, name, config.store, names, config.kafka, config.idle_s, must_stop, together)
        )
    p = new_pipeline(options)
    build(p, sources, layouts, scans, time.time if config.as_of_s is None else partial(float, config.as_of_s))
    before = COUNTERS.tally.copy()
    show = count_log(lambda counts: f"read {counts['read']:,}, rows written {counts['rows_written']:,}")
    with repeated(1.0, lambda: show({name: COUNTERS.tally[name] for name in COUNTERS.names})):
        run_pipeline(p, signals, partial(stop_sources, _STOP.set, "folded") if engine.single_process else leave)
    return {name: COUNTERS.tally[name] - before[name] for name in COUNTERS.names}


def _scan(event_type: Any, columns: set[str], envelopes: Any, now: int) -> Any:
    return scan(event_type, envelopes, now, columns=columns)


def run(argv: list[str] | None = None, *, exits: bool = False) -> int:
    """Runs features with the options of a command line; the exit code (pipelines/command_line/exit_codes.py). With
    `exits` the process ends when this returns."""
    with stop_signals(exits=exits) as signals:
        return exit_code(partial(_run, argv, signals), "Features stopped: ")


def _run(argv: list[str] | None, signals: StopSignals) -> Ending:
    parsed = read_features(sys.argv[1:] if argv is None else argv)
    own = parsed.options.view_as(FeaturesOptions)
    configure_logs(own.log_format)
    config = FeaturesConfig.of(own, parsed.problems)
    print_warnings(parsed)
    if not config.groups:
        raise JobError("no feature group reads any of the event types")
    started = time.perf_counter()
    counts = fold_events(config, parsed.options, signals)
    seconds = round(time.perf_counter() - started, 1)
    print("\n".join(f"{name.replace('_', ' '):>16}  {value:>12,}" for name, value in counts.items() if value))
    print(f"{'seconds':>16}  {seconds:>12,}")
    return Ending.DONE
