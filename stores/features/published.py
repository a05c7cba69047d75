"""Published feature groups: a group is immutable once its features are written; a change is a new version.

`published.json` in a folder of the store has, by group id, what decides the group's values and a hash of it. Owner,
description, consumers and the age from which values are stale may change.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import Any

from connectors.files.whole_file import whole_file
from schemas.features.declarations import FeatureGroup
from schemas.problems import InputError, JobError, Problem, shown

NAME = "published.json"
_FREE = frozenset({"owner", "description", "consumers", "max_age"})


def declaration(group: Any) -> dict[str, Any]:
    """What decides a group's values, as JSON. A field that has its default is left out, so that a field which a later
    version of the engine adds changes no hash."""
    return {name: value for name, value in _plain(group).items() if name not in _FREE}


def _plain(value: Any) -> Any:
    if is_dataclass(value):
        found = {field.name: (getattr(value, field.name), field.default) for field in fields(value)}
        return {
            name: _plain(one) for name, (one, default) in found.items() if default is MISSING or not _same(one, default)
        }
    return [_plain(one) for one in value] if isinstance(value, tuple) else value


def _same(one: Any, other: Any) -> bool:
    return type(one) is type(other) and one == other


def declaration_hash(group: Any) -> str:
    """SHA-256 of the declaration, in hexadecimal digits."""
    return hashlib.sha256(json.dumps(declaration(group), sort_keys=True).encode()).hexdigest()


def published_folder(store: str) -> Path | None:
    """Where a store's published groups are noted: in its own folder; None for one on other machines."""
    scheme, _, folder = store.partition(":")
    return Path(folder) if scheme == "lmdb" else None


def publish(folder: Path, groups: Iterable[FeatureGroup]) -> list[str]:
    """Notes groups as published; the ids of those that were not yet.

    Raises InputError with what differs where an id is published with another declaration (nothing is noted then), and
    JobError where the file is damaged.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with _locked(folder):
        known = published(folder)
        problems, new = list[Problem](), list[str]()
        for group in groups:
            wanted = declaration(group)
            if group.id not in known:
                known[group.id] = {"hash": declaration_hash(group), "declaration": json.loads(json.dumps(wanted))}
                new.append(group.id)
            elif known[group.id]["hash"] != declaration_hash(group):
                problems += _changes(folder, group, known[group.id]["declaration"], json.loads(json.dumps(wanted)))
        if problems:
            raise InputError(problems)
        if new:
            with whole_file(folder / NAME) as file:
                file.write(json.dumps(known, indent=1, sort_keys=True).encode())
    return new


def published(folder: Path) -> dict[str, Any]:
    """{hash, declaration} of each published group, by id. Raises JobError where the file is damaged."""
    path = folder / NAME
    try:
        found = json.loads(path.read_bytes())
        if all(isinstance(one["hash"], str) and isinstance(one["declaration"], dict) for one in found.values()):
            return dict(found)
    except FileNotFoundError:
        return {}
    except (ValueError, KeyError, TypeError, AttributeError):
        pass
    raise JobError(f"{path} does not hold the published groups", "put back the file as it was", damaged=True)


def _changes(folder: Path, group: FeatureGroup, old: dict[str, Any], new: dict[str, Any]) -> list[Problem]:
    fix = f"{group.id} is published and stays as it is; declare the change as version {group.version + 1}"
    return [
        Problem(str(folder / NAME), f"{group.id}: {place}", f"{shown(before)} → {shown(after)}", fix)
        for place, before, after in differences(old, new)
    ]


def differences(old: Any, new: Any, place: str = "") -> list[tuple[str, Any, Any]]:
    """(place, the old value, the new one) of what differs between two JSON values; None for what is not there."""
    if isinstance(old, dict) and isinstance(new, dict):
        names = dict.fromkeys([*old, *new])
        pairs = [(f"{place}.{name}" if place else name, old.get(name), new.get(name)) for name in names]
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        pairs = [(f"{place}[{number}]", *pair) for number, pair in enumerate(zip(old, new, strict=True))]
    else:
        return [] if json.dumps(old, sort_keys=True) == json.dumps(new, sort_keys=True) else [(place, old, new)]
    return [found for where, before, after in pairs for found in differences(before, after, where)]


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Waits until no other process publishes."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
