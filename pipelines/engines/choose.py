"""Which engine runs a streaming job, and what it promises."""

from __future__ import annotations

from typing import NamedTuple

from apache_beam.options.pipeline_options import PipelineOptions, PrismRunnerOptions, StandardOptions

from pipelines.engines import prism
from pipelines.engines.presets import BUILT_IN, DATAFLOW, FLINK, PRISM, FlinkOptions
from schemas.problems import InputError, Problem

_GET_PRISM = "Prism is not on this machine: run `make engines`, or set CAMPAIGNS_PRISM to its path"


class EngineTraits(NamedTuple):
    """What an engine promises: timers that follow the clock (`wall_clock_timers`); to run in this one process, never
    taking back a bundle and forgetting its state when it ends (`alone`); a Pub/Sub source of its own (`reads_pubsub`).
    And what it does not: to say that a bundle is committed only once a checkpoint holds it (`early_finalization`)."""

    wall_clock_timers: bool
    alone: bool
    reads_pubsub: bool
    early_finalization: bool


def choose_engine(options: PipelineOptions, *, ends: bool, drains: bool = False) -> EngineTraits:
    """Names the engine in the options when they name none; what it promises.

    Prism is found by --prism_location, by CAMPAIGNS_PRISM, or in .engines/ (`make engines`). Without it a job whose
    input `ends` by itself runs on the built-in engine, which needs nothing but Beam. On Flink a job that `drains` gives
    up its checkpoints: there it is the price of ever ending. Raises InputError for a job that the engine cannot run.
    """
    standard = options.view_as(StandardOptions)
    found = options.view_as(PrismRunnerOptions).prism_location or prism.prism()
    if standard.runner in (None, "DirectRunner"):
        standard.runner = BUILT_IN if ends and not found else PRISM
    if standard.runner == PRISM and not found:
        fix = f"{_GET_PRISM}, or give --drain: the built-in engine delivers what is there, then stops"
        raise InputError([Problem("command line", "--on", "prism", fix if not ends else _GET_PRISM)])
    if standard.runner == BUILT_IN and not ends:
        fix = "the built-in engine delivers when its input ends: give --drain, or run on Prism or Flink"
        raise InputError([Problem("command line", "--on", "direct", fix)])
    standard.streaming = standard.runner != BUILT_IN
    if standard.runner == PRISM:
        prism.prepare(options)
    if standard.runner in FLINK and drains:
        # Flink keeps the job's impulse, and with it the job, for ever; without it no checkpoint completes any more.
        flink = options.view_as(FlinkOptions)
        if flink.shutdown_sources_after_idle_ms is None:
            flink.shutdown_sources_after_idle_ms = 0
    return EngineTraits(
        wall_clock_timers=bool(standard.streaming),
        alone=standard.runner in (PRISM, BUILT_IN),
        reads_pubsub=standard.runner == DATAFLOW,
        early_finalization=standard.runner in FLINK,
    )
