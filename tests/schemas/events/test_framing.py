"""Every way in which a message can say what it is leads to one version and body."""

from __future__ import annotations

import pickle
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.raw_events import TYPES, any_event, body_of

from schemas.events.framing import Framed, Framing, SchemaVersion, frame
from schemas.transport import Envelope

ORDER = TYPES["order_line"]
FIRST = SchemaVersion("order_line", 1)
BODY = body_of(ORDER, any_event("order_line", 1))
GUID = UUID("89791762-2336-4186-9674-299b90a802e2")
FRAMING = Framing(TYPES, {42: FIRST}, {GUID: FIRST}, {"projects/p/schemas/orders@0a1b2c3d": FIRST})
PRINT = next(digits for digits, number in ORDER.fingerprints.items() if number == 1)
_MAGIC_GUID = b"\x01" + GUID.bytes
HEADER = _MAGIC_GUID.decode("utf-8", "backslashreplace")  # as connectors/kafka/reader.py gives it
REVISION = {
    "googclient_schemaname": "projects/p/schemas/orders",
    "googclient_schemarevisionid": "0a1b2c3d",
    "googclient_schemaencoding": "BINARY",
}
WAYS = {
    "our fingerprint": ({"schema": PRINT}, b""),
    "our frame": ({}, frame(ORDER, 1)),
    "our frame among foreign headers": ({"trace": "t"}, frame(ORDER, 1)),
    "a registry's id": ({}, b"\0\0\0\0\x2a"),
    "a registry's id that a reader could not resolve": ({"schema": "registry-42"}, b"\0\0\0\0\x2a"),
    "a GUID in a header": ({"__value_schema_id": HEADER}, b""),
    "an id in a header": ({"__value_schema_id": "\0\0\0\0\x2a"}, b""),
    "a GUID before the body": ({}, _MAGIC_GUID),
    "Avro's single-object encoding": ({}, b"\xc3\x01" + bytes.fromhex(PRINT)),
    "a revision": (REVISION, b""),
}


def read(attributes: dict[str, str], body: bytes) -> Framed:
    return FRAMING.read(Envelope("0:0", attributes, body, 0))


@pytest.mark.parametrize(("attributes", "start"), WAYS.values(), ids=WAYS)
def test_each_way_names_the_version_and_leaves_the_body(attributes: dict[str, str], start: bytes) -> None:
    assert read(attributes, start + BODY) == Framed(FIRST, BODY)


UNKNOWN = {
    "fingerprint '0123'": ({"schema": "0123"}, BODY),
    "id 7": ({}, b"\0\0\0\0\7" + BODY),
    f"GUID {UUID(int=5)}": ({}, b"\1" + UUID(int=5).bytes + BODY),
    "fingerprint 00": ({}, b"\xc3\x01" + bytes(8) + BODY),
    "revision '@ffffffff'": ({"googclient_schemarevisionid": "ffffffff"}, BODY),
    "encoding is 'JSON'": ({**REVISION, "googclient_schemaencoding": "JSON"}, b"{}"),
    "nothing names": ({}, b""),
    "names its schema": ({"__value_schema_id": "no id"}, BODY),
}


@pytest.mark.parametrize(("problem", "message"), UNKNOWN.items(), ids=UNKNOWN)
def test_what_names_no_version_keeps_its_bytes_and_says_why(
    problem: str, message: tuple[dict[str, str], bytes]
) -> None:
    found = read(*message)
    assert found.schema is None
    assert found.body == message[1]
    assert problem in found.problem


def test_what_finds_versions_can_be_sent_to_a_worker() -> None:
    again = pickle.loads(pickle.dumps(FRAMING))
    assert again.read(Envelope("0:0", {}, b"\0\0\0\0\x2a" + BODY, 0)) == Framed(FIRST, BODY)


def test_no_two_versions_have_one_frame() -> None:
    frames = {frame(one, number) for one in TYPES.values() for number in one.versions}
    assert len(frames) == sum(len(one.versions) for one in TYPES.values())


@given(
    st.dictionaries(
        st.sampled_from(
            [
                "schema",
                "googclient_schemaname",
                "__value_schema_id",
                "googclient_schemarevisionid",
                "googclient_schemaencoding",
            ]
        ),
        st.text(max_size=40) | st.sampled_from([PRINT, HEADER, "0a1b2c3d", "registry-1", "\ud800"]),
    ),
    st.binary(max_size=30) | st.sampled_from([frame(ORDER, 2) + BODY, b"\0", b"\1", b"\xc3\x01"]),
)
def test_no_message_makes_it_fail(attributes: dict[str, str], body: bytes) -> None:
    found = read(attributes, body)
    assert (found.schema is None) == bool(found.problem)
    assert body.endswith(found.body)
