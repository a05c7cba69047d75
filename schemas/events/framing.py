"""Which type and version of an event a message has, and where its Avro body begins.

Read in this order: our attribute `schema` (CRC-64-AVRO fingerprint), Pub/Sub's schema revision, Confluent's GUID in a
header, then the frames before a body: magic 0 and a 4-byte id, magic 1 and a GUID (Confluent), or 0xC301 and a
fingerprint (Avro's single-object encoding). The event store frames with magic 0 and an id of our own, the first four
bytes of the fingerprint, which no registry has to be asked about.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple, Protocol, TypeVar
from uuid import UUID

from schemas.events.event_types import EventType
from schemas.transport import Envelope

K = TypeVar("K", contravariant=True)
FRAME_BYTES = 5
GUID_HEADER = "__value_schema_id"
SCHEMA_NAME, REVISION, ENCODING = (
    "googclient_schemaname", "googclient_schemarevisionid", "googclient_schemaencoding",
)  # fmt: skip
_BY_ID, _BY_GUID, _SINGLE_OBJECT = 0, 1, b"\xc3\x01"
_ESCAPED = re.compile(rb"\\x([0-9a-f]{2})")


class SchemaVersion(NamedTuple):
    """A version of an event type."""

    type: str
    version: int


class Framed(NamedTuple):
    """The version and Avro body of a message. Where no version is found, `schema` is None, the body is as it came, and
    `problem` says why."""

    schema: SchemaVersion | None
    body: bytes
    problem: str = ""


class Versions(Protocol[K]):
    """The versions by the keys of a registry: a dict, or one that asks (connectors/schema_versions.py)."""

    def get(self, key: K, /) -> SchemaVersion | None:
        """The version; None for a key of no schema of ours."""


def by_fingerprint(types: Mapping[str, EventType]) -> dict[str, SchemaVersion]:
    """The version by the fingerprint of its schema."""
    return {
        digits: SchemaVersion(one.name, number) for one in types.values() for digits, number in one.fingerprints.items()
    }


def frame(event_type: EventType, version: int) -> bytes:
    """What the event store writes before the body of an event of this version."""
    digits = next(digits for digits, number in event_type.fingerprints.items() if number == version)
    return bytes([_BY_ID]) + bytes.fromhex(digits[:8])


class Framing:
    """Finds the version of messages of these types. `ids` and `guids` are those of a Confluent registry, `revisions`
    are Pub/Sub's, `projects/P/schemas/S@REVISION`. `frames` are the versions by the first FRAME_BYTES of a message
    without attributes."""

    def __init__(
        self,
        types: Mapping[str, EventType],
        ids: Versions[int] | None = None,
        guids: Versions[UUID] | None = None,
        revisions: Versions[str] | None = None,
    ) -> None:
        self._fingerprints = by_fingerprint(types)
        self.frames = {
            bytes([_BY_ID]) + bytes.fromhex(digits[:8]): found for digits, found in self._fingerprints.items()
        }
        self._ids: Versions[int] = ids or {}
        self._guids: Versions[UUID] = guids or {}
        self._revisions: Versions[str] = revisions or {}

    def read(self, envelope: Envelope) -> Framed:
        """The version and body of a message. Raises JobError when a registry does not answer, nothing else."""
        attributes, body = envelope.attributes, envelope.body
        if attributes:
            found = self._fingerprints.get(attributes.get("schema", ""))
            if found is not None:
                return Framed(found, body)
            if REVISION in attributes:
                return self._by_revision(attributes, body)
            if GUID_HEADER in attributes:
                header = _header_bytes(attributes[GUID_HEADER])
                return self._by_magic(header, body, in_header=True)
        found = self.frames.get(body[:FRAME_BYTES])
        if found is not None:
            return Framed(found, body[FRAME_BYTES:])
        if attributes.get("schema") and not attributes["schema"].startswith("registry-"):
            return Framed(None, body, f"no version has the schema fingerprint {attributes['schema'][:80]!r}")
        return self._by_magic(body, body, in_header=False)

    def _by_revision(self, attributes: Mapping[str, str], body: bytes) -> Framed:
        if attributes.get(ENCODING, "BINARY") != "BINARY":
            return Framed(None, body, f"the encoding is {attributes[ENCODING][:20]!r}; set the topic's to BINARY")
        revision = f"{attributes.get(SCHEMA_NAME, '')}@{attributes[REVISION]}"
        found = self._revisions.get(revision)
        return Framed(found, body, "" if found else f"no version is the Pub/Sub schema revision {revision[:300]!r}")

    def _by_magic(self, frame: bytes, body: bytes, in_header: bool) -> Framed:
        """By the id that begins the frame: the body's own beginning, or the bytes of a header."""
        found, length, name = None, 0, ""
        if frame[:1] == bytes([_BY_ID]) and len(frame) >= FRAME_BYTES:
            number, length = int.from_bytes(frame[1:FRAME_BYTES], "big"), FRAME_BYTES
            found, name = self.frames.get(frame[:FRAME_BYTES]) or self._ids.get(number), f"id {number}"
        elif frame[:1] == bytes([_BY_GUID]) and len(frame) >= 17:
            guid = UUID(bytes=frame[1:17])
            found, length, name = self._guids.get(guid), 17, f"GUID {guid}"
        elif frame[:2] == _SINGLE_OBJECT and len(frame) >= 10:
            digits = frame[2:10].hex()
            found, length, name = self._fingerprints.get(digits), 10, f"fingerprint {digits}"
        if found is not None:
            return Framed(found, body if in_header else body[length:])
        return Framed(None, body, f"no version has the schema {name}" if name else "nothing names its schema")


def _header_bytes(text: str) -> bytes:
    """The bytes of a Kafka header that its reader gave as text, with \\xNN for what is not UTF-8."""
    data = text.encode("utf-8", "replace")
    return _ESCAPED.sub(lambda found: bytes.fromhex(found[1].decode()), data)
