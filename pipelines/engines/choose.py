"""Which engine runs a streaming job, and what it promises."""

from __future__ import annotations

from typing import NamedTuple

from apache_beam.options.pipeline_options import PipelineOptions, PrismRunnerOptions, StandardOptions

from pipelines.engines import prism
from pipelines.engines.presets import BUILT_IN, DATAFLOW, FLINK, PRISM, FlinkOptions


class Engine(NamedTuple):
    """What an engine promises: timers that follow the clock (`real_time`); to run in this one process, never taking
    back a bundle and forgetting its state when it ends (`alone`); a Pub/Sub source of its own (`reads_pubsub`). And
    what it does not: to say that a bundle is committed only once a checkpoint holds it (`commits_early`)."""

    real_time: bool
    alone: bool
    reads_pubsub: bool
    commits_early: bool


def choose_engine(options: PipelineOptions, *, ends: bool, drains: bool = False) -> Engine:
    """Names the engine in the options when they name none; what it promises.

    Prism is found by CAMPAIGNS_PRISM, or in .engines/ (`make engines`), or downloaded by Beam. Where it would have
    to be downloaded, a job whose input `ends` by itself runs on the built-in engine, which needs nothing but Beam.
    On Flink a job that `drains` gives up its checkpoints: there it is the price of ever ending.
    """
    standard = options.view_as(StandardOptions)
    if standard.runner in (None, "DirectRunner"):
        found = options.view_as(PrismRunnerOptions).prism_location or prism.prism()
        standard.runner = BUILT_IN if ends and not found else PRISM
    standard.streaming = standard.runner != BUILT_IN
    if standard.runner == PRISM:
        prism.prepare(options)
    if standard.runner in FLINK and drains:
        # Flink keeps the job's impulse, and with it the job, for ever; without it no checkpoint completes any more.
        flink = options.view_as(FlinkOptions)
        if flink.shutdown_sources_after_idle_ms is None:
            flink.shutdown_sources_after_idle_ms = 0
    return Engine(
        real_time=bool(standard.streaming),
        alone=standard.runner in (PRISM, BUILT_IN),
        reads_pubsub=standard.runner == DATAFLOW,
        commits_early=standard.runner in FLINK,
    )
