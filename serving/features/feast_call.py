"""Feast's call `POST /get-online-features`, as its SDK's remote online store and its HTTP clients speak it.

Source: feast-dev/feast, sdk/python/feast/feature_server.py and infra/online_stores/remote.py. The entity columns come
first in an answer, as there. A status is PRESENT for a fresh value and for a default that is not null, OUTSIDE_MAX_AGE
for a stale value (which is given), NOT_FOUND for an entity of which nothing is known and NULL_VALUE for another null.
Feast has no status for a value that could not be read: the call fails with 503.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, NamedTuple

import msgspec

from schemas.problems import InputError, JobError, Problem
from serving.features.reader import DEFAULT, ERROR, FRESH, FeatureReader, GroupValues, Wanted
from transforms.features.event_columns import SEPARATOR

MOST_VALUES = 200_000  # entities times features of a call
_NEVER = "1970-01-01T00:00:00Z"


Whole = Annotated[int, msgspec.Meta(ge=-(1 << 63), le=(1 << 63) - 1)]


class FeastRequest(msgspec.Struct):
    """A request; fields that are not named here are ignored, as Feast does."""

    entities: dict[str, list[str | Whole]]
    features: list[str] = []
    full_feature_names: bool = False
    feature_service: str | None = None


class _Column(NamedTuple):
    """The feature of one result: its group's place among the wanted, and its name there and in the answer."""

    group: int
    feature: str
    name: str


decode = msgspec.json.Decoder(FeastRequest).decode


def answer(reader: FeatureReader, request: FeastRequest) -> tuple[dict[str, Any], list[GroupValues]]:
    """(the response, what was read). Raises InputError for a wrong request, JobError where the store did not answer."""
    columns, names = _columns(request)
    wanted = [Wanted(group, features, _entities(reader, group, request.entities)) for group, features in names.items()]
    read = reader.read(wanted)
    if failed := [one.error for one in read if one.error]:
        raise JobError(f"features could not be read: {failed[0]}")
    count = len(next(iter(request.entities.values())))
    times = [_times(one) for one in read]
    results = [
        {"values": values, "statuses": ["PRESENT"] * count, "event_timestamps": [_NEVER] * count}
        for values in request.entities.values()
    ]
    for column in columns:
        values = read[column.group]
        place = values.features.index(column.feature)
        statuses = _statuses(values, place)
        results.append({"values": values.values[place], "statuses": statuses, "event_timestamps": times[column.group]})
    feature_names = [*request.entities, *(column.name for column in columns)]
    return {"metadata": {"feature_names": feature_names}, "results": results}, read


def _columns(request: FeastRequest) -> tuple[list[_Column], dict[str, list[str]]]:
    """(the columns of the answer, the names of the features by group)."""
    problems, columns, groups = list[Problem](), list[_Column](), dict[str, list[str]]()
    if not request.features:
        value = request.feature_service or "missing"
        problems.append(
            _problem("features", value, 'name features, ["GROUP:FEATURE", …]; there are no feature services')
        )
    for text in request.features:
        group, colon, feature = text.partition(":")
        if not (group and colon and feature):
            problems.append(_problem("features", text, "write GROUP:FEATURE, for instance household_spend:lines_7d"))
            continue
        name = f"{group}__{feature}" if request.full_feature_names else feature
        names = groups.setdefault(group, [])
        if feature not in names:
            names.append(feature)
        if any(column.name == name for column in columns):
            problems.append(
                _problem("features", text, "two features have this name: send full_feature_names or leave one out")
            )
        columns.append(_Column(list(groups).index(group), feature, name))
    problems += _entity_problems(request.entities, len(request.features))
    if problems:
        raise InputError(problems)
    return columns, groups


def _entity_problems(entities: dict[str, list[str | Whole]], features: int) -> list[Problem]:
    counts = {len(values) for values in entities.values()}
    if not entities:
        return [_problem("entities", "{}", "name the columns of the entities, for instance household_id")]
    if len(counts) > 1:
        sizes = ", ".join(f"{name} {len(values)}" for name, values in entities.items())
        return [_problem("entities", sizes, "each column needs a value for each entity")]
    if max(counts) * features > MOST_VALUES:
        return [_problem("entities", f"{max(counts):,}", f"ask for at most {MOST_VALUES:,} values in a call")]
    return []


def _entities(reader: FeatureReader, group: str, entities: dict[str, list[str | Whole]]) -> list[str]:
    """The entities of a group, by its key's columns."""
    key = reader.layout(group).group.key
    if missing := [name for name in key if name not in entities]:
        fix = f"the entities of {group} are named by {', '.join(key)}"
        raise InputError([_problem("entities", f"{name} is missing", fix) for name in missing])
    if len(key) == 1:
        return [value if isinstance(value, str) else str(value) for value in entities[key[0]]]
    return [SEPARATOR.join(map(str, values)) for values in zip(*(entities[name] for name in key), strict=True)]


def _times(values: GroupValues) -> list[str]:
    """When the newest event of each entity was."""
    return [_NEVER if age is None else _time(values.at - age) for age in values.ages_ms]


def _time(at: int) -> str:
    return datetime.fromtimestamp(at / 1_000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _statuses(values: GroupValues, place: int) -> list[str]:
    found = list[str]()
    marks: Sequence[Any] = values.qualities[place]
    for quality, value, age in zip(marks, values.values[place], values.ages_ms, strict=True):
        if quality is FRESH or (quality is DEFAULT and value is not None):
            found.append("PRESENT")
        elif quality is DEFAULT:
            found.append("NOT_FOUND" if age is None else "NULL_VALUE")
        else:
            assert quality is not ERROR
            found.append("OUTSIDE_MAX_AGE")
    return found


def _problem(field: str, value: str, fix: str) -> Problem:
    return Problem("request", field, value, fix)
