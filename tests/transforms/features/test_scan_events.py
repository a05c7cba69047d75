"""The scan of a poll: what is let in is what fastavro and plain rules let in, and everything else has a reason."""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.raw_events import NOW, TYPES, any_event, body_of, message_of

from schemas.codec.varints import zigzag
from schemas.events.event_types import EventType
from schemas.events.framing import Framing, SchemaVersion, frame
from schemas.transport import Envelope
from transforms.features.event_columns import EventColumns
from transforms.features.scan_events import Scanned, scan

DAY = 86_400_000
ORDER, CARD, SCAN, SESSION = (TYPES[name] for name in ("order_line", "card_attempt", "item_scan", "session_event"))


def rows_of(events: EventColumns) -> list[dict[str, Any]]:
    """The events as rows."""
    columns = {}
    for name, column in events.columns.items():
        values = column.tolist() if isinstance(column, np.ndarray) else column.to_pylist()
        columns[name] = [value if has else None for value, has in zip(values, events.has(name).tolist(), strict=True)]
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def scan_rows(*rows: dict[str, Any]) -> Scanned:
    """The scan of rows of one type, at the positions 0, 1, …"""
    messages = [message_of(row, position) for position, row in enumerate(rows)]
    return scan(TYPES[rows[0]["type"]], messages, NOW)


def reasons(scanned: Scanned) -> list[tuple[int, str, str]]:
    return [(index, rule, severity) for index, rule, severity, _ in scanned.rejected]


def test_an_event_of_every_type_is_let_in_as_it_is() -> None:
    for name, event_type in TYPES.items():
        row = any_event(name)
        scanned = scan_rows(row)
        assert scanned.rejected == [], name
        assert rows_of(scanned.events) == [row]
        assert list(scanned.events.columns) == list(event_type.columns)


def test_older_versions_get_the_defaults_and_keep_their_places() -> None:
    old, new = any_event("order_line", 1, event_id="old"), any_event("order_line", event_id="new", coupon_cents=3)
    scanned = scan_rows(new, old, new, old)
    older = {**old, "coupon_cents": 0, "department": None}
    assert rows_of(scanned.events) == [new, older, new, older]
    assert scanned.events.positions.tolist() == [0, 1, 2, 3]
    assert scanned.versions == [2, 1, 2, 1]
    assert scanned.bodies == [body_of(ORDER, row) for row in (new, old, new, old)]
    assert scanned.event_ids == ["new", "old", "new", "old"]


def test_positions_ties_and_times() -> None:
    rows = [any_event("item_scan", event_id=f"e-{place}", published_at=NOW - place) for place in range(5)]
    messages = [message_of(row, 2**40 + place) for place, row in enumerate(rows)]
    scanned = scan(SCAN, messages, NOW)
    assert scanned.events.positions.tolist() == [2**40 + place for place in range(5)]
    assert scanned.published.tolist() == [NOW - place for place in range(5)]
    ties = scanned.events.ties
    assert len(set(ties.tolist())) == 5
    assert (ties >= 0).all()
    again = scan(SCAN, messages[3:], NOW)
    assert again.events.ties.tolist() == ties[3:].tolist()


@pytest.mark.parametrize("name", ["9d3c", "f:x", "a:²", "0:99999999999999999999", "", "0:-1"])
def test_a_message_id_without_a_position_is_placed_where_it_came(name: str) -> None:
    message = message_of(any_event("item_scan"))
    scanned = scan(SCAN, [message, message._replace(message_id=name)], NOW)
    assert scanned.events.positions.tolist() == [0, 1 if name != "0:-1" else -1]


REJECTED: dict[str, tuple[dict[str, Any], str, str, str]] = {
    "range": (any_event("order_line", quantity=-1), "quantity_range", "quarantine", "quantity = -1 must be 0 to 100000"),
    "a set": (any_event("session_event", action="buy"), "known_action", "quarantine", "action = 'buy' must be one of view"),
    "regex": (any_event("card_attempt", country="US "), "country_code", "quarantine", "must match"),
    "regex over lines": (any_event("card_attempt", country="US\n"), "country_code", "quarantine", "'US\\n'"),
    "late and dropped": (any_event("session_event", occurred_at=NOW - 3 * DAY), "late", "drop", "at most 1d before"),
    "future": (any_event("item_scan", occurred_at=NOW + 400_000), "future_occurred_at", "quarantine", "5m from now"),
    "published later": (any_event("item_scan", published_at=NOW + 400_000), "future_published_at", "quarantine", "5m"),
    "far future": (any_event("item_scan", occurred_at=2**62), "time", "quarantine", "1970 to 9999"),
    "before 1970": (any_event("item_scan", occurred_at=-1), "time", "quarantine", "occurred_at = -1 must be a time"),
    "the least number": (any_event("item_scan", published_at=-(2**63)), "time", "quarantine", "published_at"),
    "nan": (any_event("card_attempt", distance_km=math.nan), "finite", "quarantine", "distance_km = nan"),
    "infinite": (any_event("card_attempt", distance_km=-math.inf), "finite", "quarantine", "-inf"),
    "columns": (any_event("campaign_sent", ends_at=5), "ends_after", "quarantine", "ends_at = 5 must be >= occurred_at"),
    "no id": (any_event("item_scan", event_id=""), "event_id", "quarantine", "must have 1 to 256 bytes"),
    "a long id": (any_event("item_scan", event_id="é" * 129), "event_id", "quarantine", "must have 1 to 256 bytes"),
    "no entity": (any_event("item_scan", product_id=""), "key", "quarantine", "names the entity"),
}  # fmt: skip


@pytest.mark.parametrize(("row", "rule", "severity", "text"), REJECTED.values(), ids=REJECTED)
def test_an_event_that_breaks_a_rule_is_left_out_with_the_reason(
    row: dict[str, Any], rule: str, severity: str, text: str
) -> None:
    good = any_event(row["type"])
    scanned = scan_rows(good, row, good)
    assert reasons(scanned) == [(1, rule, severity)]
    assert text in scanned.rejected[0].reason
    assert rows_of(scanned.events) == [good, good]
    assert scanned.places.tolist() == [0, 2]
    assert scanned.event_ids == ["e-1", "e-1"]


def test_what_only_warns_is_let_in_and_counted() -> None:
    rows = [any_event("order_line", department=name) for name in ("GROCERY", "MOON", None, "SUN")]
    scanned = scan_rows(*rows, any_event("order_line", department="MARS", quantity=-1))
    assert len(scanned.events) == 4
    assert scanned.warned == {"known_department": 2}


def test_a_record_of_another_type_or_version_than_its_schema_says_is_left_out() -> None:
    row = any_event("item_scan")
    said = [message_of(row)._replace(body=frame(SCAN, 1) + body_of(SCAN, {**row, "type": "order_line"}))]
    assert reasons(scan(SCAN, said, NOW)) == [(0, "type", "quarantine")]
    body = body_of(SCAN, row).replace(b"item_scan\x02", b"item_scan\x04")
    scanned = scan(SCAN, [Envelope("0:0", {}, frame(SCAN, 1) + body, NOW)], NOW)
    assert reasons(scanned) == [(0, "version", "quarantine")]


ODD: dict[str, tuple[Envelope, str]] = {
    "no bytes": (Envelope("0:1", {}, b"", NOW), "unknown_version"),
    "noise": (Envelope("0:1", {}, b"\xff" * 40, NOW), "unknown_version"),
    "an unknown id": (Envelope("0:1", {}, b"\0\0\0\0\7abc", NOW), "unknown_version"),
    "an unknown fingerprint": (Envelope("0:1", {"schema": "00"}, b"abc", NOW), "unknown_version"),
    "cut": (message_of(any_event("item_scan"))._replace(body=message_of(any_event("item_scan")).body[:-9]), "broken_bytes"),
    "too long": (message_of(any_event("item_scan"))._replace(body=message_of(any_event("item_scan")).body + b"\0"), "broken_bytes"),
    "no UTF-8": (message_of(any_event("item_scan"))._replace(body=message_of(any_event("item_scan")).body.replace(b"a-1", b"a\xff1")), "broken_bytes"),
    "10 MB": (message_of(any_event("item_scan", shopper_id="x" * 10_000_000)), "over_size"),
    "another type": (message_of(any_event("session_event")), "unknown_version"),
}  # fmt: skip


@pytest.mark.parametrize(("message", "rule"), ODD.values(), ids=ODD)
def test_bytes_that_are_no_event_are_left_out_with_a_reason(message: Envelope, rule: str) -> None:
    good = message_of(any_event("item_scan"))
    for poll in ([good, message, good], [message]):
        scanned = scan(SCAN, poll, NOW)
        assert reasons(scanned) == [(len(poll) // 2, rule, "quarantine")]
        assert len(scanned.rejected[0].reason) > 10
        assert " at 0x" not in scanned.rejected[0].reason
        assert len(scanned.events) == len(poll) - 1


def test_what_the_reader_noted_is_told_where_the_bytes_cannot_be_read_and_is_no_reason_elsewhere() -> None:
    good = message_of(any_event("item_scan"))._replace(note="its schema is foreign")
    scanned = scan(SCAN, [good, good._replace(body=good.body + b"more"), good._replace(body=b"")], NOW)
    assert len(scanned.events) == 1
    assert reasons(scanned) == [(1, "broken_bytes", "quarantine"), (2, "unknown_version", "quarantine")]
    assert all("; its schema is foreign" in rejected.reason for rejected in scanned.rejected)


def test_a_schema_of_another_type_is_named() -> None:
    framing = Framing(TYPES)
    scanned = scan(SCAN, [message_of(any_event("session_event"))], NOW, framing)
    assert scanned.rejected[0][1:] == ("type", "quarantine", "the schema is one of session_event, not of item_scan")


def test_messages_of_a_registry_are_read_by_its_ids() -> None:
    row = any_event("item_scan")
    message = Envelope("0:4", {}, b"\0\0\0\0\x09" + body_of(SCAN, row), NOW)
    scanned = scan(SCAN, [message], NOW, Framing(TYPES, {9: SchemaVersion("item_scan", 1)}))
    assert rows_of(scanned.events) == [row]


def test_an_empty_poll_has_no_events() -> None:
    scanned = scan(ORDER, [], NOW)
    assert len(scanned.events) == 0
    assert list(scanned.events.columns) == list(ORDER.columns)
    assert scanned.published.tolist() == []


def test_only_the_named_columns_and_those_that_the_type_needs_are_decoded() -> None:
    few = scan(ORDER, [message_of(any_event("order_line"))], NOW, columns=("store_id",)).events.columns
    assert {"store_id", "household_id", "quantity", "occurred_at", "event_id"} <= few.keys()
    assert not {"basket_id", "product_id", "producer"} & few.keys()


TEXT = st.text(max_size=12)
TIMES = st.integers(NOW - 9 * DAY, NOW + 600_000) | st.integers(-(2**63), 2**63 - 1)
LONGS = st.none() | st.integers(-5, 12_000) | st.integers(-(2**63), 2**63 - 1)


def rows_of_type(event_type: EventType, **some: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    kinds = {
        "string": TEXT,
        "long": LONGS.filter(lambda one: one is not None),
        "boolean": st.booleans(),
        "double": st.floats(),
    }
    columns = {
        name: st.none() | kinds[column.kind] if column.nullable else kinds[column.kind]
        for name, column in event_type.fields.items()
    }
    fixed = {
        "type": st.just(event_type.name),
        "version": st.just(event_type.newest),
        "occurred_at": TIMES,
        "published_at": TIMES,
    }
    return st.fixed_dictionaries({**columns, **fixed, **some})


SESSIONS = rows_of_type(SESSION, action=st.sampled_from(["view", "add", "impression", "purchase"]) | TEXT)
CARDS = rows_of_type(CARD, country=st.none() | st.sampled_from(["US", "DE"]) | TEXT)


def is_let_in(row: dict[str, Any]) -> bool:
    """The rules of session_event and card_attempt, written out."""
    times = row["occurred_at"], row["published_at"]
    sound = 1 <= len(row["event_id"].encode()) <= 256 and all(0 <= one <= NOW + 300_000 for one in times)
    if row["type"] == "session_event":
        place = row["place"]
        return bool(
            sound
            and row["session_id"]
            and row["action"] in ("view", "add", "impression", "purchase")
            and (place is None or 1 <= place <= 10_000)
            and row["published_at"] - row["occurred_at"] <= DAY
        )
    return bool(
        sound
        and row["card_id"]
        and 1 <= row["amount_cents"] <= 10**8
        and 0 <= row["distance_km"] <= 20_100
        and (row["country"] is None or re.fullmatch("[A-Z]{2}", row["country"]))
    )


@given(st.lists(SESSIONS, min_size=1, max_size=12) | st.lists(CARDS, min_size=1, max_size=12))
@settings(deadline=None, max_examples=300)
def test_an_event_is_let_in_when_all_rules_hold_and_only_then(rows: list[dict[str, Any]]) -> None:
    scanned = scan_rows(*rows)
    expected = [place for place, row in enumerate(rows) if is_let_in(row)]
    assert scanned.places.tolist() == expected
    assert rows_of(scanned.events) == [rows[place] for place in expected]
    assert sorted({*expected, *(index for index, _, _, _ in scanned.rejected)}) == list(range(len(rows)))
    assert len(scanned.rejected) == len(rows) - len(expected)


@given(st.lists(SESSIONS, min_size=1, max_size=6), st.data())
@settings(deadline=None, max_examples=300)
def test_whatever_happens_to_the_bytes_each_message_is_let_in_or_rejected(
    rows: list[dict[str, Any]], data: st.DataObject
) -> None:
    messages = [message_of(row, place) for place, row in enumerate(rows)]
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(rows) - 1))
        body = bytearray(messages[place].body)
        for _ in range(data.draw(st.integers(0, 4))):
            if body:
                body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
        cut = data.draw(st.integers(0, len(body)))
        body = body[:cut] if data.draw(st.booleans()) else body + data.draw(st.binary(max_size=12))
        messages[place] = messages[place]._replace(body=bytes(body))
    scanned = scan(SESSION, messages, NOW)
    one_by_one = [scan(SESSION, [message], NOW) for message in messages]
    assert scanned.places.tolist() == [place for place, one in enumerate(one_by_one) if len(one.events)]
    assert rows_of(scanned.events) == [row for one in one_by_one for row in rows_of(one.events)]
    assert reasons(scanned) == [(place, *rest) for place, one in enumerate(one_by_one) for _, *rest in reasons(one)]
    assert all(reason for _, _, _, reason in scanned.rejected)


@pytest.mark.parametrize("number", [b"\x80" * 11 + b"\1", b"\xff" * 19 + b"\1", b"\x86" + b"\x80" * 8 + b"\0"])
def test_a_number_with_too_many_bytes_is_refused(number: bytes) -> None:
    body = frame(SCAN, 1) + body_of(SCAN, any_event("item_scan", units=None))[:-1] + b"\2"
    scanned = scan(SCAN, [Envelope("0:0", {}, body + number, NOW), Envelope("0:1", {}, body + zigzag(3), NOW)], NOW)
    assert reasons(scanned) == [(0, "broken_bytes", "quarantine")]
    assert rows_of(scanned.events) == [any_event("item_scan", units=3)]


@pytest.mark.parametrize("units", [2**63 - 1, -(2**63)])
def test_the_largest_numbers_are_judged_by_the_rules(units: int) -> None:
    (rejected,) = scan_rows(any_event("item_scan", units=units)).rejected
    assert rejected.reason == f"units = {units} must be 1 to 10000"


def test_text_is_a_plain_column_of_strings() -> None:
    column = scan_rows(any_event("item_scan")).events.columns["store_id"]
    assert column.type == pa.string()
