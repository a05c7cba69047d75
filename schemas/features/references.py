"""References to features (`GROUP@VERSION:FEATURE`, `GROUP@VERSION` for all of a group), resolved in a catalogue."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from schemas.features.declarations import FeatureGroup
from schemas.features.tables import TableGroup
from schemas.problems import Problem

Declared = FeatureGroup | TableGroup


def feature_names(group: Declared) -> list[str]:
    """The names of a group's features, as declared."""
    if isinstance(group, TableGroup):
        return [column.name for column in group.columns]
    return [name for name, _, _ in group.features]


def resolve(
    features: Sequence[str], catalogue: Mapping[str, Declared], problems: list[Problem]
) -> dict[str, list[str]]:
    """The names of the wanted features by the id of their group; what is unknown is added to the problems."""
    found: dict[str, list[str]] = {}
    for text in features:
        group, _, name = text.partition(":")
        if group not in catalogue:
            problems.append(Problem("command line", "features", text, f"no such group; {_known(catalogue)}"))
            continue
        names = feature_names(catalogue[group])
        if name and name not in names:
            problems.append(Problem("command line", "features", text, f"{group} has {', '.join(names)}"))
            continue
        wanted = found.setdefault(group, [])
        wanted += [one for one in ([name] if name else names) if one not in wanted]
    return found


def _known(catalogue: Collection[str]) -> str:
    return f"there is {', '.join(sorted(catalogue))}" if catalogue else "there is none at all"
