"""The events of a poll as columns, and the reasons of those that are rejected: decoding and rules, column by column."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from typing import NamedTuple

import mmh3
import numpy as np

from schemas.events.event_types import EventType
from schemas.events.framing import FRAME_BYTES, Framing
from schemas.problems import shown
from schemas.transport import Envelope, position_of
from transforms.features.decode_columns import decode_columns
from transforms.features.event_columns import EventColumns, Mask, Numbers
from transforms.features.quality import checks_of

MOST_BYTES = 1_000_000  # of an event; larger ones are rejected
_ALWAYS = ("event_id", "type", "version", "occurred_at", "published_at")


class Rejected(NamedTuple):
    """An event that is not let in: its place in the envelopes, the rule, what becomes of it (drop or quarantine), and
    why, for people. Besides the names of the type's rules there are `over_size`, `unknown_version`, `broken_bytes`,
    `version`, and those of transforms/features/quality.py."""

    place: int
    rule: str
    severity: str
    reason: str


class Scanned(NamedTuple):
    """Events that are let in, in the order of the envelopes, and those that are not.

    `places` are the envelopes of the events, `published` their published_at (epoch ms). `versions` and `bodies` are
    those of all envelopes: the version of the schema (0: unknown), and the Avro body without a frame (where the version
    is unknown, the bytes as they came). `warned` counts the events let in that break a rule of severity warn, by rule.
    """

    events: EventColumns
    event_ids: list[str]
    published: Numbers
    rejected: list[Rejected]
    places: Numbers
    versions: list[int]
    bodies: list[bytes]
    warned: dict[str, int]


def scan(
    event_type: EventType,
    envelopes: Sequence[Envelope],
    now_ms: int,
    framing: Framing | None = None,
    columns: Collection[str] | None = None,
) -> Scanned:
    """The events of one type. `framing` resolves their schemas (None: by our own frame and fingerprints); `columns`
    limits the events' columns to these, the key, the time and those of the rules. Never raises for any bytes.

    A message id is `PARTITION:POSITION`; where it is not, the event's position is its place in the envelopes.
    """
    rejected: list[Rejected] = []
    versions, bodies, by_version = _resolve(event_type, envelopes, framing, rejected)
    wanted = _wanted(event_type, columns)
    merged, refused = decode_columns(event_type, by_version, bodies, wanted)
    for place, reason in refused.items():
        rejected.append(Rejected(place, "broken_bytes", "quarantine", _with_note(reason, envelopes[place].note)))
    event_ids = merged.columns["event_id"].to_pylist()
    ties = np.fromiter((mmh3.hash64(one, signed=False)[0] >> 1 for one in event_ids), np.int64, len(event_ids))
    events = EventColumns(_positions(envelopes)[merged.places], ties, merged.columns, merged.present)
    chosen, warned = _apply_rules(event_type, events, merged.places, np.array(versions), now_ms, rejected)
    rejected.sort()
    if not chosen.all():
        events = events.take(chosen)
        event_ids = [one for one, kept in zip(event_ids, chosen.tolist(), strict=True) if kept]
    published = events.columns["published_at"]
    return Scanned(events, event_ids, published, rejected, merged.places[chosen], versions, bodies, warned)


def _resolve(
    event_type: EventType, envelopes: Sequence[Envelope], framing: Framing | None, rejected: list[Rejected]
) -> tuple[list[int], list[bytes], dict[int, list[int]]]:
    """The version (0: unknown) and body of each envelope, and the places of those to decode by version."""
    framing = framing or Framing({event_type.name: event_type})
    own = {start: found.version for start, found in framing.frames.items() if found.type == event_type.name}
    versions, bodies = [], []
    by_version: dict[int, list[int]] = defaultdict(list)
    for place, envelope in enumerate(envelopes):
        body = envelope.body
        version = 0 if envelope.attributes else own.get(body[:FRAME_BYTES], 0)  # in the event store, of nearly all
        if version:
            body = body[FRAME_BYTES:]
        else:
            schema, body, problem = framing.read(envelope)
            if schema is not None and schema.type == event_type.name:
                version = schema.version
            elif schema is not None:
                reason = f"the schema is one of {schema.type}, not of {event_type.name}"
                rejected.append(Rejected(place, "type", "quarantine", reason))
            else:
                reason = _with_note(problem, envelope.note)
                rejected.append(Rejected(place, "unknown_version", "quarantine", reason))
        versions.append(version)
        bodies.append(body)
        if version and len(body) <= MOST_BYTES:
            by_version[version].append(place)
        elif version:
            reason = f"{len(body):,} bytes; an event has at most {MOST_BYTES:,}"
            rejected.append(Rejected(place, "over_size", "quarantine", reason))
    return versions, bodies, by_version


def _with_note(reason: str, note: str) -> str:
    return f"{reason}; {shown(note, 500)}" if note else reason


def _wanted(event_type: EventType, columns: Collection[str] | None) -> list[str]:
    """The columns to decode, in the order of the type."""
    if columns is None:
        return list(event_type.columns)
    named = {*_ALWAYS, *event_type.key, event_type.time, *columns}
    for rule in event_type.rules:
        named |= {rule.column, getattr(rule, "other", rule.column)}
    named |= {name for name, kind in event_type.columns.items() if kind == "double"}
    return [name for name in event_type.columns if name in named]


def _positions(envelopes: Sequence[Envelope]) -> Numbers:
    try:
        numbers = [position_of(envelope) for envelope in envelopes]
        return np.array(numbers, np.int64)
    except (ValueError, OverflowError):
        return np.array([_position(place, envelope.message_id) for place, envelope in enumerate(envelopes)], np.int64)


def _position(place: int, message_id: str) -> int:
    digits = message_id.rpartition(":")[2]
    return int(digits) if len(digits) <= 18 and digits.isascii() and digits.isdecimal() else place


def _apply_rules(
    event_type: EventType,
    events: EventColumns,
    places: Numbers,
    versions: Numbers,
    now_ms: int,
    rejected: list[Rejected],
) -> tuple[Mask, dict[str, int]]:
    """Which events are let in, and how many of those break each rule that only warns. An event is rejected by the first
    rule that it breaks."""
    chosen = np.ones(len(events), bool)
    wrong = events.columns["version"] != versions[places]
    for place in np.flatnonzero(wrong).tolist():
        said, index = int(events.columns["version"][place]), int(places[place])
        reason = f"version = {said}, but its schema is that of version {versions[index]}"
        rejected.append(Rejected(index, "version", "quarantine", reason))
    chosen &= ~wrong
    warnings: dict[str, Mask] = {}
    for check in checks_of(event_type):
        broken = check.broken_by(events, now_ms)
        if not broken.any():
            continue
        if check.severity == "warn":
            warnings[check.rule] = broken
            continue
        for place in np.flatnonzero(broken & chosen).tolist():
            reason = check.reason(events, place)
            rejected.append(Rejected(int(places[place]), check.rule, check.severity, reason))
        chosen &= ~broken
    counted = {rule: int(np.count_nonzero(mask & chosen)) for rule, mask in warnings.items()}
    return chosen, {rule: count for rule, count in counted.items() if count}
