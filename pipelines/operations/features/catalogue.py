"""Answers about the declared features: which groups there are, what one holds, and where its values come from."""

from __future__ import annotations

from typing import Any

import msgspec

from pipelines.command_line.parse import did_you_mean
from schemas.events.event_types import EventType, load_event_types
from schemas.features.catalogue import load_groups
from schemas.features.declarations import FeatureGroup
from schemas.features.windows import HOPS, SECOND, hop_of
from schemas.problems import InputError, Problem
from stores.features.open import open_store


class GroupSummary(msgspec.Struct):
    """A feature group in one line. `source` is an event type; `features` is their number."""

    id: str
    owner: str
    source: str
    key: list[str]
    features: int
    max_age: str
    description: str


class FeatureDescription(msgspec.Struct):
    """A feature. `hop_s`: its window begins at the start of a tile of so many seconds; 0: it is exact. `default` is the
    value of an entity without an event; `where` are the conditions on an event."""

    name: str
    operation: str
    column: str
    window: str
    hop_s: float
    default: Any
    where: list[str]


class GroupDescription(msgspec.Struct):
    """A feature group. `source` is its event type with its newest version, `source_owner` who answers for the events;
    `time` is the column that places an event in a window. `positions`: by partition, the first event that the store has
    not folded in; empty without a store."""

    id: str
    owner: str
    description: str
    source: str
    source_owner: str
    key: list[str]
    time: str
    where: list[str]
    max_age: str
    lateness: str
    consumers: list[str]
    features: list[FeatureDescription]
    positions: dict[str, int]


def list_groups(folder: str, types_folder: str | None = None) -> list[GroupSummary]:
    """Every declared group. Raises InputError."""
    return [
        GroupSummary(
            one.id, one.owner, one.source, list(one.key), len(one.features), one.max_age, one.description
        )
        for one in _load(folder, types_folder)[0].values()
    ]  # fmt: skip


def describe_group(
    name: str, folder: str, types_folder: str | None = None, store_uri: str | None = None
) -> GroupDescription:
    """One group, `name@version`, or the newest version of `name`. Raises InputError, and JobError where the store does
    not answer."""
    groups, types = _load(folder, types_folder)
    group = _find(name, groups)
    source = types[group.source]
    return GroupDescription(
        group.id, group.owner, group.description, f"{source.name} {source.newest}", source.owner, list(group.key),
        group.time, [_condition(where) for where in group.where], group.max_age, group.lateness,
        list(group.consumers), _features(group), _positions(group, store_uri),
    )  # fmt: skip


def _load(folder: str, types_folder: str | None) -> tuple[dict[str, FeatureGroup], dict[str, EventType]]:
    types = load_event_types(types_folder)
    return load_groups(folder, {name: one.columns for name, one in types.items()}), types


def _find(name: str, groups: dict[str, FeatureGroup]) -> FeatureGroup:
    if name in groups:
        return groups[name]
    versions = [group for group in groups.values() if group.name == name]
    if not versions:
        fix = f"{did_you_mean(name, groups)}`campaigns features list` shows the declared groups"
        raise InputError([Problem("command line", "GROUP", name, fix)])
    return max(versions, key=lambda group: group.version)


def _features(group: FeatureGroup) -> list[FeatureDescription]:
    texts = [text for one in group.aggregations for text in one.windows]
    return [
        FeatureDescription(
            name, one.operation, one.column, text, 0.0 if one.exact else HOPS[hop_of(window)] / SECOND, one.default,
            [_condition(where) for where in one.where],
        )
        for (name, one, window), text in zip(group.features, texts, strict=True)
    ]  # fmt: skip


def _condition(where: Any) -> str:
    return " ".join(str(part) for part in (where.column, where.comparison, where.value) if part is not None)


def _positions(group: FeatureGroup, store_uri: str | None) -> dict[str, int]:
    if store_uri is None:
        return {}
    store = open_store(store_uri, read_only=True)
    try:
        return {str(partition): stamp.position for partition, stamp in sorted(store.positions(group.id).items())}
    finally:
        store.close()
