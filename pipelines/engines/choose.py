"""The choice of the engine that runs a job, its promises, and the preparation of this process for it."""

from __future__ import annotations

from apache_beam.options.pipeline_options import DirectOptions, PipelineOptions, PrismRunnerOptions, StandardOptions

from pipelines.engines import built_in, prism
from pipelines.engines.memory import collect_rarely
from pipelines.engines.presets import BUILT_IN, DATAFLOW, FLINK, PRESETS, PRISM, FlinkOptions, flags_of
from schemas.problems import InputError, Problem
from transforms.streaming.engine_traits import EngineTraits

_GET_PRISM = "Prism is not on this machine: run `make engines`, or set CAMPAIGNS_PRISM to its path"
_CLUSTER = EngineTraits(wall_clock_timers=True, single_process=False, retries_bundles=True, durable_state=True)
_LOCAL = EngineTraits(wall_clock_timers=True, single_process=True, retries_bundles=False, durable_state=False)
_TRAITS = {
    BUILT_IN: _LOCAL._replace(wall_clock_timers=False, native_batches=True),
    PRISM: _LOCAL,
    DATAFLOW: _CLUSTER._replace(native_pubsub=True, native_batches=True),
    **dict.fromkeys(FLINK, _CLUSTER._replace(early_finalization=True)),
}  # by Beam's name of the runner; any other is a cluster


def expand_preset(argv: list[str], *, streaming: bool) -> list[str]:
    """The options with those of the preset that --on names in its place, before all others. Raises InputError."""
    rest, names = list[str](), list[str]()
    words = iter(argv)
    for word in words:
        name, equals, value = word.partition("=")
        if name == "--on":
            names.append(value if equals else next(words, ""))
        else:
            rest.append(word)
    wrong = [name for name in names if name not in PRESETS]
    if wrong:
        raise InputError([Problem("command line", "--on", wrong[0], f"one of {', '.join(PRESETS)}")])
    return [flag.option for name in names[-1:] for flag in flags_of(name, rest, streaming=streaming)] + rest


def choose_engine(options: PipelineOptions, *, drain: bool) -> EngineTraits:
    """The promises of the engine that the options name; names one in the options where they name none.

    That is Prism, found by --prism_location, by CAMPAIGNS_PRISM, or in .engines/ (`make engines`). Without it a `drain`
    runs on the built-in engine, which needs nothing but Beam. On Flink a drain gives up its checkpoints: there it is
    the price of ever ending. Raises InputError for a job that the engine cannot run.
    """
    standard = options.view_as(StandardOptions)
    location = options.view_as(PrismRunnerOptions).prism_location or prism.find_prism()
    if standard.runner in (None, "DirectRunner"):
        standard.runner = BUILT_IN if drain and not location else PRISM
    if standard.runner == PRISM and not location:
        fix = f"{_GET_PRISM}, or give --drain: the built-in engine delivers what is there, then stops"
        raise InputError([Problem("command line", "--on", "prism", fix if not drain else _GET_PRISM)])
    if standard.runner == BUILT_IN and not drain:
        fix = "the built-in engine delivers when its input ends: give --drain, or run on Prism or Flink"
        raise InputError([Problem("command line", "--on", "direct", fix)])
    standard.streaming = standard.runner != BUILT_IN
    if standard.runner == PRISM:
        _locate_prism(options, location)
    flink = options.view_as(FlinkOptions)
    if standard.runner in FLINK and drain and flink.shutdown_sources_after_idle_ms is None:
        # Flink keeps the job's impulse, and with it the job, for ever; without it no checkpoint completes any more.
        flink.shutdown_sources_after_idle_ms = 0
    return _TRAITS.get(standard.runner, _CLUSTER)


def choose_batch_engine(options: PipelineOptions) -> PipelineOptions:
    """The options of a batch job, with the built-in engine named where they name none, and this process prepared: plain
    DirectRunner would first try to download another engine."""
    standard = options.view_as(StandardOptions)
    if standard.runner in (None, "DirectRunner"):
        standard.runner = BUILT_IN
    if standard.runner == PRISM:
        _locate_prism(options, options.view_as(PrismRunnerOptions).prism_location or prism.find_prism())
        prepare_engine(options)
    direct = options.view_as(DirectOptions)
    if (direct.direct_num_workers or 1) != 1 and direct.direct_running_mode == "in_memory":
        direct.direct_running_mode = "multi_processing"
    return options


def _locate_prism(options: PipelineOptions, location: str | None) -> None:
    own = options.view_as(PrismRunnerOptions)
    own.prism_location, own.prism_log_level = location, "warn"


def prepare_engine(options: PipelineOptions) -> None:
    """Prepares this process for the chosen engine, if that runs here: collects garbage less often, and patches Beam's
    worker (pipelines/engines/built_in.py and prism.py)."""
    runner = options.view_as(StandardOptions).runner
    if _TRAITS.get(runner, _CLUSTER).single_process:
        collect_rarely()
    if runner == BUILT_IN:
        built_in.patch_beam()
    if runner == PRISM:
        prism.patch_beam()
