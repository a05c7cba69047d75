"""Parse the options of launch and rebatch: ours, and those of Apache Beam and of the chosen engine.

Beam warns of an unknown option and runs; here it is a mistake.
"""

from __future__ import annotations

import logging
from argparse import ArgumentParser
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import NamedTuple

from apache_beam.options.pipeline_options import PipelineOptions, StandardOptions

from pipelines.command_line.logs import say
from pipelines.command_line.parse import COMMAND_LINE, did_you_mean, read_words
from pipelines.engines.choose import expand_preset
from pipelines.engines.presets import BUILT_IN, DATAFLOW, FLINK, PRESETS, PRISM, FlinkOptions, flags_of
from schemas.problems import Problem, shown

AddOptions = Callable[[ArgumentParser], None]
_BEAM = "apache_beam.options.pipeline_options"
_TESTS = ("TestOptions", "TestDataflowOptions")
"""Options of Beam's own tests, which have no effect here: with --dry_run a launch would be a real one."""
_ENGINES = {BUILT_IN: "direct", PRISM: "prism", DATAFLOW: "dataflow", **dict.fromkeys(FLINK, "flink")}
_ONLY = {
    "DirectOptions": ("direct",),
    "PrismRunnerOptions": ("prism",),
    "FlinkRunnerOptions": ("flink",),
    "FlinkOptions": ("flink",),
    "JobServerOptions": ("flink",),
    "PortableOptions": ("flink", "prism", "dataflow"),
    "WorkerOptions": ("dataflow",),
    "SparkRunnerOptions": ("SparkRunner",),
    "KafkaStreamsRunnerOptions": ("KafkaStreamsRunner",),
}
"""The engines that read an option, by Beam's class of options; other classes are read by all."""
_EVERY_WORKER = (
    "--sdk_container_image", "--worker_harness_container_image", "--default_sdk_harness_log_level",
    "--sdk_harness_log_level_overrides", "--max_cache_memory_usage_mb", "--element_processing_timeout_minutes",
)  # fmt: skip
_ONLY_DATAFLOW = (
    "--dataflow_endpoint", "--service_account_email", "--template_location", "--label", "--labels", "--update",
    "--transform_name_mapping", "--enable_streaming_engine", "--dataflow_kms_key", "--create_from_snapshot",
    "--flexrs_goal", "--dataflow_service_option", "--dataflow_service_options", "--enable_hot_key_logging",
    "--enable_artifact_caching", "--dataflow_job_file",
)  # fmt: skip
_INSTEAD = {"--dry_run": "has no effect here; `campaigns preview` shows what a launch would do, `validate` checks it"}


class ParsedOptions(NamedTuple):
    """The valid options, the problems of the others, and a warning for each option without effect."""

    options: PipelineOptions
    problems: list[Problem]
    warnings: list[str]


def read_options(
    argv: Sequence[str], command: str, add_own: AddOptions, others: dict[str, str], *, streaming: bool
) -> ParsedOptions:
    """Parse the options of a command: its own, which `add_own` adds to a parser, and Beam's. `others` has the options
    of our other commands, with what to say about each."""
    parser = ArgumentParser(prog=f"campaigns {command}", allow_abbrev=False, add_help=False)
    add_own(parser)
    parser.add_argument("--on", metavar="ENGINE", choices=tuple(PRESETS))
    own = list(parser._option_string_actions)
    classes = _add_beams(parser)
    words = read_words(parser, argv, own, {**_INSTEAD, **others})
    problems = list(words.problems)
    options = [_full_runner_name(option, problems) for option in words.options]
    engines = _engines(options, streaming)
    warnings = []
    for name in dict.fromkeys(option.partition("=")[0] for option in options):
        readers = _readers(name, classes.get(name, ""))
        if not readers or engines & {*readers}:
            continue
        if classes[name] == FlinkOptions.__name__:
            fix = "is an option of Flink; remove it, or give --on flink"
            problems.append(Problem(COMMAND_LINE, name, "not known", fix))
        else:
            ours = " and ".join(sorted(engines))
            warnings.append(f"{name} has no effect on {ours}; only {' and '.join(readers)} reads it")
    return ParsedOptions(PipelineOptions(expand_preset(options, streaming=streaming)), problems, warnings)


def print_warnings(parsed: ParsedOptions) -> None:
    """Print the options that have no effect."""
    for warning in parsed.warnings:
        say(f"warning: {warning}", logging.WARNING)


def _add_beams(parser: ArgumentParser) -> dict[str, str]:
    """Add Beam's options; the class of each."""
    known = [kind for kind in PipelineOptions.__subclasses__() if kind.__module__ == _BEAM]
    classes = {}
    for kind in (*(kind for kind in known if kind.__name__ not in _TESTS), FlinkOptions):
        before = set(parser._option_string_actions)
        kind._add_argparse_args(parser)
        classes.update(dict.fromkeys(parser._option_string_actions.keys() - before, kind.__name__))
    return classes


def _readers(name: str, options_class: str) -> tuple[str, ...]:
    """The engines that read an option; empty for all."""
    if name in _EVERY_WORKER:
        return ()
    return ("dataflow",) if name in _ONLY_DATAFLOW else _ONLY.get(options_class, ())


def _full_runner_name(option: str, problems: list[Problem]) -> str:
    """The option, with the full name of a --runner. Adds a problem for an unknown runner."""
    name, _, runner = option.partition("=")
    if name != "--runner":
        return option
    for path in (*StandardOptions.ALL_KNOWN_RUNNERS, BUILT_IN):
        short = path.rpartition(".")[2]
        if runner.lower() in (path.lower(), short.lower(), short.lower().removesuffix("runner")):
            return f"--runner={path if path == BUILT_IN else short}"
    module, _, own = runner.rpartition(".")
    try:
        if module and hasattr(import_module(module), own):
            return option
    except ImportError:
        pass
    known = StandardOptions.KNOWN_RUNNER_NAMES
    near = did_you_mean(runner, [one.removesuffix("Runner") for one in known])
    fix = f"{near}--on {'|'.join(PRESETS)} names an engine; a runner of Beam is one of {', '.join(known)}"
    problems.append(Problem(COMMAND_LINE, name, shown(runner), fix))
    return "--runner=DirectRunner"


def _engines(options: list[str], streaming: bool) -> set[str]:
    """The engine that the options name; without one, those that we choose from."""
    given = dict(one.partition("=")[::2] for one in options)
    preset = [one.option for one in flags_of(given["--on"], options, streaming=streaming)] if "--on" in given else []
    runner = {**dict(one.partition("=")[::2] for one in preset), **given}.get("--runner")
    if runner is None:
        return {"direct", "prism"} if streaming else {"direct"}
    return {_ENGINES.get(runner, "direct" if runner.endswith("DirectRunner") else runner)}
