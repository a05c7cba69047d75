"""EventType: a kind of raw event, with every version of its schema, its key, owner, retention and rules.

A type is a folder: 1.avsc, 2.avsc, … and type.yaml. Every version can read what every other one wrote.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property
from importlib import resources
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, Field

from schemas.campaigns.audience import Strict
from schemas.campaigns.configuration import read_model
from schemas.campaigns.yaml_files import Document, read_yaml
from schemas.contracts import fingerprint, parsed
from schemas.events.rules import Future, Rule
from schemas.events.versions import Column, columns_of, flaws, incompatibilities
from schemas.features.windows import duration_ms
from schemas.problems import InputError, Problem, shown

_LONGEST_LIST = 10_000_000  # bytes of a reference list


def _span(text: str) -> str:
    duration_ms(text)
    return text


class _TypeFile(Strict):
    """type.yaml."""

    description: str = ""
    key: tuple[str, ...] = Field(min_length=1)
    time: str = "occurred_at"
    owner: str = Field(min_length=1)
    retention: Annotated[str, AfterValidator(_span)]
    rules: tuple[Rule, ...] = ()


@dataclass(frozen=True, eq=False)
class EventType:
    """A type as it was loaded. `key` are the columns that name its entity, `time` is the column (epoch ms) that says
    when it happened; `lists` are the reference lists by their file."""

    name: str
    versions: Mapping[int, Any]
    key: tuple[str, ...]
    time: str
    owner: str
    retention: str
    rules: tuple[Rule, ...] = ()
    lists: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    description: str = ""

    @cached_property
    def newest(self) -> int:
        """The newest version."""
        return max(self.versions)

    @cached_property
    def fields(self) -> Mapping[str, Column]:
        """The columns of the newest version, in its order."""
        return columns_of(self.versions[self.newest])

    @cached_property
    def columns(self) -> dict[str, str]:
        """long, double, boolean or string by column, of the newest version."""
        return {name: column.kind for name, column in self.fields.items()}

    @cached_property
    def fingerprints(self) -> dict[str, int]:
        """The version by the fingerprint of its schema."""
        return {fingerprint(schema): number for number, schema in self.versions.items()}

    @property
    def retention_ms(self) -> int:
        """How long its events are kept."""
        return duration_ms(self.retention)


def load_event_types(folder: str | Path | None = None) -> dict[str, EventType]:
    """The types of a folder with a folder a type (None: those that come with the engine), by name.

    Raises InputError with every mistake of every file.
    """
    return dict(_built_in()) if folder is None else _load(Path(folder))


@cache
def _built_in() -> dict[str, EventType]:
    with resources.as_file(resources.files("schemas") / "avro" / "events") as folder:
        return _load(folder)


def _load(root: Path) -> dict[str, EventType]:
    problems: list[Problem] = []
    folders = sorted(path for path in root.glob("*") if path.is_dir() and not path.name.startswith((".", "_")))
    if not folders:
        problems.append(Problem(str(root), "", "", "has no folder of an event type; name the folder that holds them"))
    types = {path.name: _load_type(path, problems) for path in folders}
    found = {name: event_type for name, event_type in types.items() if event_type is not None}
    owners: dict[str, str] = {}
    for event_type in found.values():
        for digits, number in event_type.fingerprints.items():
            place = f"{event_type.name}/{number}.avsc"
            if (other := owners.setdefault(digits[:8], place)) != place:
                problems.append(Problem(place, "", digits, f"has the id of {other}; change the name of a field"))
    if problems:
        raise InputError(problems)
    return found


def _load_type(folder: Path, problems: list[Problem]) -> EventType | None:
    before = len(problems)
    versions = _versions(folder, problems)
    document = read_yaml(folder / "type.yaml", f"{folder.name}/type.yaml")
    if isinstance(document, Problem):
        problems.append(document)
        return None
    model = read_model(document, _TypeFile, problems)
    if model is None or not versions:
        return None
    columns = {name: column.kind for name, column in columns_of(versions[max(versions)]).items()}
    problems += _column_problems(document, model, columns)
    lists = {}
    for index, rule in enumerate(model.rules):
        if rule.rule == "reference":
            lists[rule.file] = _read_list(folder / rule.file, document, index, problems)
    if len(problems) > before:
        return None
    defaults = tuple(
        Future(rule="future", name=f"future_{column}", column=column)
        for column in dict.fromkeys((model.time, "occurred_at", "published_at"))
        if not any(rule.rule == "future" and rule.column == column for rule in model.rules)
    )
    return EventType(
        folder.name, versions, model.key, model.time, model.owner, model.retention, (*defaults, *model.rules), lists,
        model.description,
    )  # fmt: skip


def _column_problems(document: Document, model: _TypeFile, columns: Mapping[str, str]) -> Iterator[Problem]:
    known = ", ".join(columns)
    for index, column in enumerate(model.key):
        if column not in columns:
            yield document.problem(("key", index), column, f"the newest version has no such column; it has {known}")
    if columns.get(model.time) != "long":
        yield document.problem(("time",), model.time, "must be a column of type long: epoch milliseconds")
    names = [rule.name for rule in model.rules]
    for index, rule in enumerate(model.rules):
        if names.index(rule.name) != index:
            yield document.problem(("rules", index, "name"), rule.name, "another rule has this name; choose another")
        for place, value, fix in rule.mistakes(columns):
            yield document.problem(("rules", index, place), value, fix)


def _read_list(path: Path, document: Document, index: int, problems: list[Problem]) -> tuple[str, ...]:
    try:
        if path.stat().st_size > _LONGEST_LIST:
            raise ValueError(f"is larger than {_LONGEST_LIST:,} bytes")
        values = tuple(line.strip() for line in path.read_text("utf-8").splitlines() if line.strip())
        if not values:
            raise ValueError("is empty")
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else str(error)
        fix = f"cannot be used ({why}); write a file of UTF-8 text with one value a line beside type.yaml"
        problems.append(document.problem(("rules", index, "file"), path.name, fix))
        return ()
    return values


def _versions(folder: Path, problems: list[Problem]) -> dict[int, Any]:
    """The parsed schema of each version that is sound, the newest last."""
    versions: dict[int, Any] = {}
    before = len(problems)
    for path in sorted(folder.glob("*.avsc")):
        place = f"{folder.name}/{path.name}"
        if not (path.stem.isascii() and path.stem.isdecimal() and str(int(path.stem)) == path.stem != "0"):
            problems.append(Problem(place, "", path.name, "is named by its version: 1.avsc, 2.avsc, …"))
            continue
        try:
            written = json.loads(path.read_text("utf-8"))
            schema = parsed(written) if isinstance(written, dict) else None
        except Exception as error:  # no JSON, no UTF-8, or no schema (fastavro has no common base)
            problems.append(Problem(place, "", shown(str(error)), "is no Avro schema; correct the file"))
            continue
        wrong = flaws(schema)
        problems += [Problem(place, name, shown(value), fix) for name, value, fix in wrong]
        if not wrong:
            versions[int(path.stem)] = schema
    versions = dict(sorted(versions.items()))
    if len(problems) == before and list(versions) != list(range(1, len(versions) + 1)):
        problems.append(Problem(folder.name, "", ", ".join(map(str, versions)), "has gaps in its versions: 1, 2, 3, …"))
    if len(problems) == before and not versions:
        problems.append(Problem(folder.name, "", "no version", "write its schema as 1.avsc"))
    for new, schema in versions.items():
        for old in range(1, new):
            if old in versions:
                found = incompatibilities(versions[old], schema)
                place = f"{folder.name}/{new}.avsc"
                fix = f"{{}}; undo the change against version {old}, which must read and be read by this one"
                problems += [Problem(place, name, shown(value), fix.format(why)) for name, value, why in found]
    return versions
