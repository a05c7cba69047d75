"""Files with records that are broken, or of somebody else: each becomes a dead letter with its own bytes, and the
others are read."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import fastavro
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.containers import SYNC, block, write_container
from support.wire_events import ARRIVED, MARK, body_of, wire_message

from connectors.files.reader import FileReader, read_envelopes
from schemas.contracts import DeadLetter
from schemas.delivery import Message
from schemas.problems import JobError
from schemas.transport import Envelope
from transforms.delivery import decode_events as decode

NO_TEXT = body_of(5, recipient="xxxx@").replace(b"xxxx@", b"\xff\xfe\xfd\xfc@")
NO_SYMBOL = body_of(6).replace(b"\x18" + b"0123456789ab" + b"\x02", b"\x18" + b"0123456789ab" + b"\x0c")
NO_BRANCH = body_of(7, vendor_campaign="vvv").replace(b"\x02\x06vvv", b"\x0c\x06vvv")


def numbers_and_letters(path: Path) -> tuple[list[int], list[DeadLetter]]:
    """The numbers of the events of a file, and its dead letters."""
    decoded = decode.read_envelopes(list(read_envelopes(str(path))), ARRIVED)
    numbers = [int(one.event_id, 16) for one in decoded if isinstance(one, Message)]
    return numbers, [one for one in decoded if isinstance(one, DeadLetter)]


@pytest.mark.parametrize("codec", ["null", "deflate"])
@pytest.mark.parametrize("bad", [NO_TEXT, NO_SYMBOL], ids=["no UTF-8", "an unknown symbol"])
def test_a_record_whose_end_can_be_found_costs_no_other(tmp_path: Path, bad: bytes, codec: str) -> None:
    path = write_container(tmp_path / "a.avro", [block(body_of(1), bad, body_of(2), codec=codec)], codec=codec)
    numbers, (letter,) = numbers_and_letters(path)
    assert numbers == [1, 2]
    assert (letter.reason, letter.data, letter.source) == ("broken_bytes", bad, "message a.avro:1")
    assert json.loads(letter.trace)["event_id"] in (f"{5:032x}", f"{6:032x}")


def test_of_a_record_whose_end_cannot_be_found_the_rest_of_its_block_is_one_letter(tmp_path: Path) -> None:
    blocks = [block(body_of(1), NO_BRANCH, body_of(2)), block(body_of(3), body_of(4))]
    numbers, (letter,) = numbers_and_letters(write_container(tmp_path / "a.avro", blocks))
    assert numbers == [1, 3, 4]
    assert (letter.reason, letter.data) == ("broken_bytes", NO_BRANCH + body_of(2))
    assert "the bytes from record 1 of a block of 3 on" in letter.detail
    assert json.loads(letter.trace) == {"schema": MARK}


def test_the_records_behind_a_broken_block_keep_their_numbers(tmp_path: Path) -> None:
    path = write_container(tmp_path / "a.avro", [block(NO_BRANCH, body_of(1), body_of(2)), block(body_of(3))])
    assert [envelope.message_id for envelope in read_envelopes(str(path))] == ["a.avro:0", "a.avro:3"]


def test_a_block_that_cannot_be_decompressed_is_one_letter(tmp_path: Path) -> None:
    blocks = [
        block(body_of(1), codec="deflate"),
        block(count=3, data=b"\xff" * 40),
        block(body_of(2), codec="deflate"),
    ]
    numbers, (letter,) = numbers_and_letters(write_container(tmp_path / "a.avro", blocks, codec="deflate"))
    assert numbers == [1, 2]
    assert (letter.reason, letter.data) == ("broken_bytes", b"\xff" * 40)
    assert "a block of 3 records that is no deflate" in letter.detail


@pytest.mark.parametrize(
    ("odd", "rest"),
    [
        (block(body_of(2), count=3), b""),
        (block(body_of(2), body_of(3), count=1), body_of(3)),
        (block(body_of(2), count=-5), body_of(2)),
        (block(body_of(2), count=0), body_of(2)),
    ],
    ids=["fewer", "more", "a negative number", "none"],
)
def test_a_block_with_other_records_than_it_says_shows_what_is_left(tmp_path: Path, odd: bytes, rest: bytes) -> None:
    numbers, (letter,) = numbers_and_letters(write_container(tmp_path / "a.avro", [odd, block(body_of(9))]))
    assert numbers == ([2, 9] if rest != body_of(2) else [9])
    assert (letter.reason, letter.data) == ("broken_bytes", rest)


def test_records_that_take_no_bytes_do_not_go_on_for_ever(tmp_path: Path) -> None:
    empty = {"type": "record", "name": "Nothing", "fields": []}
    path = write_container(tmp_path / "a.avro", [block(count=1 << 60)], empty)
    (letter,) = numbers_and_letters(path)[1]
    assert letter.data == b""


@pytest.mark.parametrize("codec", ["null", "deflate", "bzip2", "xz"])
def test_a_record_of_somebody_else_keeps_its_bytes_and_tells_its_schema(tmp_path: Path, codec: str) -> None:
    fields = [{"name": "event_id", "type": "string"}, {"name": "retailer_id", "type": "string"}]
    written = {"type": "record", "name": "Foreign", "fields": fields}
    records = [{"event_id": f"e-{number}", "retailer_id": "r"} for number in range(3)]
    with (tmp_path / "a.avro").open("wb") as file:
        fastavro.writer(file, written, records, codec=codec)
    _, letters = numbers_and_letters(tmp_path / "a.avro")
    assert [fastavro.schemaless_reader(io.BytesIO(letter.data), written, None) for letter in letters] == records
    for letter in letters:
        assert letter.reason == "unknown_schema"
        schema = letter.detail[letter.detail.index("written with the schema ") :].removeprefix(
            "written with the schema "
        )
        assert json.loads(schema)["name"] == "Foreign"


@pytest.mark.parametrize(("written", "values"), [("string", ["a", "b"]), (["null", "long"], [None, 7])], ids=str)
def test_values_that_are_no_records_are_dead_letters_too(tmp_path: Path, written: Any, values: list[Any]) -> None:
    with (tmp_path / "a.avro").open("wb") as file:
        fastavro.writer(file, written, values)
    _, letters = numbers_and_letters(tmp_path / "a.avro")
    assert [fastavro.schemaless_reader(io.BytesIO(letter.data), written, None) for letter in letters] == values
    assert all(json.dumps(written) in letter.detail for letter in letters)


def test_a_block_that_is_not_followed_by_the_files_marker_stops_at_the_file(tmp_path: Path) -> None:
    good = block(body_of(1))
    path = write_container(tmp_path / "a.avro", [good, good[: -len(SYNC)] + b"x" * len(SYNC), good])
    with pytest.raises(JobError, match=r"a\.avro cannot be read .*Take the file away, or write it again"):
        list(read_envelopes(str(path)))


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=40), st.integers(0, 200), st.integers(-3, 5))
def test_whatever_stands_in_a_block_the_next_one_is_read(
    tmp_path_factory: pytest.TempPathFactory, noise: bytes, at: int, count: int
) -> None:
    body = body_of(1)
    broken = body[:at] + noise + body[at + len(noise) :]
    blocks = [block(body_of(8)), block(count=count, data=body_of(2) + broken + body_of(3)), block(body_of(9))]
    path = write_container(tmp_path_factory.mktemp("files") / "a.avro", blocks)
    decoded = decode.read_envelopes(list(read_envelopes(str(path))), ARRIVED)
    assert (decoded[0], decoded[-1]) == (wire_message(8), wire_message(9))


def test_a_reader_goes_on_behind_what_is_broken(tmp_path: Path) -> None:
    write_container(tmp_path / "a.avro", [block(NO_BRANCH)])
    write_container(tmp_path / "b.avro", [block(body_of(1))])
    reader = FileReader(str(tmp_path))
    reader.open()
    envelopes: list[Envelope] = reader.poll(10).envelopes
    assert [one.message_id for one in envelopes] == ["a.avro:0", "b.avro:0"]


def test_a_file_whose_name_is_no_text_is_read(tmp_path: Path) -> None:
    path = write_container(tmp_path / "odd\udcff.avro", [block(body_of(1))])
    (one,) = read_envelopes(str(path))
    assert one.message_id == "odd\\udcff.avro:0"
