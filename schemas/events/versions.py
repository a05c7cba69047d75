"""Versions of a flat schema: its columns, what is wrong with it, and whether two read each other."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from schemas.contracts import fingerprint

ENVELOPE = {
    "event_id": "string",
    "type": "string",
    "version": "long",
    "occurred_at": "long",
    "published_at": "long",
    "producer": "string",
}
"""The fields that every event begins with; times are epoch milliseconds."""
KINDS = ("string", "long", "double", "boolean")
_PYTHON: dict[str, Any] = {"string": str, "long": int, "double": (int, float), "boolean": bool, "null": type(None)}


_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class Column(NamedTuple):
    """A field of an event. `default` is what older events have there, as a tuple of one; empty where it has none."""

    kind: str
    nullable: bool
    default: tuple[Any, ...]


def columns_of(schema: Mapping[str, Any]) -> dict[str, Column]:
    """The columns of a schema that has no flaws, in its order."""
    columns = {}
    for field in schema["fields"]:
        branches = _branches(field["type"])
        kind = next(one for one in branches if one != "null")
        columns[field["name"]] = Column(kind, "null" in branches, (field["default"],) if "default" in field else ())
    return columns


def flaws(schema: Any) -> list[tuple[str, Any, str]]:
    """(field, value, how to fix it) of whatever keeps a schema from being one of a flat event."""
    if not isinstance(schema, Mapping) or schema.get("type") != "record":
        return [("type", schema, "must be a record")]
    wrong: list[tuple[str, Any, str]] = []
    names = [field["name"] for field in schema["fields"]]
    for place, name in enumerate(names):
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            wrong.append((f"fields.{place}.name", name, "a name is a letter or _, then letters, digits and _"))
        elif names.index(name) < place:
            wrong.append((name, name, "another field has this name; choose another"))
    if wrong:
        return wrong
    for name, kind in ENVELOPE.items():
        field = next((one for one in schema["fields"] if one["name"] == name), None)
        if field is None or field["type"] != kind or "default" in field:
            wrong.append((name, field and field["type"], f"every event has the field {name}: {kind}, without default"))
    if not wrong and names[: len(ENVELOPE)] != list(ENVELOPE):
        wrong.append(("fields", names[: len(ENVELOPE)], f"must begin with {', '.join(ENVELOPE)}, in this order"))
    for field in schema["fields"]:
        branches = _branches(field["type"])
        solid = [one for one in branches if one != "null"]
        if len(solid) != 1 or solid[0] not in KINDS or len(branches) > 2:
            wrong.append(
                (field["name"], field["type"], f"must be one of {', '.join(KINDS)}, or a union of it and null")
            )
        elif "default" in field and not _fits(field["default"], branches[0]):
            wrong.append((field["name"], field["default"], f"the default must be a {branches[0]}, its first type"))
    return wrong


def incompatibilities(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[tuple[str, Any, str]]:
    """(field, value, reason) of whatever keeps one of two flat schemas from reading what the other wrote. Empty: each
    reads the other (FULL_TRANSITIVE, when it holds for all pairs of versions)."""
    found: list[tuple[str, Any, str]] = []
    if old["name"] != new["name"]:
        found.append(("name", new["name"], f"the record was named {old['name']}"))
    before, after = columns_of(old), columns_of(new)
    for name in sorted(before.keys() | after.keys()):
        was, now = before.get(name), after.get(name)
        if was is None or now is None:
            column = was or now
            if column is not None and not column.default:
                change = "is new and has no default" if was is None else "is gone and had no default"
                found.append((name, column.kind, change))
        elif (was.kind, was.nullable) != (now.kind, now.nullable):
            found.append((name, _told(now), f"was {_told(was)}"))
    if not found and fingerprint(old) == fingerprint(new):
        found.append(("fields", list(after), "the fields are the same, so that messages cannot tell the two apart"))
    return found


def _told(column: Column) -> str:
    return f"{column.kind} or null" if column.nullable else column.kind


def _branches(kind: Any) -> list[Any]:
    return kind if isinstance(kind, list) else [kind]


def _fits(default: Any, kind: str) -> bool:
    return isinstance(default, _PYTHON[kind]) and (kind == "boolean" or not isinstance(default, bool))
