"""The features of one entity, from every group that it can be read from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from schemas.problems import InputError, Problem
from serving.features.reader import FeatureReader, Wanted
from transforms.features.event_columns import SEPARATOR
from transforms.features.layout import Layout


def read_entity(reader: FeatureReader, layouts: Mapping[str, Layout], entity: Mapping[str, str]) -> dict[str, Any]:
    """By group: `age_ms`, `error`, and `features`: (value, quality) by name. The groups are those whose key has no
    other columns than the entity. Raises InputError if there is none."""
    groups = [name for name, layout in layouts.items() if {*layout.group.key} <= entity.keys()]
    if not groups:
        keys = "; ".join(sorted({" ".join(f"{column}=…" for column in one.group.key) for one in layouts.values()}))
        raise InputError(
            [Problem("command line", "entity", " ".join(entity), f"no group has this key; they have {keys}")]
        )
    names = {name: SEPARATOR.join(entity[column] for column in layouts[name].group.key) for name in groups}
    found = dict[str, Any]()
    for one in reader.read([Wanted(group, (), [name]) for group, name in names.items()]):
        columns = zip(one.features, one.values, one.qualities, strict=True)
        features = {name: (value, quality) for name, (value,), (quality,) in columns}
        found[one.group] = {"age_ms": one.ages_ms[0], "error": one.error, "features": features}
    return found
