"""Answers about event types: which there are, what one holds, and whether files of events keep its rules."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec

from connectors.files.reader import list_files, read_envelopes
from pipelines.command_line.parse import did_you_mean
from schemas.events.event_types import EventType, load_event_types
from schemas.events.framing import Framing
from schemas.events.versions import columns_of
from schemas.problems import InputError, JobError, Problem
from schemas.transport import Envelope
from transforms.features.quality import checks_of
from transforms.features.scan_events import scan

_POLL = 5_000  # events that are checked together
_SAMPLES = 3  # reasons that are shown of a rule


class TypeSummary(msgspec.Struct):
    """An event type in one line; `version` is the newest."""

    name: str
    version: int
    owner: str
    key: list[str]
    retention: str
    description: str


class ColumnDescription(msgspec.Struct):
    """A column: long, double, boolean or string; the version that brought it; what older events have there."""

    name: str
    kind: str
    nullable: bool
    since: int
    default: Any = None


class RuleDescription(msgspec.Struct):
    """A quality rule: what a value in the column must be, and what becomes of an event that breaks it."""

    name: str
    severity: str
    column: str
    requires: str


class TypeDescription(msgspec.Struct):
    """An event type. `fingerprints` are those of its versions' schemas (CRC-64-AVRO), the oldest first."""

    name: str
    description: str
    owner: str
    key: list[str]
    time: str
    retention: str
    fingerprints: list[str]
    columns: list[ColumnDescription]
    rules: list[RuleDescription]


class FileCheck(msgspec.Struct):
    """What a file of events holds: how many of each version, how many break each rule, and reasons by rule."""

    file: str
    type: str
    events: int = 0
    accepted: int = 0
    versions: dict[int, int] = {}
    rejected: dict[str, int] = {}
    warned: dict[str, int] = {}
    samples: dict[str, list[str]] = {}


def list_types(folder: str | None = None) -> list[TypeSummary]:
    """The types of a folder (None: those that come with the engine). Raises InputError for mistakes in it."""
    return [
        TypeSummary(one.name, one.newest, one.owner, list(one.key), one.retention, one.description)
        for one in load_event_types(folder).values()
    ]


def describe_type(name: str, folder: str | None = None) -> TypeDescription:
    """One type. Raises InputError for an unknown name, and for mistakes in the folder."""
    one = find_type(name, load_event_types(folder))
    since = {column: number for number in reversed(one.versions) for column in columns_of(one.versions[number])}
    columns = [
        ColumnDescription(column, field.kind, field.nullable, since[column], *field.default)
        for column, field in one.fields.items()
    ]
    return TypeDescription(
        name=name,
        description=one.description,
        owner=one.owner,
        key=list(one.key),
        time=one.time,
        retention=one.retention,
        fingerprints=list(one.fingerprints),
        columns=columns,
        rules=[RuleDescription(*check[:4]) for check in checks_of(one)],
    )


def find_type(name: str, types: dict[str, EventType]) -> EventType:
    """The type of that name. Raises InputError with the names that there are."""
    if name not in types:
        fix = f"{did_you_mean(name, types)}there are the event types {', '.join(types)}"
        raise InputError([Problem("command line", "NAME", name, fix)])
    return types[name]


def validate_files(paths: Sequence[str], now_ms: int, folder: str | None = None) -> list[FileCheck]:
    """The events of Avro container files (folders: all *.avro in them) held against the rules of their types.

    Raises InputError for files that cannot be read, and for files whose schema is no version of a type.
    """
    types = load_event_types(folder)
    framing, problems, checks = Framing(types), list[Problem](), list[FileCheck]()
    for path in paths:
        files = list_files(path) if Path(path).is_dir() else [path]
        if not files:
            problems.append(Problem(path, "", "", "holds no *.avro file; name a file or folder of events"))
        for file in files:
            try:
                checks.append(_check_file(file, types, framing, now_ms))
            except JobError as error:
                problems.append(Problem(file, "", "", error.happened))
            except InputError as error:
                problems += error.problems
    if problems:
        raise InputError(problems)
    return checks


def _check_file(file: str, types: dict[str, EventType], framing: Framing, now_ms: int) -> FileCheck:
    check = FileCheck(file, "", samples={})
    versions, rejected, warned = Counter[int](), Counter[str](), Counter[str]()
    for envelopes in _polls(file):
        schema = framing.read(envelopes[0]).schema
        if schema is None:
            fix = f"is no version of the event types {', '.join(types)}; --types DIR names a folder of others"
            raise InputError([Problem(file, "schema", envelopes[0].attributes["schema"], fix)])
        scanned = scan(types[schema.type], envelopes, now_ms, framing)
        check.type, check.events = schema.type, check.events + len(envelopes)
        check.accepted += len(scanned.events)
        versions.update(version for version in scanned.versions if version)
        warned.update(scanned.warned)
        for place, rule, _, reason in scanned.rejected:
            rejected[rule] += 1
            if rejected[rule] <= _SAMPLES:
                check.samples.setdefault(rule, []).append(f"{envelopes[place].message_id}: {reason}")
    check.versions, check.rejected, check.warned = dict(sorted(versions.items())), dict(rejected), dict(warned)
    return check


def _polls(file: str) -> Iterator[list[Envelope]]:
    envelopes = read_envelopes(file)
    while poll := list(islice(envelopes, _POLL)):
        yield poll
