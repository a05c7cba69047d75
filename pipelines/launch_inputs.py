"""What a launch is given: options, the checked configuration, the snapshot, the manifest."""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import time
import uuid
from argparse import ArgumentParser
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
from apache_beam.options.pipeline_options import DirectOptions, PipelineOptions, StandardOptions

from schemas.configuration import Configuration, load_configuration
from schemas.contracts import fingerprint
from schemas.problems import InputError, Problem
from stores.customers.snapshot import Part, Snapshot, parts, read_part, take_snapshot
from stores.histories import history_files
from stores.launch_folder import LaunchFolder, differences
from stores.lists import read_list
from stores.sticky import read_sticky
from stores.transports.uri import FileUri, TopicUri, UriError, parse_uri
from transforms.plan import Plan, make_plan

MIN_SECRET = 16


class LaunchOptions(PipelineOptions):
    """The options of a launch; every other option is Beam's."""

    @classmethod
    def _add_argparse_args(cls, parser: ArgumentParser) -> None:
        parser.add_argument("--campaigns", help="folder with engine.yaml, the campaigns' *.yaml, audiences/ and lists/")
        parser.add_argument(
            "--customers", help="Parquet, CSV, NDJSON, Avro (file, folder, glob) or bigquery:TABLE|QUERY"
        )
        parser.add_argument("--events", help="file:DIR or pubsub:projects/P/topics/T")
        parser.add_argument("--output", help="folder of this launch; the same command there resumes it")
        parser.add_argument("--launch_id", help="name of the launch; made up and kept in OUTPUT when not given")
        parser.add_argument(
            "--history", action="append", help="earlier sends for the caps: a file, or OUTPUT of a launch"
        )
        parser.add_argument("--sticky", help="sticky.parquet of an earlier launch")
        parser.add_argument("--batch_rows", type=int, default=131_072, help="customers a batch (131072)")
        parser.add_argument(
            "--broker_wait", type=float, default=60.0, help="seconds to wait while nothing can be published (60)"
        )
        parser.add_argument("--test", action="store_true", help="a test send: never counted by caps, nor made sticky")


@dataclass(frozen=True)
class LaunchConfig:
    """The options, checked."""

    campaigns: Path
    customers: str
    events: FileUri | TopicUri
    output: str
    launch_id: str | None = None
    history: tuple[str, ...] = ()
    sticky: str | None = None
    test: bool = False
    batch_rows: int = 131_072
    broker_wait: float = 60.0
    only: str | None = None

    @classmethod
    def of(cls, options: Any) -> LaunchConfig:
        """The configuration of parsed options. Raises InputError with all that is wrong with them."""
        problems = [
            Problem("command line", f"--{name}", "missing", "give it; `campaigns launch --help` explains it")
            for name in ("campaigns", "customers", "events", "output")
            if not getattr(options, name)
        ]
        events = _events(options.events, problems) if options.events else None
        if options.launch_id and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}", options.launch_id):
            fix = "use letters, digits, _ . - and at most 64 characters"
            problems.append(Problem("command line", "--launch_id", options.launch_id, fix))
        for name, least in (("batch_rows", 1), ("broker_wait", 0.1)):
            if getattr(options, name) < least:
                fix = f"must be {least} or more"
                problems.append(Problem("command line", f"--{name}", str(getattr(options, name)), fix))
        if problems or events is None:
            raise InputError(problems)
        return cls(
            campaigns=Path(options.campaigns),
            customers=options.customers,
            events=events,
            output=options.output,
            launch_id=options.launch_id,
            history=tuple(options.history or ()),
            sticky=options.sticky,
            test=bool(options.test),
            batch_rows=options.batch_rows,
            broker_wait=options.broker_wait,
        )


def _events(text: str, problems: list[Problem]) -> FileUri | TopicUri | None:
    try:
        uri = parse_uri(text)
    except UriError as error:
        problems.append(Problem("command line", "--events", text, str(error)))
        return None
    if isinstance(uri, FileUri | TopicUri):
        return uri
    fix = "a launch publishes to file:DIR or pubsub:projects/P/topics/T"
    problems.append(Problem("command line", "--events", text, fix))
    return None


@dataclass(frozen=True)
class Prepared:
    """A launch that may run: everything was checked and the manifest stands."""

    config: LaunchConfig
    folder: LaunchFolder
    plan: Plan
    snapshot: Snapshot
    parts: list[Part]
    sizes: dict[tuple[str, str], int]
    manifest: dict[str, Any]

    def read(self, part: Part, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """The batches of a part."""
        return read_part(part, columns)

    @property
    def batches(self) -> int:
        """How many batches the whole launch has."""
        return sum(part.batches for part in self.parts)


def runner_options(options: PipelineOptions) -> PipelineOptions:
    """Beam's options, with the batch engine named: plain DirectRunner would first try to download another."""
    standard = options.view_as(StandardOptions)
    if standard.runner in (None, "DirectRunner"):
        standard.runner = "apache_beam.runners.portability.fn_api_runner.FnApiRunner"
    direct = options.view_as(DirectOptions)
    if (direct.direct_num_workers or 1) != 1 and direct.direct_running_mode == "in_memory":
        direct.direct_running_mode = "multi_processing"
    return options


def prepare(config: LaunchConfig, folder: LaunchFolder) -> Prepared:
    """Check everything, take the snapshot, and write or compare the manifest.

    Raises InputError with every mistake of every file, and with every input that has changed since the
    launch was started.
    """
    configuration, problems = load_configuration(config.campaigns)
    snapshot = _collected(problems, lambda: take_snapshot(config.customers, folder.root))
    _collected(problems, lambda: history_files(config.history))
    if config.sticky:
        _collected(problems, lambda: read_sticky(str(config.sticky)))
    before = folder.read_manifest()
    launched_at = int(time.time() * 1000) if before is None else int(before["launched_at"])
    launch_id = config.launch_id or (before or {}).get("launch_id") or _new_id(launched_at)
    if configuration is None or snapshot is None:
        raise InputError(problems)
    if config.only is not None:
        configuration = replace(
            configuration, campaigns=tuple(c for c in configuration.campaigns if c.id == config.only)
        )
    plan, mistakes = make_plan(configuration, snapshot.schema, launch_id, launched_at, config.test)
    problems += mistakes + _secret(plan)
    if problems:
        raise InputError(problems)
    manifest = {
        "launch_id": launch_id,
        "launched_at": launched_at,
        "config": _told(config),
        "inputs": _inputs(config, configuration, snapshot),
    }
    manifest = _kept(folder, before, manifest)
    return Prepared(config, folder, plan, snapshot, parts(snapshot, config.batch_rows), _sizes(plan), manifest)


def _new_id(launched_at: int) -> str:
    return f"{time.strftime('%Y%m%d-%H%M%S', time.gmtime(launched_at / 1000))}-{uuid.uuid4().hex[:6]}"


def _kept(folder: LaunchFolder, before: dict[str, Any] | None, manifest: dict[str, Any]) -> dict[str, Any]:
    """The manifest on disk; InputError when it is another launch's or the inputs are not the same."""
    if before is None:
        try:
            folder.create_manifest(manifest)
            return manifest
        except FileExistsError:
            before = folder.read_manifest() or {}
    if before["launch_id"] != manifest["launch_id"]:
        fix = f"this folder holds the launch {before['launch_id']}; give that id or another folder"
        raise InputError([Problem("command line", "--launch_id", manifest["launch_id"], fix)])
    if changed := differences(before["inputs"], manifest["inputs"]):
        raise InputError(changed)
    return before


def _collected(problems: list[Problem], read: Any) -> Any:
    try:
        return read()
    except InputError as error:
        problems += error.problems
        return None


def code_secret(plan: Plan) -> bytes:
    """The secret of the offer codes, from the environment."""
    return os.environ.get(plan.engine.code_secret, "").encode()


def _secret(plan: Plan) -> list[Problem]:
    needed = any(offer.kind == "unique_code" for entry in plan.campaigns for offer in entry.campaign.offers)
    if not needed or len(code_secret(plan)) >= MIN_SECRET:
        return []
    fix = f"set it to a secret of {MIN_SECRET} characters or more; the unique codes are derived from it"
    return [Problem("environment", plan.engine.code_secret, "missing or too short", fix)]


def _sizes(plan: Plan) -> dict[tuple[str, str], int]:
    """How many customers each limited offer can serve."""
    sizes = {}
    for entry in plan.campaigns:
        for offer in entry.campaign.offers:
            limits = [] if offer.budget is None else [offer.budget]
            if offer.codes is not None:
                limits.append(len(read_list(Path(plan.root) / offer.codes)))
            if limits:
                sizes[entry.campaign.id, offer.id] = min(limits)
    return sizes


def _told(config: LaunchConfig) -> dict[str, Any]:
    """The options as JSON data, for the commands that ask about the launch later."""
    return {**vars(config), "campaigns": str(config.campaigns.resolve()), "events": str(config.events)}


def config_of(folder: LaunchFolder) -> LaunchConfig:
    """The options of the launch in a folder. Raises InputError when there is none."""
    manifest = folder.read_manifest()
    if manifest is None:
        fix = "holds no launch (no manifest.json); give the --output of a launch"
        raise InputError([Problem(str(folder.root), "", "", fix)])
    told = manifest["config"]
    return LaunchConfig(
        **{
            **told,
            "campaigns": Path(told["campaigns"]),
            "events": _events(told["events"], []),
            "history": tuple(told["history"]),
            "output": str(folder.root),
        }
    )


def _inputs(config: LaunchConfig, configuration: Configuration, snapshot: Snapshot) -> dict[str, Any]:
    """What the launch depends on, by hash. Of the secret only a keyed hash is kept."""
    secret = os.environ.get(configuration.engine.code_secret, "").encode()
    return {
        "campaigns": dict(sorted(configuration.versions.items())),
        "configuration": _tree_hash(config.campaigns),
        "customers": config.customers,
        "customers_fingerprint": snapshot.fingerprint,
        "events": str(config.events),
        "schema": fingerprint("campaign_event"),
        "history": [_file_hash(path) for path in history_files(config.history)],
        "sticky": _file_hash(Path(config.sticky)) if config.sticky else None,
        "test": config.test,
        "batch_rows": config.batch_rows,
        "code_secret": hmac.new(secret, b"campaigns manifest", hashlib.sha256).hexdigest()[:12] if secret else None,
    }


def _tree_hash(root: Path) -> str:
    total = hashlib.sha256()
    for path in sorted(path for path in root.rglob("*") if path.is_file() and not path.name.startswith(".")):
        total.update(f"{path.relative_to(root)}\x00{_file_hash(path)}\x00".encode())
    return total.hexdigest()[:12]


def _file_hash(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:12]
