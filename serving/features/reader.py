"""Reads features of entities, with the age and quality of each value."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from typing import Any, NamedTuple

import numpy as np

from schemas.features.windows import duration_ms
from schemas.problems import InputError, JobError, Problem
from stores.features.protocol import FeatureStore
from transforms.features.chained import chained_parts
from transforms.features.entity_values import EntityPlan
from transforms.features.layout import Layout
from transforms.features.rows import decode_rows
from transforms.features.values import known_values, newest_times

_FEW = 24  # entities up to which plain Python is faster than numpy
_MOST_PLANS = 1_000


class Quality(StrEnum):
    """What a value is worth.

    `fresh`: computed from events, the newest of which is not older than the group's `max_age`. `stale`: computed, but
    older, or from events that are suspect. `default`: no event of the entity counts for the feature, so the declared
    default stands. `error`: the store did not answer or the row is damaged, so nothing is known, not even that there is
    nothing; the value is None.
    """

    FRESH = "fresh"
    STALE = "stale"
    DEFAULT = "default"
    ERROR = "error"


FRESH, STALE, DEFAULT, ERROR = Quality


class Wanted(NamedTuple):
    """Features of a group (`name@version`; all if there are none) of some entities."""

    group: str
    features: Sequence[str]
    entities: Sequence[str]


class GroupValues(NamedTuple):
    """What was read of a group: of each feature its values and their qualities by entity, and of each entity its age.

    The age (ms) is the time since the newest event of the entity that the row knows: since the start of that event's
    tile, so it is too large by up to a tile of the group's shortest hop; exact where raw events are kept. It is not the
    time since the row was written: a row says nothing about time but through events, and an entity without new events
    has the same values however often it is written. None: nothing is known. `error` says why a quality is `error`. `at`
    is the time (epoch ms) at which the windows end.
    """

    group: str
    features: list[str]
    values: list[list[Any]]
    qualities: list[list[Quality]]
    ages_ms: list[int | None]
    at: int
    error: str = ""

    @property
    def failed(self) -> bool:
        """Whether nothing could be read."""
        return bool(self.error) and all(quality is ERROR for quality in self.qualities[0])


class _Plan(NamedTuple):
    """How features of a group are read. `rows` is the layout of the rows: the group's own, or that of the group whose
    tiles a chained one reads; `entity` computes them for one entity, unless the group is chained."""

    layout: Layout
    rows: Layout
    names: list[str]
    entity: EntityPlan | None
    defaults: list[Any]
    max_age_ms: int


class FeatureReader:
    """Reads from a store, in one round trip, at the time (epoch ms) that the clock gives. What is computed from events
    of a type that is `suspect` is stale (stores/events/fuse.py). Safe for several threads if the store is."""

    def __init__(
        self,
        store: FeatureStore,
        layouts: Mapping[str, Layout],
        clock: Callable[[], int],
        suspect: Callable[[str], bool] = lambda source: False,
    ) -> None:
        self._store, self._layouts, self._clock, self._suspect = store, dict(layouts), clock, suspect
        self._plans: dict[tuple[str, tuple[str, ...]], _Plan] = {}

    def layout(self, group: str) -> Layout:
        """The layout of a group (`name@version`, or the name for its highest version). Raises InputError."""
        if found := self._layouts.get(group):
            return found
        versions = [one for one in self._layouts.values() if one.group.name == group]
        if not versions:
            fix = f"a group is one of {', '.join(sorted(self._layouts))}"
            raise InputError([Problem("request", "features", group, fix)])
        return max(versions, key=lambda one: one.group.version)

    def read(self, wanted: Sequence[Wanted]) -> list[GroupValues]:
        """The values of each wanted group. Raises InputError for groups and features that are not declared, all at
        once; a store that does not answer gives values of the quality `error`."""
        plans = self._planned(wanted)
        asked = [
            (plan.rows.group.id, entity) for plan, one in zip(plans, wanted, strict=True) for entity in one.entities
        ]
        try:
            rows = self._store.read(asked)
        except JobError as error:
            now = self._clock()
            return [_failed(plan, len(one.entities), now, str(error)) for plan, one in zip(plans, wanted, strict=True)]
        now, place, answers = self._clock(), 0, list[GroupValues]()
        for plan, one in zip(plans, wanted, strict=True):
            own = rows[place : place + len(one.entities)]
            place += len(own)
            if self._suspect(plan.layout.group.source):
                plan = plan._replace(max_age_ms=-1)
            answers.append(_values(plan, one.entities, own, now))
        return answers

    def _planned(self, wanted: Sequence[Wanted]) -> list[_Plan]:
        plans, problems = list[_Plan](), list[Problem]()
        for one in wanted:
            try:
                plans.append(self._plan(one.group, tuple(one.features)))
            except InputError as error:
                problems += error.problems
        if problems:
            raise InputError(problems)
        return plans

    def _plan(self, group: str, names: tuple[str, ...]) -> _Plan:
        if plan := self._plans.get((group, names)):
            return plan
        layout = self.layout(group)
        defaults = {name: one.default for name, one, _ in layout.group.features}
        chosen = list(dict.fromkeys(names or defaults))
        if unknown := [name for name in chosen if name not in defaults]:
            fix = f"a feature of {layout.group.id} is one of {', '.join(defaults)}"
            raise InputError([Problem("request", "features", f"{group}:{name}", fix) for name in unknown])
        rows = self._layouts[layout.group.source] if layout.group.every else layout
        entity = None if layout.group.every else EntityPlan(layout, chosen)
        max_age = duration_ms(layout.group.max_age)
        plan = _Plan(layout, rows, chosen, entity, [defaults[name] for name in chosen], max_age)
        if len(self._plans) >= _MOST_PLANS:  # callers that always ask for something else
            self._plans.clear()
        self._plans[group, names] = plan
        return plan


def _values(plan: _Plan, entities: Sequence[str], rows: list[list[bytes]], now: int) -> GroupValues:
    if len(rows) > _FEW or plan.entity is None:
        try:
            return _answer(plan, *_by_numpy(plan, entities, rows, now), now)
        except (ValueError, OverflowError):
            pass  # the row of an entity is damaged: find out whose
    known, newest, damaged, error = list[Sequence[Any]](), list[int | None](), list[int](), ""
    for place, own in enumerate(rows):
        try:
            values, time = _of_entity(plan, entities[place], own, now)
        except (ValueError, OverflowError) as wrong:
            values, time, error = [None] * len(plan.names), None, str(wrong)
            damaged.append(place)
        known.append(values)
        newest.append(time)
    columns = [list(column) for column in zip(*known, strict=True)] if known else [[] for _ in plan.names]
    answer = _answer(plan, columns, newest, now)
    return _with_errors(answer, damaged, error) if damaged else answer


def _of_entity(plan: _Plan, entity: str, rows: list[bytes], now: int) -> tuple[list[Any], int | None]:
    if plan.entity is not None:
        return plan.entity.known(rows, now)
    columns, newest = _by_numpy(plan, [entity], [rows], now)
    return [column[0] for column in columns], newest[0]


def _by_numpy(
    plan: _Plan, entities: Sequence[str], rows: list[list[bytes]], now: int
) -> tuple[list[list[Any]], list[int | None]]:
    """(the values of each feature, the newest time of each entity)."""
    names = dict.fromkeys(entities)  # one that is asked for twice is computed once
    places = {entity: place for place, entity in enumerate(names)}
    once = dict(zip(entities, rows, strict=True))
    owners = np.repeat(np.arange(len(names)), [len(once[entity]) for entity in names])
    parts = decode_rows(plan.rows, [row for entity in names for row in once[entity]])
    parts = parts._replace(
        tile_entities=owners[parts.tile_entities],
        item_entities=owners[parts.item_entities],
        raw_entities=owners[parts.raw_entities],
    )
    newest = newest_times(parts, len(names))
    if plan.layout is not plan.rows:
        parts = chained_parts(plan.layout, plan.rows, parts, list(names), now)
    values = known_values(plan.layout, parts, len(names), now, plan.names)
    if len(names) == len(entities):
        return [values[name] for name in plan.names], newest
    at = [places[entity] for entity in entities]
    return [[values[name][place] for place in at] for name in plan.names], [newest[place] for place in at]


def _answer(plan: _Plan, known: list[list[Any]], newest: list[int | None], now: int) -> GroupValues:
    ages = [None if time is None else max(0, now - time) for time in newest]
    computed = [STALE if age is not None and age > plan.max_age_ms else FRESH for age in ages]
    qualities, values = list[list[Quality]](), list[list[Any]]()
    for column, default in zip(known, plan.defaults, strict=True):
        if None in column:
            qualities.append([DEFAULT if v is None else q for v, q in zip(column, computed, strict=True)])
            values.append([default if value is None else value for value in column])
        else:
            qualities.append(computed)
            values.append(column)
    return GroupValues(plan.layout.group.id, plan.names, values, qualities, ages, now)


def _failed(plan: _Plan, count: int, now: int, error: str) -> GroupValues:
    nothing: list[list[Any]] = [[None] * count for _ in plan.names]
    return GroupValues(
        plan.layout.group.id, plan.names, nothing, [[ERROR] * count for _ in plan.names], [None] * count, now, error
    )


def _with_errors(answer: GroupValues, damaged: list[int], error: str) -> GroupValues:
    qualities = [list(column) for column in answer.qualities]
    for values, marks in zip(answer.values, qualities, strict=True):
        for place in damaged:
            values[place], marks[place] = None, ERROR
    return answer._replace(qualities=qualities, error=error)
