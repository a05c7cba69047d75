from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import fastavro
import pyarrow as pa
import pytest

from connectors.tables.avro_files import AvroFiles
from connectors.tables.sources import Rejected
from schemas.problems import InputError


def read(*paths: Path) -> tuple[pa.Table, list[Rejected]]:
    files = AvroFiles(str(paths[0]), list(paths))
    rejected: list[Rejected] = []
    return pa.Table.from_batches(files.batches(rejected.append), files.schema), rejected


def any_avro(folder: Path, fields: list[Any], rows: list[Any], name: str = "customers.avro", **options: Any) -> Path:
    path = folder / name
    with path.open("wb") as file:
        fastavro.writer(file, {"type": "record", "name": "Customer", "fields": fields}, rows, **options)
    return path


ID = {"name": "id", "type": "string"}


def test_every_type_of_avro_arrives(tmp_path: Path) -> None:
    home = {"type": "record", "name": "Home", "fields": [{"name": "zip", "type": "string"}]}
    fields = [
        ID,
        {"name": "orders", "type": ["null", "int"]},
        {"name": "spend", "type": "double"},
        {"name": "ok", "type": "boolean"},
        {"name": "tier", "type": {"type": "enum", "name": "Tier", "symbols": ["a", "b"]}},
        {"name": "day", "type": {"type": "int", "logicalType": "date"}},
        {"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}},
        {"name": "ltv", "type": {"type": "bytes", "logicalType": "decimal", "precision": 10, "scale": 2}},
        {"name": "device", "type": {"type": "string", "logicalType": "uuid"}},
        {"name": "tags", "type": {"type": "array", "items": "string"}},
        {"name": "home", "type": home},
        {"name": "work", "type": ["null", "Home"]},
    ]
    row = {"id": "c1", "orders": None, "spend": 1.5, "ok": True, "tier": "b", "day": date(2026, 1, 2),
           "at": datetime(2026, 1, 2, 3, tzinfo=UTC), "ltv": Decimal("12.30"),
           "device": "12345678-1234-5678-1234-567812345678", "tags": ["x"], "home": {"zip": "01"},
           "work": {"zip": "02"}}  # fmt: skip
    table, rejected = read(any_avro(tmp_path, fields, [row], codec="deflate"))
    assert table.to_pylist() == [row]
    assert rejected == []


def test_a_record_that_cannot_be_decoded_is_rejected_and_the_others_are_read(tmp_path: Path) -> None:
    rows = [{"id": f"customer-{n:05d}"} for n in range(400)]
    path = any_avro(tmp_path, [ID], rows, sync_interval=1000)
    data = path.read_bytes()
    path.write_bytes(data.replace(b"customer-00123", b"customer-0\xff123"))
    table, rejected = read(path)
    assert {row.reason for row in rejected} == {"broken_record"}
    assert table.num_rows + len(rejected) == 400
    assert b"customer-0\xff123" in rejected[0].data
    read_ids = set(table["id"].to_pylist())
    assert "customer-00000" in read_ids
    assert "customer-00399" in read_ids


def test_a_file_that_breaks_off_is_refused(tmp_path: Path) -> None:
    path = any_avro(tmp_path, [ID], [{"id": f"c{n}"} for n in range(5000)], sync_interval=1000)
    path.write_bytes(path.read_bytes()[:-700])
    with pytest.raises(InputError, match="breaks off or is damaged"):
        read(path)


@pytest.mark.parametrize("data", [b"no avro at all", b"Obj\x01garbage"])
def test_what_is_no_avro_is_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "customers.avro").write_bytes(data)
    with pytest.raises(InputError, match="is no Avro container file"):
        read(tmp_path / "customers.avro")


def test_a_union_of_types_is_refused_by_name(tmp_path: Path) -> None:
    path = any_avro(tmp_path, [{"name": "x", "type": ["null", "int", "string"]}], [{"x": 1}])
    with pytest.raises(InputError, match="is a union of 2 types"):
        read(path)
