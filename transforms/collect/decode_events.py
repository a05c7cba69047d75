"""DecodeEvents: the messages of a poll become events of their types; those that break a rule go into quarantine."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import apache_beam as beam
import orjson

from schemas.contracts import DeadLetter
from schemas.events.event_types import EventType
from schemas.events.framing import Framing, frame
from schemas.events.raw_event import RawEvent
from schemas.problems import shown
from schemas.transport import Envelope
from transforms.collect.counters import COUNTERS, rule_counter
from transforms.collect.elements import RawEvents
from transforms.collect.watch import Watch
from transforms.features.event_columns import entities
from transforms.features.scan_events import Rejected, scan
from transforms.streaming.elements import Envelopes, body_bytes, in_lists
from transforms.streaming.engine_traits import Clock

STEP = "Collect"
UNKNOWN = "_unknown"
"""The type of messages of which no version of an event type is known."""


class Quarantined(NamedTuple):
    """An event that is kept aside: its type and version (0: unknown), and the letter with its bytes."""

    type: str
    version: int
    letter: DeadLetter


class Decoded(NamedTuple):
    """The events of a list of messages, those in quarantine, and how many broke a rule of another severity, by
    (outcome, type, version, rule)."""

    events: list[RawEvent]
    quarantined: list[Quarantined]
    counts: Counter[tuple[str, str, int, str]]


class Types:
    """The event types of a job, and what finds the type of a message."""

    def __init__(self, types: Mapping[str, EventType], framing: Framing | None = None) -> None:
        self.types, self.framing = types, framing or Framing(types)
        self.frames = {(one.name, version): frame(one, version) for one in types.values() for version in one.versions}


KeepQuarantined = Callable[[list[Quarantined]], None]
"""Writes them to where they are safe. Raises JobError."""


def decode_events(envelopes: list[Envelope], now_ms: int, types: Types) -> Decoded:
    """The events of messages of any types, which arrived at a time. Never raises."""
    decoded = Decoded([], [], Counter())
    by_type: dict[str, list[Envelope]] = defaultdict(list)
    for envelope in envelopes:
        framed = types.framing.read(envelope)
        if framed.schema is None:
            reason = f"{framed.problem}; {envelope.note}" if envelope.note else framed.problem
            decoded.quarantined.append(quarantined(UNKNOWN, 0, "unknown_version", reason, envelope))
        else:
            by_type[framed.schema.type].append(envelope)
    for name, same in by_type.items():
        _decode_type(types, types.types[name], same, now_ms, decoded)
    return decoded


def _decode_type(types: Types, event_type: EventType, envelopes: list[Envelope], now_ms: int, decoded: Decoded) -> None:
    name = event_type.name
    scanned = scan(event_type, envelopes, now_ms, types.framing, ())
    names, owners = entities(scanned.events, event_type.key)
    columns = zip(scanned.places.tolist(), scanned.event_ids, owners.tolist(), scanned.published.tolist(), strict=True)
    for place, event_id, owner, published_at in columns:
        version, entity = scanned.versions[place], names[owner] if owner >= 0 else ""
        body = types.frames[name, version] + scanned.bodies[place]
        message_id = envelopes[place].message_id
        decoded.events.append(RawEvent(name, version, entity, event_id, published_at, body, message_id))
    for rejected in scanned.rejected:
        version = scanned.versions[rejected.place]
        if rejected.severity == "drop":
            decoded.counts["dropped", name, version, rejected.rule] += 1
        else:
            decoded.quarantined.append(_of_rejected(name, version, rejected, envelopes[rejected.place]))
    for rule, count in scanned.warned.items():
        decoded.counts["warned", name, event_type.newest, rule] += count


def _of_rejected(name: str, version: int, rejected: Rejected, envelope: Envelope) -> Quarantined:
    return quarantined(name, version, rejected.rule, rejected.reason, envelope)


def quarantined(name: str, version: int, rule: str, reason: str, envelope: Envelope) -> Quarantined:
    """`trace` has all that is needed to read the message again, as JSON."""
    attributes = {_storable(key): _storable(value) for key, value in envelope.attributes.items()}
    trace = {"type": name, "version": version, "published_at": envelope.published_at, "attributes": attributes}
    letter = DeadLetter(
        STEP, rule, shown(reason, 2_000), f"message {_storable(envelope.message_id)}", envelope.body,
        orjson.dumps(trace, option=orjson.OPT_SORT_KEYS).decode(),
    )  # fmt: skip
    return Quarantined(name, version, letter)


def _storable(text: str) -> str:
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


def envelope_of(letter: DeadLetter) -> Envelope:
    """The message of an event in quarantine, as it came."""
    trace = orjson.loads(letter.trace)
    return Envelope(letter.source.partition(" ")[2], trace["attributes"], letter.data, trace["published_at"])


def count_decoded(decoded: Decoded) -> None:
    """Counts by type, version and rule what was not simply let in."""
    kept = Counter(("quarantined", one.type, one.version, one.letter.reason) for one in decoded.quarantined)
    for (outcome, name, version, rule), count in (kept + decoded.counts).items():
        rule_counter(outcome, name, version, rule).inc(count)


class _Decode(beam.DoFn):
    """Keeps what goes into quarantine itself, at the end of the bundle: the source is told that its messages are safe
    when this bundle is committed, and a step behind another hop might come too late."""

    def __init__(
        self,
        make_types: Callable[[], Types],
        keep: KeepQuarantined,
        make_watch: Callable[[], Watch],
        clock: Clock,
    ) -> None:
        self._make_types, self._keep, self._make_watch, self._clock = make_types, keep, make_watch, clock
        self._read, self._quarantined = COUNTERS.counter("read"), COUNTERS.counter("quarantined")
        self._dropped, self._warned = COUNTERS.counter("dropped"), COUNTERS.counter("warned")

    def setup(self) -> None:
        self._types, self._watch = self._make_types(), self._make_watch()

    def start_bundle(self) -> None:
        self._kept: list[Quarantined] = []

    def process(self, element: Envelopes) -> Iterator[RawEvents]:
        now = self._clock()
        decoded = decode_events(element.items, int(now * 1000), self._types)
        self._read.inc(len(element.items), body_bytes(element.items))
        self._kept += decoded.quarantined
        self._count(element, decoded)
        self._watch.note(decoded, now)
        for part in in_lists(decoded.events):
            yield RawEvents(part)

    def finish_bundle(self) -> None:
        if self._kept:
            self._keep(self._kept)
            self._kept = []

    def _count(self, element: Envelopes, decoded: Decoded) -> None:
        count_decoded(decoded)
        bodies = sum(len(one.letter.data) for one in decoded.quarantined)
        self._quarantined.inc(len(decoded.quarantined), bodies)
        dropped = sum(count for (outcome, *_), count in decoded.counts.items() if outcome == "dropped")
        self._dropped.inc(dropped)
        self._warned.inc(sum(decoded.counts.values()) - dropped)


class DecodeEvents(beam.PTransform):
    """Lists of RawEvent of Envelopes. `make_types` and `make_watch` give those of a process, `keep` puts events into
    quarantine before their bundle is committed. Counts `read`, `quarantined`, `dropped`, `warned`, and each by type,
    version and rule. Steps: Decode."""

    def __init__(
        self,
        make_types: Callable[[], Types],
        keep: KeepQuarantined,
        make_watch: Callable[[], Watch],
        clock: Clock,
    ) -> None:
        super().__init__()
        self._decode: Any = _Decode(make_types, keep, make_watch, clock)

    def expand(self, envelopes: beam.PCollection[Envelopes]) -> beam.PCollection[RawEvents]:
        return envelopes | "Decode" >> beam.ParDo(self._decode).with_output_types(RawEvents)
