"""Columns of container files against what fastavro reads, whatever looks like the beginning of a record."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import fastavro
import pyarrow as pa
import pytest
from support.receipts_factory import any_receipt

from connectors.files.avro_blocks import read_columns
from schemas.contracts import parsed, schema

TYPES = {
    "event_id": pa.string(),
    "customer_id": pa.string(),
    "batch_id": pa.string(),
    "outcome": pa.string(),
    "reason": pa.string(),
    "resent": pa.bool_(),
    "settled_at": pa.int64(),
}
HEX = "0123456789abcdef" * 2


def receipts(**changes: Any) -> list[dict[str, Any]]:
    return [
        {**any_receipt(event_id=f"{n:032x}", settled_at=n - 20)._asdict(), **(changes if n % 3 == 0 else {})}
        for n in range(40)
    ]


def write(path: Path, records: list[dict[str, Any]], codec: str = "null") -> None:
    with path.open("wb") as file:
        fastavro.writer(file, parsed(schema("receipt")), records, codec=codec, sync_interval=500)


def read(path: Path) -> tuple[list[dict[str, Any]], list[str]]:
    """The rows, and why the file was refused."""
    refused: list[str] = []
    tables = read_columns([str(path)], "receipt", TYPES, lambda _, error: refused.append(str(error)))
    return [row for table in tables for row in table.to_pylist()], refused


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"batch_id": None},
        {"batch_id": HEX},
        {"batch_id": HEX, "customer_id": HEX},
        {"customer_id": f"x@{HEX}"},
        {"customer_id": "Zoë 日本 🎉"},
        {"customer_id": "c" * 300, "reason": "long" * 40},
        {"event_id": "not-made-by-a-launch"},
        {"event_id": ""},
    ],
    ids=str,
)
@pytest.mark.parametrize("codec", ["null", "deflate"])
def test_the_columns_are_what_fastavro_reads(tmp_path: Path, changes: dict[str, Any], codec: str) -> None:
    records = receipts(**changes)
    write(tmp_path / "some.avro", records, codec)
    expected = [{name: record[name] for name in TYPES} for record in records]
    assert read(tmp_path / "some.avro") == (expected, [])


@pytest.mark.parametrize("records", [0, 1])
def test_bytes_that_no_record_has_are_refused(tmp_path: Path, records: int) -> None:
    path = tmp_path / "some.avro"
    write(path, receipts()[:1])
    data = path.read_bytes()
    sync, block = data[-16:], data[:-16].rpartition(data[-16:])[2]
    body = block[3:]  # behind one record and two bytes of length
    size = 2 * (len(body) + 4)
    head = bytes([2 * records, size & 127 | 128, size >> 7])
    path.write_bytes(data[: -16 - len(block)] + head + body + b"more" + sync)
    found, refused = read(path)
    assert not found
    assert len(refused) == 1
    assert "bytes are left" in refused[0]
