"""The declared feature groups of a folder of Python files, checked against the event types they read."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from schemas.features.checks import chain_mistakes, type_mistakes
from schemas.features.declarations import FeatureGroup
from schemas.features.references import Declared
from schemas.features.tables import TableGroup
from schemas.problems import InputError, Problem, shown

Columns = Mapping[str, dict[str, str]]
"""By event type: long, double, boolean or string by column."""


def load_groups(folder: str | Path, types: Columns) -> dict[str, FeatureGroup]:
    """The groups of the folder that are computed from events and kept in the store, by id: neither chained nor from
    tables. Raises InputError with every mistake of every declaration."""
    found = load_catalogue(folder, types)
    return {name: one for name, one in found.items() if isinstance(one, FeatureGroup) and not one.every}


def load_catalogue(folder: str | Path, types: Columns) -> dict[str, Declared]:
    """All groups that the folder's *.py files declare at their top level, by id: FeatureGroup, also chained ones, and
    TableGroup. Raises InputError with every mistake.

    The files are run: name only a folder whose code you trust.
    """
    root, problems = Path(folder), list[Problem]()
    files = sorted(path for path in root.glob("*.py") if not path.name.startswith("_"))
    if not files:
        raise InputError([Problem(str(folder), "", "", "has no *.py files; write FeatureGroup(…) declarations there")])
    declared: dict[str, tuple[str, Declared]] = {}
    for path in files:
        for name, value in vars(_run(path, problems)).items():
            if not isinstance(value, FeatureGroup | TableGroup):
                continue
            place = f"{path.name}: {name}"
            if wrong := type_mistakes(value):
                problems += _problems(place, wrong)
                continue
            other, same = declared.setdefault(value.id, (place, value))
            if same is not value:
                problems.append(Problem(place, "name", value.id, f"{other} declares it too; use another version"))
    catalogue = {name: group for name, (_, group) in sorted(declared.items())}
    for place, group in declared.values():
        problems += _problems(place, _mistakes(group, catalogue, types))
    if problems:
        raise InputError(problems)
    if not catalogue:
        raise InputError([Problem(str(folder), "", "", "declares no FeatureGroup at the top level of its files")])
    return catalogue


def columns_of(group: FeatureGroup, catalogue: Mapping[str, Declared], types: Columns) -> dict[str, str]:
    """The columns that a group reads from: of its event type or, chained, of its source's tiles. Raises KeyError."""
    if not group.every:
        return types[group.source]
    source = catalogue[group.source]
    if not isinstance(source, FeatureGroup) or source.every:
        raise KeyError(group.source)
    return source.tile_types(types[source.source])


def _mistakes(group: Declared, catalogue: Mapping[str, Declared], types: Columns) -> list[tuple[str, Any, str]]:
    if isinstance(group, TableGroup):
        return group.mistakes()
    try:
        columns = columns_of(group, catalogue, types)
    except KeyError:
        if group.every:
            return [("source", group.source, "with `every`, the id of a declared group over events, such as spend@1")]
        return [("source", group.source, f"no such event type; one of {', '.join(sorted(types))}")]
    source = catalogue.get(group.source)
    chained = chain_mistakes(group, source) if group.every and isinstance(source, FeatureGroup) else []
    return [*chained, *group.mistakes(columns)]


def _problems(place: str, wrong: list[tuple[str, Any, str]]) -> Iterator[Problem]:
    return (Problem(place, field, shown(value), fix) for field, value, fix in wrong)


def _run(path: Path, problems: list[Problem]) -> ModuleType:
    """The module of a file, as far as it ran."""
    spec = importlib.util.spec_from_file_location(f"declared_features.{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # classes that the file declares look for their module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # whatever the file's code raises
        line = getattr(error, "lineno", None)
        problems.append(Problem(path.name, "", type(error).__name__, f"cannot be run: {shown(str(error))}", line))
        return ModuleType(spec.name)
    finally:
        del sys.modules[spec.name]
    return module
