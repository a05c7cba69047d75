"""Publish requests built as columns, read back by Google's own classes."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest
from google.pubsub_v1 import PublishRequest as Real
from google.pubsub_v1 import PubsubMessage
from hypothesis import given
from hypothesis import strategies as st

from connectors.pubsub.publish_requests import MAX_BYTES, Requests, publish_requests, pubsub_messages
from schemas.contracts import ContractError

TOPIC = "projects/project-1/topics/events"


def requests(bodies: list[bytes], attributes: dict[str, Any] | None = None) -> Requests:
    messages = pubsub_messages(pa.array(bodies, pa.large_binary()), attributes or {})
    made = publish_requests(TOPIC, messages)
    return Requests(made.requests, [*messages.refused, *made.refused])


def read(made: Requests) -> list[PubsubMessage]:
    """Every message, in order, as Google's classes read it; each request must fit Pub/Sub."""
    out = []
    for request in made.requests:
        real = Real.deserialize(request.payload())
        assert real.topic == TOPIC
        assert len(real.messages) <= 1_000
        assert len(request.payload()) <= 10_000_000
        out += real.messages
    return out


texts = st.none() | st.text(max_size=40) | st.sampled_from(["a" * 127, "b" * 128, "c" * 1024])
rows = st.lists(st.tuples(st.binary(max_size=300), texts, texts), max_size=40)


@given(rows, st.text(max_size=30))
def test_any_messages_are_read_back_as_they_were(rows: list[Any], constant: str) -> None:
    bodies = [row[0] for row in rows]
    plain, other = (pa.array([row[i] for row in rows], pa.string()) for i in (1, 2))
    attributes = {"id": plain, "retailer": other.dictionary_encode(), "é": constant}
    got = read(requests(bodies, attributes))
    expected = [
        PubsubMessage(
            data=body,
            attributes={k: v for k, v in {"id": a, "retailer": b, "é": constant}.items() if v is not None},
        )
        for body, a, b in rows
    ]
    assert got == expected


def test_a_batch_is_cut_at_a_thousand_messages_and_keeps_its_rows() -> None:
    made = requests([str(i).encode() for i in range(2_500)])
    assert [(r.first_row, len(r.framed)) for r in made.requests] == [(0, 1000), (1000, 1000), (2000, 500)]
    assert [m.data for m in read(made)] == [str(i).encode() for i in range(2_500)]


def test_a_batch_is_cut_before_ten_million_bytes() -> None:
    bodies = [bytes([i]) * 3_000_000 for i in range(7)]
    made = requests(bodies)
    assert [len(r.framed) for r in made.requests] == [3, 3, 1]
    assert [m.data for m in read(made)] == bodies


def test_the_largest_message_that_fits_is_sent_and_a_byte_more_is_refused_alone() -> None:
    room = MAX_BYTES - len(requests([b"x"]).requests[0].payload()) + 1 - 6
    made = requests([b"a", b"x" * room, b"b", b"x" * (room + 1), b"c"])
    assert [len(m.data) for m in read(made)] == [1, room, 1, 1]
    assert max(len(r.payload()) for r in made.requests) == MAX_BYTES
    assert [(one.row, one.code) for one in made.refused] == [(3, "TOO_LARGE")]


def test_an_attribute_over_1024_bytes_refuses_its_row_only() -> None:
    names = pa.array(["ok", "é" * 513, None, "k" * 1025])
    made = requests([b"0", b"1", b"2", b"3"], {"name": names.dictionary_encode()})
    assert [(one.row, one.code) for one in made.refused] == [(1, "ATTRIBUTE_TOO_LONG"), (3, "ATTRIBUTE_TOO_LONG")]
    assert "1,026 bytes" in made.refused[0].detail
    assert [m.data for m in read(made)] == [b"0", b"2"]


def test_a_message_refused_twice_is_named_once() -> None:
    made = requests([b"x" * 10_000_001], {"name": pa.array(["y" * 2000])})
    assert [(one.row, one.code) for one in made.refused] == [(0, "TOO_LARGE")]
    assert made.requests == []


def test_halves_hold_the_same_messages_down_to_single_ones() -> None:
    parts = requests([b"0", b"1", b"2", b"3", b"4"], {"a": pa.array(["x", "y" * 2000, "x", "x", "x"])}).requests
    while any(len(part.framed) > 1 for part in parts):
        parts = [half for part in parts for half in (part.halves() if len(part.framed) > 1 else [part])]
    assert [(part.first_row, Real.deserialize(part.payload()).messages[0].data) for part in parts] == [
        (0, b"0"),
        (2, b"2"),
        (3, b"3"),
        (4, b"4"),
    ]


def test_no_messages_make_no_request() -> None:
    assert requests([]) == ([], [])


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({f"a{i}": "x" for i in range(101)}, "101 of them"),
        ({"googclient_x": "x"}, "no attribute's name"),
        ({"k" * 257: "x"}, "no attribute's name"),
        ({"a": "x" * 1025}, "a: 1025 bytes"),
        ({"a": pa.array([1, 2])}, "a: int64 is no text"),
        ({"a": pa.array(["x"])}, "a: 1 values for 2 rows"),
    ],
)
def test_what_is_wrong_with_every_message_is_an_error(attributes: dict[str, Any], message: str) -> None:
    with pytest.raises(ContractError, match=message):
        requests([b"1", b"2"], attributes)


def test_a_null_body_is_an_error_that_names_its_row() -> None:
    with pytest.raises(ContractError, match="row 1: a message without a body"):
        pubsub_messages(pa.array([b"a", None]), {})
