"""The scan against fastavro: it vouches for nothing that fastavro reads otherwise."""

from __future__ import annotations

import io
import math
from typing import Any

import fastavro
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.codec.avro_scan import Scan
from schemas.contracts import ContractError, parsed, read_record, schema

EVENT = parsed(schema("campaign_event"))
WANTED = frozenset({"event_id", "customer_id", "vendor_campaign", "deliver_after", "expires_at"})
TEXT = st.text(max_size=30)
TIME = st.integers(-(2**40), 2**45) | st.integers(-2, 110)
OFFER = st.fixed_dictionaries(
    {
        "id": TEXT,
        "kind": st.sampled_from(["fixed", "unique_code", "code_list"]),
        "code": st.none() | TEXT,
        "value": st.none() | TEXT,
        "currency": st.none() | TEXT,
        "expires_at": st.none() | TIME,
    }
)
VALUE = st.none() | st.booleans() | st.integers(-(2**50), 2**50) | st.floats(allow_nan=False) | TEXT
EVENTS = st.fixed_dictionaries(
    {
        **dict.fromkeys(("event_id", "launch_id", "campaign_id", "campaign_version", "retailer_id", "trace"), TEXT),
        "surface": st.sampled_from(["marketplace", "storefront"]),
        **dict.fromkeys(("customer_id", "recipient", "channel"), TEXT),
        "vendor_campaign": st.none() | TEXT,
        "experiment": st.none()
        | st.fixed_dictionaries(
            {"key": TEXT, "variant": st.none() | TEXT, "bucket": st.none() | st.floats(0, 1), "scheme": TEXT}
        ),
        "offers": st.lists(OFFER, max_size=3),
        "template": st.none() | TEXT,
        "properties": st.dictionaries(TEXT, VALUE, max_size=4),
        "deliver_after": TIME,
        "expires_at": st.none() | TIME,
        "emitted_at": TIME,
    }
)


def body(event: dict[str, Any]) -> bytes:
    """The Avro body."""
    out = io.BytesIO()
    fastavro.schemaless_writer(out, EVENT, event)
    return out.getvalue()


def agrees(scan: Scan, row: int, record: dict[str, Any]) -> bool:
    """Whether a row says what fastavro read."""
    texts = all(
        scan.texts(name)[row] == (record[name] or "") for name in ("event_id", "customer_id", "vendor_campaign")
    )
    expires = int(scan.numbers["expires_at"][row]) if "expires_at" in scan.numbers else 0
    present = bool(scan.present["expires_at"][row]) if "expires_at" in scan.present else True
    return (
        texts
        and int(scan.numbers["deliver_after"][row]) == record["deliver_after"]
        and (expires if present else None) == record["expires_at"]
    )


@given(st.lists(EVENTS, min_size=1, max_size=12))
@settings(deadline=None)
def test_every_sound_event_is_found_as_fastavro_reads_it(events: list[dict[str, Any]]) -> None:
    bodies = [body(event) for event in events]
    scan = Scan(EVENT, bodies, WANTED)
    assert scan.sound.all()
    assert all(agrees(scan, row, read_record(EVENT, None, one)) for row, one in enumerate(bodies))


@given(st.lists(EVENTS, min_size=2, max_size=5), st.data())
@settings(deadline=None, max_examples=300)
def test_of_broken_bytes_it_vouches_only_for_what_fastavro_reads(
    events: list[dict[str, Any]], data: st.DataObject
) -> None:
    bodies = [body(event) for event in events]
    for _ in range(data.draw(st.integers(1, 3))):
        row = data.draw(st.integers(0, len(bodies) - 1))
        broken = bytearray(bodies[row])
        for _ in range(data.draw(st.integers(0, 4))):
            if broken:
                broken[data.draw(st.integers(0, len(broken) - 1))] = data.draw(st.integers(0, 255))
        cut = data.draw(st.integers(0, len(broken)))
        bodies[row] = (
            bytes(broken[:cut]) if data.draw(st.booleans()) else bytes(broken) + data.draw(st.binary(max_size=3))
        )
    scan = Scan(EVENT, bodies, WANTED)
    for row, one in enumerate(bodies):
        try:
            record = read_record(EVENT, None, one)
        except ContractError:
            assert not scan.sound[row]
            continue
        assert not scan.sound[row] or agrees(scan, row, record)


@given(st.lists(st.binary(max_size=60), max_size=8))
@settings(deadline=None)
def test_no_bytes_at_all_make_it_fail(bodies: list[bytes]) -> None:
    scan = Scan(EVENT, bodies, WANTED)
    assert scan.sound.dtype == np.bool_
    assert len(scan.sound) == len(bodies)


@pytest.mark.parametrize("text", ["naïve", "日本", "🎉", "plain"])
def test_text_beyond_ascii_is_found(text: str) -> None:
    events = [{**_plain(), "customer_id": text}, _plain()]
    scan = Scan(EVENT, [body(event) for event in events], WANTED)
    assert scan.sound.all()
    assert scan.texts("customer_id")[0] == text


def test_text_that_is_not_utf8_is_not_vouched_for() -> None:
    broken = body({**_plain(), "recipient": "xxx@"}).replace(b"xxx@", b"\xff\xfe\xfd@")
    assert Scan(EVENT, [broken, body(_plain())], WANTED).sound.tolist() == [False, True]


def _plain() -> dict[str, Any]:
    return {
        **dict.fromkeys(("event_id", "launch_id", "campaign_id", "campaign_version", "retailer_id", "trace"), "a"),
        **dict.fromkeys(("customer_id", "recipient", "channel"), "b"),
        "surface": "storefront",
        "deliver_after": 1,
        "emitted_at": 2,
    }


LIMITS = {"emitted_at": (0, 100), "offers[].expires_at": (5, 50)}


@given(st.lists(EVENTS, min_size=1, max_size=8))
@settings(deadline=None, max_examples=200)
def test_an_event_is_sound_only_when_its_numbers_are_within_their_limits_and_finite(
    events: list[dict[str, Any]],
) -> None:
    scan = Scan(EVENT, [body(event) for event in events], WANTED, LIMITS, finite=True)
    assert scan.sound.tolist() == [_fits(event) for event in events]
    assert scan.filled(["event_id", "customer_id"]).tolist() == [
        bool(event["event_id"] and event["customer_id"]) for event in events
    ]


def _fits(event: dict[str, Any]) -> bool:
    offers = [offer["expires_at"] for offer in event["offers"] if offer["expires_at"] is not None]
    numbers = [one for one in event["properties"].values() if isinstance(one, float)]
    return (
        0 <= event["emitted_at"] <= 100 and all(5 <= one <= 50 for one in offers) and all(map(math.isfinite, numbers))
    )


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_a_number_that_is_none_is_not_vouched_for_where_it_matters(number: float) -> None:
    some = [body({**_plain(), "properties": {"a": 1.5, "b": one}}) for one in (1e308, number, -5e-324)]
    assert Scan(EVENT, some, WANTED).sound.tolist() == [True] * 3
    assert Scan(EVENT, some, WANTED, finite=True).sound.tolist() == [True, False, True]


FLAT = parsed(
    {
        "type": "record",
        "name": "Flat",
        "fields": [
            {"name": "id", "type": "string"},
            {"name": "real", "type": "double"},
            {"name": "maybe_real", "type": ["null", "double"]},
            {"name": "short", "type": ["float", "null"]},
            {"name": "flag", "type": "boolean"},
            {"name": "maybe_flag", "type": ["null", "boolean"]},
            {"name": "maybe", "type": ["null", "long"]},
            {"name": "note", "type": ["null", "string"]},
        ],
    }
)
FLAT_ROWS = st.fixed_dictionaries(
    {
        "id": TEXT,
        "real": st.floats(),
        "maybe_real": st.none() | st.floats(),
        "short": st.none() | st.floats(width=32),
        "flag": st.booleans(),
        "maybe_flag": st.none() | st.booleans(),
        "maybe": st.none() | st.integers(-(2**62) + 1, 2**62 - 1),
        "note": st.none() | TEXT,
    }
)


@given(st.lists(FLAT_ROWS, min_size=1, max_size=8))
@settings(deadline=None)
def test_every_kind_of_column_is_what_was_written(rows: list[dict[str, Any]]) -> None:
    bodies = []
    for row in rows:
        out = io.BytesIO()
        fastavro.schemaless_writer(out, FLAT, row)
        bodies.append(out.getvalue())
    scan = Scan(FLAT, bodies, frozenset(rows[0]))
    assert scan.sound.all()
    for name in ("real", "maybe_real", "short", "flag", "maybe_flag", "maybe"):
        columns = scan.reals if name in ("real", "maybe_real", "short") else scan.numbers
        values = columns.get(name, np.zeros(len(rows)))
        present = scan.present.get(name, np.ones(len(rows), bool))
        for row, value, there in zip(rows, values.tolist(), present.tolist(), strict=True):
            said = row[name]
            assert there == (said is not None)
            assert value == (said or 0) or (math.isnan(value) and math.isnan(said))
    assert scan.array("note").to_pylist() == [row["note"] for row in rows]
