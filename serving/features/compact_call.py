"""Our own call, over HTTP (`POST /v1/features`, JSON or MessagePack) and gRPC (MessagePack).

Request: `{"groups": {"household_spend@1": {"entities": ["h1", ["s1", "p1"]], "features": ["lines_7d"]}}}`; an entity of
several columns is a list, in the order of the group's key; without `features` all are read.
Response: `{"at": 1800000000000, "groups": {"household_spend@1": {"features": ["lines_7d"], "values": [[3, 0]],
"qualities": ["fd"], "ages_ms": [1200, null], "error": ""}}}`: by feature, then by entity. A quality is a letter: fresh,
stale, default, error.
"""

from __future__ import annotations

from typing import Any

import msgspec

from schemas.problems import InputError, Problem
from serving.features.feast_call import MOST_VALUES, Whole
from serving.features.reader import FeatureReader, GroupValues, Quality, Wanted
from transforms.features.event_columns import SEPARATOR

_LETTERS = {quality: quality.value[0] for quality in Quality}


class GroupRequest(msgspec.Struct, forbid_unknown_fields=True):
    """What is wanted of a group."""

    entities: list[str | Whole | list[str | Whole]]
    features: list[str] = []


class CompactRequest(msgspec.Struct, forbid_unknown_fields=True):
    """What is wanted, by group."""

    groups: dict[str, GroupRequest]


decode_json = msgspec.json.Decoder(CompactRequest).decode
decode_msgpack = msgspec.msgpack.Decoder(CompactRequest).decode


def answer(reader: FeatureReader, request: CompactRequest) -> tuple[dict[str, Any], list[GroupValues]]:
    """(the response, what was read). Raises InputError for a wrong request."""
    problems, wanted = list[Problem](), list[Wanted]()
    for group, one in request.groups.items():
        try:
            features = list(one.features) or [name for name, _, _ in reader.layout(group).group.features]
            if len(features) * len(one.entities) > MOST_VALUES:
                fix = f"ask for at most {MOST_VALUES:,} values of a group in a call"
                problems.append(Problem("request", f"groups.{group}.entities", f"{len(one.entities):,}", fix))
            wanted.append(Wanted(group, features, _entities(reader, group, one)))
        except InputError as error:
            problems += error.problems
    if problems:
        raise InputError(problems)
    read = reader.read(wanted)
    at = read[0].at if read else 0
    return {"at": at, "groups": {name: _group(one) for name, one in zip(request.groups, read, strict=True)}}, read


def _group(one: GroupValues) -> dict[str, Any]:
    qualities = ["".join([_LETTERS[quality] for quality in column]) for column in one.qualities]
    return {
        "features": one.features, "values": one.values, "qualities": qualities, "ages_ms": one.ages_ms,
        "error": one.error,
    }  # fmt: skip


def _entities(reader: FeatureReader, group: str, request: GroupRequest) -> list[str]:
    key = reader.layout(group).group.key
    found = list[str]()
    for place, entity in enumerate(request.entities):
        columns = entity if isinstance(entity, list) else [entity]
        if len(columns) != len(key):
            fix = f"an entity of {group} has {len(key)} columns: {', '.join(key)}"
            raise InputError([Problem("request", f"groups.{group}.entities[{place}]", str(entity), fix)])
        found.append(SEPARATOR.join(map(str, columns)))
    return found
