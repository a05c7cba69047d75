"""The options of a launch: as Beam options, and as a checked configuration."""

from __future__ import annotations

import re
from argparse import ArgumentParser
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from apache_beam.options.pipeline_options import PipelineOptions

from connectors.gcs import download_copy, is_remote
from connectors.kafka.client import KafkaClient
from connectors.kafka.options import KafkaOptions, read_client
from connectors.uri import SinkUri, UriError, sink_uri
from pipelines.command_line.logs import LOG_FORMAT
from pipelines.engines.dataflow.checks import secrets_problems
from schemas.campaigns.configuration import load_configuration
from schemas.problems import InputError, Problem

Uri = TypeVar("Uri")
_AS_GIVEN = ("output", "launch_id", "test", "strict", "batch_rows", "broker_wait", "secrets")
_WRITTEN = ("campaigns", "snapshot", "survey", "exposures", "dead_letters", "sticky.parquet")  # in OUTPUT, by a launch


def add_once(parser: ArgumentParser, name: str, **settings: Any) -> None:
    """Adds an option that several pipelines have: for its workers Beam reads the options of every class it knows
    with one parser, which takes a name once."""
    if name not in parser._option_string_actions:
        parser.add_argument(name, **settings)


class LaunchOptions(PipelineOptions):
    """The options of a launch; every other option is Beam's."""

    @classmethod
    def _add_argparse_args(cls, parser: ArgumentParser) -> None:
        add, share = parser.add_argument, partial(add_once, parser)
        share("--campaigns", help="folder with engine.yaml, the campaigns' *.yaml, audiences/ and lists/")
        add("--customers", help="Parquet, CSV, NDJSON, Avro (file, folder, glob) or bigquery:TABLE|QUERY")
        share("--events", help="file:DIR, pubsub:projects/P/topics/T or kafka:HOST:PORT/TOPIC")
        share("--output", help="folder of this launch; the same command there resumes it")
        add("--launch_id", help="name of the launch; made up and kept in OUTPUT when not given")
        add("--history", action="append", help="earlier sends for the caps: a file, or OUTPUT of a launch")
        add("--sticky", help="sticky.parquet of an earlier launch")
        add("--batch_rows", type=int, default=131_072, help="customers a batch (131072)")
        add("--broker_wait", type=float, default=60.0, help="seconds to wait while nothing can be published (60)")
        share("--secrets", help="projects/P: Secret Manager there holds the keys, for workers in the cloud")
        add(
            "--strict",
            action="store_true",
            help="refuse to launch while the inputs have warnings (engine.yaml: strict)",
        )
        add_once(parser, "--log_format", **LOG_FORMAT)
        add("--test", action="store_true", help="a test send: never counted by caps, nor made sticky")


@dataclass(frozen=True)
class LaunchConfig:
    """The checked options. Inputs in Cloud Storage have been downloaded: their paths are those of the copies, and
    `mirrors` has the addresses of the folders that were copied."""

    campaigns: Path
    customers: str
    events: SinkUri
    output: str
    launch_id: str | None = None
    history: tuple[str, ...] = ()
    sticky: str | None = None
    test: bool = False
    strict: bool = False
    batch_rows: int = 131_072
    broker_wait: float = 60.0
    only: str | None = None
    secrets: str | None = None
    mirrors: tuple[str, ...] = ()
    kafka: KafkaClient = field(default_factory=KafkaClient)

    @classmethod
    def of(cls, options: Any, mistakes: Sequence[Problem] = ()) -> LaunchConfig:
        """The configuration of parsed options. Raises InputError with their problems and the parser's `mistakes`."""
        problems = missing_options(options, "launch", ("campaigns", "customers", "events", "output"), mistakes)
        events = read_uri(sink_uri, options.events, problems) if options.events else None
        if options.launch_id and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}", options.launch_id):
            fix = "use letters, digits, _ . - and at most 64 characters"
            problems.append(Problem("command line", "--launch_id", options.launch_id, fix))
        problems += secrets_problems(options.secrets)
        problems += overwritten(options)
        problems += small_options(options, {"batch_rows": 1, "broker_wait": 0.1})
        kafka = read_client(options.view_as(KafkaOptions), problems)
        if problems or events is None:
            raise InputError(problems + folder_problems(options.campaigns))
        mirrors: list[str] = []
        return cls(
            campaigns=Path(_download(options.campaigns, mirrors)),
            customers=_download(options.customers, mirrors),
            events=events,
            history=tuple(_download(path, mirrors) for path in options.history or ()),
            sticky=_download(options.sticky, mirrors) if options.sticky else None,
            kafka=kafka,
            mirrors=tuple(dict.fromkeys(mirrors)),
            **{name: getattr(options, name) for name in _AS_GIVEN},
        )


def overwritten(options: Any) -> list[Problem]:
    """A problem for each input inside a folder that the launch writes: it would be removed or overwritten."""
    if not options.output or is_remote(options.output):
        return []
    root = Path(options.output)
    inputs = [("--campaigns", options.campaigns), ("--customers", options.customers), ("--sticky", options.sticky)]
    inputs += [("--history", value) for value in options.history or ()]
    fix = f"lies where this launch writes its own files; give another folder than {options.output} to --output"
    return [
        Problem("command line", name, value, fix)
        for name, value in inputs
        if value and not is_remote(value)
        if any(_lies_in(value, root / folder) for folder in _WRITTEN)
        or (name == "--history" and _lies_in(value, root) and _lies_in(options.output, Path(value)))
    ]


def _lies_in(path: str, folder: Path) -> bool:
    try:
        return Path(path).resolve().is_relative_to(folder.resolve())
    except (OSError, ValueError):  # not the name of a file: refused where it is read
        return False


def _download(path: str, mirrors: list[str]) -> str:
    """The path on this machine. Something in Cloud Storage is downloaded, and its folder added to the mirrors."""
    if not is_remote(path):
        return path
    copy, folder = download_copy(path)
    mirrors.append(folder)
    return copy


def read_uri(parse: Callable[[str], Uri], text: str, problems: list[Problem], option: str = "--events") -> Uri | None:
    """The transport or the ledger that an option names; None, and a problem more, where `parse` refuses it."""
    try:
        return parse(text)
    except UriError as error:
        problems.append(Problem("command line", option, text, str(error)))
        return None


def missing_options(options: Any, command: str, names: tuple[str, ...], mistakes: Sequence[Problem]) -> list[Problem]:
    """The mistakes, and a problem for each required option that is missing."""
    fix = f"give it; `campaigns {command} --help` explains it"
    wrong = {mistake.field for mistake in mistakes}
    missing = [f"--{name}" for name in names if not getattr(options, name) and f"--{name}" not in wrong]
    return [*mistakes, *(Problem("command line", name, "missing", fix) for name in missing)]


def folder_problems(campaigns: str | None) -> list[Problem]:
    """The problems of a folder of campaigns on this machine."""
    return [] if not campaigns or is_remote(campaigns) else load_configuration(Path(campaigns))[1]


def small_options(options: Any, least: dict[str, float]) -> list[Problem]:
    """A problem for each option that is below its minimum."""
    return [
        Problem("command line", f"--{name}", str(getattr(options, name)), f"must be {limit} or more")
        for name, limit in least.items()
        if getattr(options, name) < limit
    ]
