"""The wire contracts: every released version decodes, today's schema is a lawful successor, errors teach."""

from __future__ import annotations

import copy
import io
import json
from pathlib import Path
from typing import Any

import fastavro
import pytest
from apache_beam import coders

from schemas.contracts import (
    ContractError,
    DeadLetter,
    decode,
    fingerprint,
    parsed,
    read_record,
    released,
    resolve,
    schema,
)

GOLDEN = Path(__file__).parents[1] / "golden"
VERSIONS = range(1, len(released()) + 1)


def golden(version: int) -> tuple[list[bytes], list[dict[str, Any]]]:
    """The bytes of a released version, one record a line in hex, and what they say."""
    lines = (GOLDEN / f"campaign_event_{version}.hex").read_text().split()
    return [bytes.fromhex(line) for line in lines], json.loads((GOLDEN / f"campaign_event_{version}.json").read_text())


def written(avro: Any, record: dict[str, Any]) -> bytes:
    buffer = io.BytesIO()
    fastavro.schemaless_writer(buffer, parsed(avro), record)
    return buffer.getvalue()


@pytest.mark.parametrize("version", VERSIONS)
def test_golden_bytes_of_every_released_version_decode(version: int) -> None:
    bodies, records = golden(version)
    writer = fingerprint(released()[version - 1])
    for body, record in zip(bodies, records, strict=True):
        assert record.items() <= decode(writer, body).items()


@pytest.mark.parametrize("version", VERSIONS)
def test_golden_records_are_written_again_byte_for_byte(version: int) -> None:
    bodies, records = golden(version)
    avro = released()[version - 1]
    assert [written(avro, record) for record in records] == bodies


def test_the_current_schema_is_the_newest_release_or_only_adds_fields_with_a_default() -> None:
    assert not breaks(released()[-1], schema("campaign_event"))


def breaks(old: Any, new: Any) -> list[str]:
    """What in a new record schema would keep readers from old bytes, or old readers from new ones."""
    before, now = ({f["name"]: f for f in avro["fields"]} for avro in (old, new))
    gone = [f"{name} is gone" for name in before if name not in now]
    changed = [f"{n} has another type" for n in before if n in now and before[n]["type"] != now[n]["type"]]
    return gone + changed + [f"{n} has no default" for n in now if n not in before and "default" not in now[n]]


def with_field(avro: dict[str, Any], **field: Any) -> dict[str, Any]:
    changed = copy.deepcopy(avro)
    changed["fields"].insert(3, field)
    return changed


def test_the_check_of_a_successor_sees_what_breaks() -> None:
    old = released()[0]
    assert not breaks(old, with_field(old, name="locale", type=["null", "string"], default=None))
    assert breaks(old, with_field(old, name="locale", type="string")) == ["locale has no default"]
    assert breaks(with_field(old, name="locale", type="string"), old) == ["locale is gone"]


def test_an_added_field_is_its_default_in_old_bytes_and_unseen_by_an_old_reader() -> None:
    old = released()[0]
    new = with_field(old, name="locale", type=["null", "string"], default=None)
    bodies, records = golden(1)
    body, record = bodies[0], records[0]
    assert read_record(parsed(old), parsed(new), body) == {**record, "locale": None}
    newer = written(new, {**record, "locale": "en"})
    assert read_record(parsed(new), parsed(old), newer) == record


def test_a_fingerprint_names_its_writers_schema() -> None:
    assert resolve("168d7a3aa0fe011c") == released()[0], "a released schema file is never edited"
    assert resolve(fingerprint("campaign_event")) == schema("campaign_event")
    assert len(bytes.fromhex(fingerprint("dead_letter"))) == 8


def test_the_fingerprint_does_not_change_with_documentation() -> None:
    documented = with_field(schema("dead_letter"), name="more", type="string", doc="one")
    assert fingerprint(documented) == fingerprint(with_field(schema("dead_letter"), name="more", type="string"))
    assert fingerprint(documented) != fingerprint("dead_letter")


def test_an_unknown_fingerprint_is_refused() -> None:
    with pytest.raises(ContractError, match="no version has the schema fingerprint '0000000000000000'"):
        decode("0" * 16, b"")


@pytest.mark.parametrize("spoil", [lambda b: b[:-1], lambda b: b + b"\0", lambda b: b"", lambda b: b"\xff" * 20])
def test_malformed_bytes_are_refused(spoil: Any) -> None:
    body = golden(1)[0][0]
    with pytest.raises(ContractError):
        decode(fingerprint("campaign_event"), spoil(body))


def test_a_dead_letter_has_the_fields_of_its_schema_and_is_a_beam_element() -> None:
    assert list(DeadLetter._fields) == [field["name"] for field in schema("dead_letter")["fields"]]
    coder = coders.registry.get_coder(DeadLetter)
    letter = DeadLetter("Decode", "malformed", "cut short", "topic", b"\0\xff", "t")
    assert coder.decode(coder.encode(letter)) == letter
