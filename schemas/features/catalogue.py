"""The declared feature groups of a folder of Python files, checked against the event types they read."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

from schemas.features.declarations import FeatureGroup
from schemas.problems import InputError, Problem, shown

Columns = Mapping[str, dict[str, str]]
"""By event type: long, double, boolean or string by column."""


def load_groups(folder: str | Path, types: Columns) -> dict[str, FeatureGroup]:
    """The groups that the folder's *.py files declare at their top level, by id. Raises InputError with every mistake.

    The files are run: name only a folder whose code you trust.
    """
    root, problems = Path(folder), list[Problem]()
    files = sorted(path for path in root.glob("*.py") if not path.name.startswith("_"))
    if not files:
        raise InputError([Problem(str(folder), "", "", "has no *.py files; write FeatureGroup(…) declarations there")])
    groups: dict[str, tuple[str, FeatureGroup]] = {}
    for path in files:
        module = _run(path, problems)
        if module is None:
            continue
        for name, value in vars(module).items():
            if not isinstance(value, FeatureGroup):
                continue
            place = f"{path.name}: {name}"
            problems += _mistakes(place, value, types)
            other, _ = groups.setdefault(value.id, (place, value))
            if other != place:
                problems.append(
                    Problem(place, "name", value.id, f"is declared by {other} already; use another version")
                )
    if problems:
        raise InputError(problems)
    if not groups:
        raise InputError([Problem(str(folder), "", "", "declares no FeatureGroup at the top level of its files")])
    return {name: group for name, (_, group) in sorted(groups.items())}


def _mistakes(place: str, group: FeatureGroup, types: Columns) -> list[Problem]:
    if group.source not in types:
        known = ", ".join(sorted(types))
        return [Problem(place, "source", shown(group.source), f"no such event type; one of {known}")]
    return [Problem(place, field, shown(value), fix) for field, value, fix in group.mistakes(types[group.source])]


def _run(path: Path, problems: list[Problem]) -> ModuleType | None:
    spec = importlib.util.spec_from_file_location(f"declared_features.{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # whatever the file's code raises
        problems.append(Problem(path.name, "", type(error).__name__, f"cannot be run: {shown(str(error))}"))
        return None
    return module
