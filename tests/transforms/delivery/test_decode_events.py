"""Decode: every reason for a dead letter, bytes verbatim; the columnar way agrees with the one by one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import apache_beam as beam
import msgspec
import pytest
from apache_beam.testing.util import assert_that, equal_to
from hypothesis import given, settings
from hypothesis import strategies as st
from support.vendor_calls import any_event
from support.wire_events import ARRIVED, MARK, any_envelope, body_of, wire_message

from connectors.vendors.message_fields import message_fields
from schemas.contracts import DeadLetter, fingerprint, released
from schemas.delivery import Message
from schemas.transport import Envelope
from stores.deliveries.receipts import encode_receipts
from transforms.delivery.counters import COUNTERS
from transforms.delivery.decode_events import dead_id, read_envelope, read_envelopes
from transforms.delivery.elements import Messages
from transforms.delivery.receipts import decode_message, decode_receipts, encode_receipt, make_receipt, refused_letter
from transforms.streaming.decode import Decode
from transforms.streaming.elements import Envelopes

GOLDEN = Path(__file__).parents[2] / "golden"
LONG = "x" * 257


def both(envelope: Envelope) -> Message | DeadLetter:
    """What an envelope becomes, whichever way it is read."""
    (made,) = read_envelopes([envelope], ARRIVED)
    assert made == read_envelope(envelope, ARRIVED)
    return made


def test_a_sound_event_becomes_a_message() -> None:
    assert both(any_envelope(7)) == wire_message(7)


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        ({"vendor_campaign": None}, {"vendor_campaign": "welcome"}),
        ({"vendor_campaign": None, "campaign_id": LONG}, {"vendor_campaign": LONG}),
        ({"deliver_after": ARRIVED + 5}, {"deliver_after": ARRIVED + 5}),
        ({"expires_at": ARRIVED + 9}, {"expires_at": ARRIVED + 9}),
        ({"expires_at": None}, {"expires_at": 0}),
        ({"customer_id": "Zoë 🧀"}, {"customer_id": "Zoë 🧀"}),
        ({"retailer_id": "x" * 256}, {"retailer_id": "x" * 256}),
    ],
)
def test_what_routes_a_message_comes_from_the_event(event: dict[str, Any], expected: dict[str, Any]) -> None:
    made = both(any_envelope(1, **event))
    assert isinstance(made, Message)
    assert {name: getattr(made, name) for name in expected} == expected


TIMES: list[tuple[str, int]] = [
    ("microseconds", ARRIVED * 1_000),
    ("nanoseconds", ARRIVED * 1_000_000),
    ("the year 10000", 253_402_300_800_000),
    ("a millisecond before the end of time", (1 << 63) - 2),
]
PLACES = ("deliver_after", "expires_at", "emitted_at", "offers[1].expires_at")


def with_time(place: str, value: int) -> dict[str, Any]:
    """The changes of an event that put a time into a place."""
    if place.startswith("offers"):
        offers = any_event()["offers"]
        return {"offers": [*offers, {**offers[0], "expires_at": value}]}
    return {place: value}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("value", [row[1] for row in TIMES], ids=[row[0] for row in TIMES])
def test_what_is_no_time_in_milliseconds_is_a_dead_letter_that_names_field_and_value(place: str, value: int) -> None:
    envelope = any_envelope(1, **with_time(place, value))
    made = both(envelope)
    assert isinstance(made, DeadLetter)
    assert (made.reason, made.data) == ("bad_time", envelope.body)
    assert f"{place} is {value}, no time in epoch milliseconds" in made.detail


@pytest.mark.parametrize("place", ["deliver_after", "emitted_at", "offers[1].expires_at"])
def test_a_time_before_the_year_1_is_a_dead_letter(place: str) -> None:
    made = both(any_envelope(1, **with_time(place, -62_135_596_800_001)))
    assert isinstance(made, DeadLetter)
    assert made.reason == "bad_time"


@pytest.mark.parametrize("place", ["deliver_after", "emitted_at", "offers[1].expires_at"])
@pytest.mark.parametrize("value", [-62_135_596_800_000, -1, 0, 253_402_300_799_999])
def test_the_years_1_to_9999_are_times(place: str, value: int) -> None:
    assert isinstance(both(any_envelope(1, **with_time(place, value))), Message)


@pytest.mark.parametrize("expires", [0, -1, -ARRIVED, -(1 << 63)])
def test_an_expiry_of_zero_or_less_is_one_that_is_over(expires: int) -> None:
    made = both(any_envelope(1, expires_at=expires))
    assert isinstance(made, Message)
    assert made.expires_at == 1


@pytest.mark.parametrize(("expires", "expected"), [(253_402_300_799_999,) * 2, ((1 << 63) - 1, 0)])
@pytest.mark.parametrize("due", [253_402_300_799_999, (1 << 63) - 1], ids=["the year 9999", "the end of time"])
def test_what_is_due_or_expires_at_the_end_of_time_is_a_message(due: int, expires: int, expected: int) -> None:
    made = both(any_envelope(1, deliver_after=due, expires_at=expires))
    assert isinstance(made, Message)
    assert (made.deliver_after, made.expires_at) == (due, expected)


@pytest.mark.parametrize(
    ("event", "detail"),
    [
        *(({name: ""}, f"{name} is empty") for name in ("customer_id", "launch_id", "campaign_id", "channel")),
        ({"properties": {"score": float("nan")}}, "properties.score is nan"),
        ({"properties": {"score": 1.5, "top": float("-inf")}}, "properties.top is -inf"),
        ({"experiment": {**any_event()["experiment"], "bucket": float("inf")}}, "experiment.bucket is inf"),
    ],
)
def test_an_event_that_a_later_step_cannot_use_is_a_dead_letter(event: dict[str, Any], detail: str) -> None:
    envelope = any_envelope(1, **event)
    made = both(envelope)
    assert isinstance(made, DeadLetter)
    assert (made.reason, made.data) == ("unusable_event", envelope.body)
    assert detail in made.detail


def test_golden_bytes_of_every_released_version_decode() -> None:
    for version, schema in enumerate(released(), 1):
        records = json.loads((GOLDEN / f"campaign_event_{version}.json").read_text())
        bodies = [bytes.fromhex(line) for line in (GOLDEN / f"campaign_event_{version}.hex").read_text().split()]
        envelopes = [
            Envelope(str(n), {"schema": fingerprint(schema), **{k: r[k] for k in ("event_id", "retailer_id")}}, body, 0)
            for n, (r, body) in enumerate(zip(records, bodies, strict=True))
        ]
        made = read_envelopes(envelopes, ARRIVED)
        assert made == [read_envelope(one, ARRIVED) for one in envelopes]
        assert [one.reason if isinstance(one, DeadLetter) else one.customer_id for one in made] == [
            "unusable_event"
            if not r["customer_id"]
            else "bad_time"
            if r["emitted_at"] < -(1 << 62)
            else r["customer_id"]
            for r in records
        ]


TEN_MORE = any_envelope(1)._replace(body=body_of(1) + b"\0" * 10)
BAD: list[tuple[str, Envelope, str, str]] = [
    ("no event id", any_envelope(1, {"event_id": ""}), "missing_attributes", "event_id"),
    ("no retailer", any_envelope(1, {"retailer_id": ""}), "missing_attributes", "retailer_id"),
    ("no schema", any_envelope(1, {"schema": ""}), "missing_attributes", "schema"),
    ("nothing at all", Envelope("m", {}, b"", 0), "missing_attributes", "event_id, retailer_id, schema"),
    ("a body of over a megabyte", any_envelope(1, trace="x" * 1_000_000), "over_size", "1,000,"),
    ("a retailer's name too long", any_envelope(1, retailer_id=LONG), "over_size", "retailer_id has 257"),
    ("a customer's name too long", any_envelope(1, customer_id=LONG), "over_size", "customer_id has 257"),
    ("a vendor campaign too long", any_envelope(1, vendor_campaign=LONG), "over_size", "vendor_campaign has 257"),
    ("an event id too long", any_envelope(1, {"event_id": LONG}, event_id=LONG), "over_size", "event_id has 257"),
    ("a version that is not known", any_envelope(1, {"schema": "0" * 16}), "unknown_schema", "upgrade, then replay"),
    ("a mark that is none", any_envelope(1, {"schema": "newest"}), "unknown_schema", "'newest'"),
    ("no bytes", any_envelope(1)._replace(body=b""), "broken_bytes", "not a record"),
    ("half of the bytes", any_envelope(1)._replace(body=body_of(1)[:-9]), "broken_bytes", "not a record"),
    ("bytes too many", TEN_MORE, "broken_bytes", "10 bytes after the record"),
    ("no Avro", any_envelope(1)._replace(body=b'{"event_id": 1}'), "broken_bytes", "not a record"),
    ("another event's id", any_envelope(1, {"event_id": "e-2"}), "attributes_differ", "attribute event_id says 'e-2'"),
    ("the name of a replay too long", any_envelope(1, {"replay": LONG}), "over_size", "attribute replay has 257"),
    ("another retailer", any_envelope(1, {"retailer_id": "b"}), "attributes_differ", "attribute retailer_id says 'b'"),
]


@pytest.mark.parametrize(("envelope", "reason", "detail"), [row[1:] for row in BAD], ids=[row[0] for row in BAD])
def test_what_cannot_be_used_becomes_a_dead_letter_with_its_bytes(envelope: Envelope, reason: str, detail: str) -> None:
    made = both(envelope)
    assert isinstance(made, DeadLetter)
    assert (made.step, made.reason, made.data) == ("Decode", reason, envelope.body)
    assert made.source == f"message {envelope.message_id}"
    assert json.loads(made.trace) == envelope.attributes
    assert detail in made.detail


def test_attributes_that_utf8_cannot_carry_are_told_as_escapes() -> None:
    made = both(any_envelope(1, {"event_id": "\ud800", "odd": "\udfff"}))
    assert isinstance(made, DeadLetter)
    assert made.reason == "attributes_differ"
    assert json.loads(made.trace)["odd"] == "\\udfff"
    assert dead_id(made)


def test_a_huge_attribute_makes_no_huge_detail() -> None:
    made = both(any_envelope(1, {"schema": "x" * 1_000_000}))
    assert isinstance(made, DeadLetter)
    assert len(made.detail) <= 2_000
    assert json.loads(made.trace)["schema"] == "x" * 1_000_000


def test_a_message_that_comes_again_is_the_same_dead_letter_and_any_other_is_not() -> None:
    letters = [read_envelope(one, ARRIVED) for _, one, _, _ in BAD]
    names = [dead_id(one) for one in letters if isinstance(one, DeadLetter)]
    assert len(set(names)) == len(BAD)
    for (_, one, _, _), name in zip(BAD, names, strict=True):
        turned = dict(reversed(one.attributes.items()))
        again = read_envelope(Envelope("another name", turned, one.body, one.published_at + 1), ARRIVED + 1)
        assert isinstance(again, DeadLetter)
        assert dead_id(again) == name


def test_a_letter_that_is_known_keeps_its_name() -> None:
    """The ledger remembers these names: another one would leave a second letter."""
    letter = DeadLetter("Decode", "broken_bytes", "", "", b"\0\xff", '{"schema":"1"}')
    assert dead_id(letter) == "dead:5a467e2b9caf14d6df6b4d99ff71d092"
    assert dead_id(letter._replace(step="s", reason="r", detail="d", source="o")) == dead_id(letter)


TIME = (
    st.integers(-(1 << 63), (1 << 63) - 1)
    | st.integers(ARRIVED - 9, ARRIVED + 9)
    | st.sampled_from([0, -1, 1, (1 << 63) - 1, 253_402_300_799_999, 253_402_300_800_000, -62_135_596_800_001])
)


@st.composite
def envelopes(draw: st.DrawFn) -> Envelope:
    """Good ones, and those that something happened to."""
    texts = st.text(max_size=5) | st.just(LONG[:256]) | st.just(LONG)
    names = ("customer_id", "vendor_campaign", "campaign_id", "retailer_id", "event_id")
    event: dict[str, Any] = draw(st.dictionaries(st.sampled_from(names), texts, max_size=2))
    event |= {"expires_at": draw(st.none() | TIME), "deliver_after": draw(TIME), "emitted_at": draw(TIME)}
    offers = any_event()["offers"]
    event |= {"offers": [{**offers[0], "expires_at": draw(st.none() | TIME)} for _ in range(draw(st.integers(0, 2)))]}
    event |= {
        "properties": draw(st.dictionaries(texts, st.none() | st.floats() | st.integers(-9, 9) | texts, max_size=2))
    }
    event |= draw(st.dictionaries(st.sampled_from(["channel", "launch_id"]), st.just(""), max_size=1))
    own = {name: event[name] for name in ("event_id", "retailer_id") if name in event}
    odd = st.dictionaries(st.sampled_from(["event_id", "retailer_id", "schema"]), st.sampled_from(["", "x", MARK]))
    made = any_envelope(draw(st.integers(0, 9)), own | draw(st.just({}) | odd), **event)
    body = bytearray(made.body)
    for _ in range(draw(st.integers(0, 2))):
        place = draw(st.integers(0, len(body) - 1))
        body[place : place + draw(st.integers(0, 2))] = draw(st.binary(max_size=2))
    return made._replace(body=bytes(body))


@settings(max_examples=300, deadline=None)
@given(st.lists(envelopes(), max_size=6))
def test_the_columnar_way_agrees_with_the_one_by_one(some: list[Envelope]) -> None:
    assert read_envelopes(some, ARRIVED) == [read_envelope(one, ARRIVED) for one in some]


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(st.text(max_size=9) | st.sampled_from(["event_id", "schema"]), st.text(max_size=9)), st.binary())
def test_no_attributes_and_no_bytes_raise(attributes: dict[str, str], body: bytes) -> None:
    for own in (attributes, {"event_id": "e", "retailer_id": "r", **attributes, "schema": MARK}):
        assert isinstance(both(Envelope("m", own, body, 0)), DeadLetter)


@settings(max_examples=150, deadline=None)
@given(st.lists(envelopes(), max_size=4))
def test_every_message_gets_its_receipt_and_its_letter(some: list[Envelope]) -> None:
    for message in read_envelopes(some, ARRIVED):
        if isinstance(message, Message):
            receipt = make_receipt(message, "braze:r", "rejected", ARRIVED, reason="unusable_event")
            letter = refused_letter(message, "unusable_event", "\ud800", "0f" * 16)
            kept = decode_receipts([encode_receipt(receipt), encode_receipt(receipt, letter)])
            assert kept.items == [receipt, receipt]
            assert kept.letters == [letter]
            assert (letter.data, letter.detail) == (message.body, "\\ud800")
            assert len(encode_receipts(kept.items)) == 2
            assert msgspec.json.encode(message_fields(decode_message(message)))


def test_good_and_dead_go_their_ways_and_are_counted() -> None:
    before = {name: COUNTERS.tally[name] for name in ("read", "dead_lettered")}
    good, bad = any_envelope(1), any_envelope(2)._replace(body=b"")
    with beam.Pipeline(runner="BundleBasedDirectRunner") as p:
        polls = p | beam.Create([Envelopes([good, bad]), Envelopes([bad])])
        messages, letters = polls | Decode(read_envelopes, Messages, lambda: ARRIVED / 1000, COUNTERS)
        assert_that(messages | "Ids" >> beam.FlatMap(lambda some: some.items), equal_to([wire_message(1)]), "good")
        assert_that(letters | "Data" >> beam.Map(lambda one: one.reason), equal_to(["broken_bytes"] * 2), "dead")
    assert {name: COUNTERS.tally[name] - count for name, count in before.items()} == {"read": 3, "dead_lettered": 2}
