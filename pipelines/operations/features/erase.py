"""Erases an entity from all feature groups: `campaigns features erase household_id=h1`.

Each of its rows is replaced by an empty one of a larger epoch, which wins over whatever a running pipeline or one that
wakes up late still writes of the old one. It is not deleted, for then such a write would bring it back. Events that the
pipeline has not folded yet, and a rebuild of the group from the log, would make rows again: erase the entity in the
event store first.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from schemas.features.stamps import FIRST, Stamp, stamp_of
from schemas.problems import InputError, JobError, Problem
from stores.features.open import open_store
from stores.features.protocol import FeatureStore
from transforms.features.event_columns import SEPARATOR
from transforms.features.layout import Layout
from transforms.features.rows import empty_row

_ATTEMPTS = 5  # each fails only if somebody begins a new epoch of the same row meanwhile
_MOST_EPOCH = (1 << 32) - 1


class ErasedGroup(NamedTuple):
    """What was erased from a group: the number of entities (several, where the erased columns are a part of its key)
    and of their rows."""

    group: str
    entities: int
    rows: int


class Erasure(NamedTuple):
    """What was done: the erased columns and values, the groups that could have the entity, and those without any of
    its columns in their key, which were left alone."""

    entity: dict[str, str]
    groups: list[ErasedGroup]
    untouched: list[str]


def erase(uri: str, layouts: Sequence[Layout], entity: Mapping[str, str]) -> Erasure:
    """Erases an entity, given by columns and values, from the groups whose key has some of them. A group whose key has
    more columns loses every entity that agrees in those, which needs a scan of the group.

    Chained groups have no rows of their own. Erasing again does no harm. Raises InputError if a column is in no group's
    key, JobError if the store does not answer: then run it again.
    """
    known = sorted({column for layout in layouts for column in layout.group.key})
    if unknown := [column for column in entity if column not in known]:
        fix = f"no group has this column in its key; they have {', '.join(known)}"
        raise InputError([Problem("command line", "entity", column, fix) for column in unknown])
    erased, untouched = list[ErasedGroup](), list[str]()
    store = open_store(uri)
    try:
        for layout in layouts:
            if layout.group.every:
                continue
            if not {*layout.group.key} & entity.keys():
                untouched.append(layout.group.id)
                continue
            names = _entities(store, layout, entity)
            rows = [_erase(store, layout, name) for name in names]
            erased.append(ErasedGroup(layout.group.id, sum(count > 0 for count in rows), sum(rows)))
    finally:
        store.close()
    return Erasure(dict(entity), erased, untouched)


def _entities(store: FeatureStore, layout: Layout, entity: Mapping[str, str]) -> list[str]:
    key = layout.group.key
    if {*key} <= entity.keys():
        return [SEPARATOR.join(entity[column] for column in key)]
    wanted = {place: entity[column] for place, column in enumerate(key) if column in entity}
    names = dict.fromkeys(found.entity for found, _ in store.scan(layout.group.id))
    return [name for name in names if _agrees(name.split(SEPARATOR), wanted)]


def _agrees(values: Sequence[str], wanted: Mapping[int, str]) -> bool:
    return all(place < len(values) and values[place] == value for place, value in wanted.items())


def _erase(store: FeatureStore, layout: Layout, entity: str) -> int:
    """Replaces the rows of an entity that hold something by empty ones; their number."""
    group, erased = layout.group.id, 0
    for _ in range(_ATTEMPTS):
        left = False
        for partition, row, epoch in _rows(store, group, entity):
            stamp = stamp_of(row)
            if len(row) == len(empty_row(layout, stamp)):
                continue
            larger = max(stamp.epoch, epoch) + 1
            if larger > _MOST_EPOCH:
                raise JobError(f"{group} has had its last epoch", "Build it again as a new version")
            if store.write(group, partition, {entity: empty_row(layout, Stamp(larger, stamp.position))}):
                erased += 1
            else:
                left = True
        if not left:
            return erased
    raise JobError(f"{entity} in {group} is written with new epochs all the time", "Stop other erasures and rebuilds")


def _rows(store: FeatureStore, group: str, entity: str) -> Iterator[tuple[int, bytes, int]]:
    """(partition, row, epoch of the group there) of each row of an entity."""
    noted = store.positions(group)
    found = {partition: store.rows(group, partition, [entity])[0] for partition in noted}
    present = {partition: row for partition, row in found.items() if row is not None}
    if len(store.read([(group, entity)])[0]) > len(present):  # a row of a partition that has not noted its position yet
        present |= {key.partition: row for key, row in store.scan(group) if key.entity == entity}
    yield from ((partition, row, noted.get(partition, FIRST).epoch) for partition, row in present.items())
