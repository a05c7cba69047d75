"""Avro container files: read by fastavro, whole or absent, the same on every run."""

from __future__ import annotations

import io
import os
import resource
import signal
from pathlib import Path
from typing import Any

import fastavro
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.files.sink import FileSink
from connectors.files.whole_file import _write_remote, write_whole
from schemas.codec.avro_columns import encode_records
from schemas.contracts import ContractError
from schemas.problems import JobError

AVRO = {"type": "record", "name": "R", "fields": [{"name": "a", "type": "string"}]}


def bodies(texts: list[str]) -> pa.Array:
    return encode_records(AVRO, {"a": pa.array(texts, pa.string())}, len(texts))


def read(path: str) -> list[str]:
    with open(path, "rb") as file:
        return [record["a"] for record in fastavro.reader(file)]


@given(st.lists(st.text(max_size=20), max_size=30), st.integers(0, 30))
def test_records_are_read_back_in_order(texts: list[str], start: int) -> None:
    chunks = FileSink("unused")._chunks("part-0", AVRO, bodies(texts).slice(start))
    file = io.BytesIO(b"".join(chunks))
    assert [record["a"] for record in fastavro.reader(file)] == texts[start:]


def test_large_parts_are_cut_into_blocks_and_a_large_record_stands_alone(tmp_path: Path) -> None:
    texts = ["x" * 100_000] * 50 + ["y" * 5_000_000] + ["z"] * 3
    path = FileSink(str(tmp_path)).write("part-0", AVRO, bodies(texts))
    assert read(path) == texts
    with open(path, "rb") as file:
        assert [block.num_records for block in fastavro.block_reader(file)] == [20, 20, 10, 1, 3]


def test_the_same_part_is_the_same_bytes_and_another_part_has_another_marker(tmp_path: Path) -> None:
    sink = FileSink(str(tmp_path / "new" / "folder"))
    first = Path(sink.write("part-0", AVRO, bodies(["a", "b"]))).read_bytes()
    assert Path(sink.write("part-0", AVRO, bodies(["a", "b"]))).read_bytes() == first
    assert Path(sink.write("part-1", AVRO, bodies(["a", "b"]))).read_bytes()[-16:] != first[-16:]
    assert sorted(os.listdir(sink.directory)) == ["part-0.avro", "part-1.avro"]


def test_a_file_that_fails_half_way_leaves_the_earlier_one_and_nothing_else(tmp_path: Path) -> None:
    path = FileSink(str(tmp_path)).write("part-0", AVRO, bodies(["kept"]))

    def failing() -> Any:
        yield b"some bytes"
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_whole(path, failing())
    assert os.listdir(tmp_path) == ["part-0.avro"]
    assert read(path) == ["kept"]


def test_a_file_that_finds_no_room_says_what_to_do(tmp_path: Path) -> None:
    limits, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000, limits[1]))
    try:
        with pytest.raises(JobError, match=r"part-0.avro could not be written .*File too large.* Raise the limit"):
            FileSink(str(tmp_path)).write("part-0", AVRO, bodies(["x" * 10_000]))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert os.listdir(tmp_path) == []


def test_a_folder_that_cannot_be_made_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(JobError, match=r"taken/part-0.avro could not be written .*See that the folder is there"):
        FileSink(str(tmp_path / "taken")).write("part-0", AVRO, bodies(["a"]))


def test_beam_file_systems_write_the_same_file(tmp_path: Path) -> None:
    path = str(tmp_path / "part-0.avro")
    for texts in (["first"], ["second", "one"]):
        _write_remote(path, FileSink(str(tmp_path))._chunks("part-0", AVRO, bodies(texts)))
        assert read(path) == texts
    assert os.listdir(tmp_path) == ["part-0.avro"]


def test_what_makes_no_part_is_refused(tmp_path: Path) -> None:
    sink = FileSink(str(tmp_path))
    with pytest.raises(ValueError, match="no name of a part"):
        sink.write("a/b", AVRO, bodies([]))
    with pytest.raises(ContractError, match="part-0, row 1: a record without a body"):
        sink.write("part-0", AVRO, pa.array([b"a", None]))
