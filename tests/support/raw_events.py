"""Raw events of the built-in types for tests: rows, Avro bodies, messages."""

from __future__ import annotations

import io
from typing import Any

import fastavro

from schemas.events.event_types import EventType, load_event_types
from schemas.events.framing import frame
from schemas.events.versions import columns_of
from schemas.transport import Envelope

NOW = 1_800_000_000_000
TYPES = load_event_types()
_SAMPLES = {"string": "a-1", "long": 7, "double": 1.5, "boolean": True}
_OF_RULES = {
    "department": "GROCERY",
    "kind": "Type A",
    "ends_at": NOW,
    "coupon_upc": "51380041013",
    "action": "view",
    "country": "US",
    "outcome": "accepted",
}


def any_event(name: str, version: int = 0, **changes: Any) -> dict[str, Any]:
    """A row that breaks no rule, of a version (0: the newest)."""
    event_type = TYPES[name]
    version = version or event_type.newest
    row = {column: _SAMPLES[one.kind] for column, one in columns_of(event_type.versions[version]).items()}
    row |= {column: value for column, value in _OF_RULES.items() if column in row}
    row |= {"event_id": "e-1", "type": name, "version": version, "occurred_at": NOW - 5_000, "published_at": NOW - 50}
    return {**row, **changes}


def body_of(event_type: EventType, row: dict[str, Any]) -> bytes:
    """The Avro body of a row, of the version that it says."""
    out = io.BytesIO()
    fastavro.schemaless_writer(out, event_type.versions[row["version"]], row)
    return out.getvalue()


def message_of(row: dict[str, Any], position: int = 0) -> Envelope:
    """The message of a row in the event store's frame."""
    event_type = TYPES[row["type"]]
    body = frame(event_type, row["version"]) + body_of(event_type, row)
    return Envelope(f"0:{position}", {}, body, row["published_at"])
