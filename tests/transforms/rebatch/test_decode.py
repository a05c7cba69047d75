"""Decode: every reason for a dead letter, bytes verbatim; the columnar way agrees with the one by one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import apache_beam as beam
import pytest
from apache_beam.testing.util import assert_that, equal_to
from hypothesis import given, settings
from hypothesis import strategies as st
from wire_events import ARRIVED, MARK, any_envelope, body_of, wire_message

from schemas.contracts import DeadLetter, fingerprint, released
from schemas.delivery import Message
from schemas.transport import Envelope
from transforms.rebatch.counters import TALLY
from transforms.rebatch.decode import Decode, dead_id, read_envelope, read_envelopes
from transforms.rebatch.elements import Envelopes

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
        ({"expires_at": 1 << 62}, {"expires_at": 1 << 62}),
        ({"customer_id": ""}, {"customer_id": ""}),
        ({"customer_id": "Zoë 🧀"}, {"customer_id": "Zoë 🧀"}),
        ({"retailer_id": "x" * 256}, {"retailer_id": "x" * 256}),
    ],
)
def test_what_routes_a_message_comes_from_the_event(event: dict[str, Any], expected: dict[str, Any]) -> None:
    made = both(any_envelope(1, **event))
    assert isinstance(made, Message)
    assert {name: getattr(made, name) for name in expected} == expected


def test_golden_bytes_of_every_released_version_become_messages() -> None:
    for version, schema in enumerate(released(), 1):
        records = json.loads((GOLDEN / f"campaign_event_{version}.json").read_text())
        bodies = [bytes.fromhex(line) for line in (GOLDEN / f"campaign_event_{version}.hex").read_text().split()]
        envelopes = [
            Envelope(str(n), {"schema": fingerprint(schema), **{k: r[k] for k in ("event_id", "retailer_id")}}, body, 0)
            for n, (r, body) in enumerate(zip(records, bodies, strict=True))
        ]
        made = read_envelopes(envelopes, ARRIVED)
        assert made == [read_envelope(one, ARRIVED) for one in envelopes]
        assert [one.customer_id for one in made if isinstance(one, Message)] == [r["customer_id"] for r in records]


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


@st.composite
def envelopes(draw: st.DrawFn) -> Envelope:
    """Good ones, and those that something happened to."""
    texts = st.text(max_size=5) | st.just(LONG[:256]) | st.just(LONG)
    names = ("customer_id", "vendor_campaign", "campaign_id", "retailer_id", "event_id")
    event: dict[str, Any] = draw(st.dictionaries(st.sampled_from(names), texts, max_size=2))
    event |= {"expires_at": draw(st.none() | st.integers(-(1 << 63), (1 << 63) - 1))}
    event |= {"deliver_after": draw(st.integers(-(1 << 63), (1 << 63) - 1))}
    own = {name: event[name] for name in ("event_id", "retailer_id") if name in event}
    odd = st.dictionaries(st.sampled_from(["event_id", "retailer_id", "schema"]), st.sampled_from(["", "x", MARK]))
    made = any_envelope(draw(st.integers(0, 9)), own | draw(st.just({}) | odd), **event)
    body = bytearray(made.body)
    for _ in range(draw(st.integers(0, 2))):
        place = draw(st.integers(0, len(body) - 1))
        body[place : place + draw(st.integers(0, 2))] = draw(st.binary(max_size=2))
    return made._replace(body=bytes(body))


@settings(max_examples=150, deadline=None)
@given(st.lists(envelopes(), max_size=6))
def test_the_columnar_way_agrees_with_the_one_by_one(some: list[Envelope]) -> None:
    assert read_envelopes(some, ARRIVED) == [read_envelope(one, ARRIVED) for one in some]


def test_good_and_dead_go_their_ways_and_are_counted() -> None:
    before = {name: TALLY[name] for name in ("read", "dead_lettered")}
    good, bad = any_envelope(1), any_envelope(2)._replace(body=b"")
    with beam.Pipeline(runner="BundleBasedDirectRunner") as p:
        polls = p | beam.Create([Envelopes([good, bad]), Envelopes([bad])])
        messages, letters = polls | Decode(lambda: ARRIVED / 1000)
        assert_that(messages | "Ids" >> beam.FlatMap(lambda some: some.items), equal_to([wire_message(1)]), "good")
        assert_that(letters | "Data" >> beam.Map(lambda one: one.reason), equal_to(["broken_bytes"] * 2), "dead")
    assert {name: TALLY[name] - count for name, count in before.items()} == {"read": 3, "dead_lettered": 2}
