"""Messages of any types become events of the store, or stay in quarantine with their bytes; none is lost."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from support.raw_events import NOW, TYPES, any_event, body_of, message_of

from schemas.events.framing import frame
from schemas.events.raw_event import partition_of
from schemas.transport import Envelope
from transforms.collect.decode_events import Types, decode_events, envelope_of
from transforms.collect.elements import event_ids
from transforms.features.scan_events import scan

ALL = Types(TYPES)
NAMES = st.sampled_from(sorted(TYPES))
ODD = st.builds(
    Envelope,
    st.text(max_size=9),
    st.dictionaries(st.text(max_size=5) | st.just("schema"), st.text(max_size=20), max_size=3),
    st.binary(max_size=60) | st.builds(lambda name, rest: frame(TYPES[name], 1) + rest, NAMES, st.binary(max_size=60)),
    st.integers(-(1 << 63), (1 << 63) - 1),
    st.text(max_size=5),
)
SOUND = st.builds(
    lambda name, number: message_of(any_event(name, event_id=f"e-{number}"), number), NAMES, st.integers(0, 99)
)


@given(st.lists(ODD | SOUND, max_size=8))
def test_every_message_becomes_an_event_or_a_letter_with_its_bytes(envelopes: list[Envelope]) -> None:
    decoded = decode_events(envelopes, NOW, ALL)
    dropped = sum(count for (outcome, *_), count in decoded.counts.items() if outcome == "dropped")
    assert len(decoded.events) + len(decoded.quarantined) + dropped == len(envelopes)
    bodies = sorted(envelope.body for envelope in envelopes)
    for one in decoded.quarantined:
        assert one.letter.data in bodies
        again = envelope_of(one.letter)
        assert (again.body, again.published_at) in [(each.body, each.published_at) for each in envelopes]
        assert decode_events([again], NOW, ALL).events == []


@given(st.lists(SOUND, min_size=1, max_size=8))
def test_what_is_stored_is_read_by_its_frame_alone(envelopes: list[Envelope]) -> None:
    for event in decode_events(envelopes, NOW, ALL).events:
        stored = Envelope("0:7", {}, event.body, event.published_at)
        scanned = scan(TYPES[event.type], [stored], NOW)
        assert (scanned.event_ids, scanned.versions, scanned.rejected) == ([event.event_id], [event.version], [])


def test_the_framings_of_other_transports_and_old_versions_come_to_one_form() -> None:
    row = any_event("order_line", version=1, event_id="e-9", household_id="h-1")
    body = body_of(TYPES["order_line"], row)
    digits = next(digits for digits, number in TYPES["order_line"].fingerprints.items() if number == 1)
    single = b"\xc3\x01" + bytes.fromhex(digits) + body
    messages = [message_of(row), Envelope("a:1", {"schema": digits}, body, 0), Envelope("b:1", {}, single, 0)]
    events = decode_events(messages, NOW, ALL).events
    assert {(event.type, event.version, event.entity, event.event_id, event.body) for event in events} == {
        ("order_line", 1, "h-1", "e-9", frame(TYPES["order_line"], 1) + body)
    }
    assert len(events) == 3
    assert len(set(event_ids(events))) == 1


def test_ids_are_of_a_type() -> None:
    events = [
        one
        for name in ("order_line", "item_scan")
        for one in decode_events([message_of(any_event(name))], NOW, ALL).events
    ]
    assert [event.event_id for event in events] == ["e-1", "e-1"]
    assert len(set(event_ids(events))) == 2


@given(st.text(), st.integers(1, 64))
def test_an_entity_has_one_partition(entity: str, partitions: int) -> None:
    assert 0 <= partition_of(entity, partitions) < partitions
    assert partition_of(entity, partitions) == partition_of(entity, partitions)


def test_entities_spread_over_the_partitions() -> None:
    counts: dict[int, Any] = {}
    for number in range(8_000):
        partition = partition_of(f"h-{number}", 8)
        counts[partition] = counts.get(partition, 0) + 1
    assert min(counts.values()) > 800
