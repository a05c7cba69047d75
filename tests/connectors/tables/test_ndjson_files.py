import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from connectors.tables.ndjson_files import NdjsonFiles
from connectors.tables.sources import Rejected
from schemas.problems import InputError


def read(*paths: Path) -> tuple[pa.Table, list[Rejected]]:
    files = NdjsonFiles(str(paths[0]), list(paths))
    rejected: list[Rejected] = []
    return pa.Table.from_batches(files.batches(rejected.append), files.schema), rejected


def any_ndjson(folder: Path, *lines: Any, name: str = "customers.ndjson") -> Path:
    path = folder / name
    data = b"\n".join(line if isinstance(line, bytes) else json.dumps(line).encode() for line in lines) + b"\n"
    path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    return path


def test_a_column_for_every_key_also_when_it_comes_late(tmp_path: Path) -> None:
    lines = [{"id": f"c{n}", "orders": n, "tags": ["a"], "home": {"zip": "01"}} for n in range(20_500)]
    table, rejected = read(any_ndjson(tmp_path, *lines, {"id": "late", "spend": 1.5, "ok": True}))
    kinds = {field.name: field.type for field in table.schema}
    assert kinds["id"] == pa.string()
    assert kinds["orders"] == pa.int64()
    assert kinds["spend"] == pa.float64()
    assert kinds["ok"] == pa.bool_()
    assert pa.types.is_list(kinds["tags"])
    assert table.to_pylist()[-1]["spend"] == 1.5
    assert table.to_pylist()[0] == {**lines[0], "spend": None, "ok": None}
    assert rejected == []


def test_whole_numbers_become_decimals_when_a_fraction_comes_late(tmp_path: Path) -> None:
    table, rejected = read(any_ndjson(tmp_path, *[{"x": n} for n in range(20_500)], {"x": 0.5}))
    assert table.schema.field("x").type == pa.float64()
    assert (table.num_rows, rejected) == (20_501, [])


@pytest.mark.parametrize("name", ["customers.ndjson", "customers.ndjson.gz"])
def test_broken_lines_are_rejected_with_their_bytes_and_their_line(tmp_path: Path, name: str) -> None:
    good = [{"id": f"c{n}", "spend": n + 0.5} for n in range(50)]
    bad = [b"not json", b'{"id": "u\xff"}', b'{"id": "w", "spend": "many"}', b"[1, 2]", b'{"id": "a"} {"id": "b"}']
    table, rejected = read(any_ndjson(tmp_path, *good, bad[0], b"", *good, *bad[1:], *good, name=name))
    assert [row.data for row in rejected] == bad
    reasons = ["broken_json", "broken_text", "wrong_type", "broken_json", "broken_json"]
    assert [row.reason for row in rejected] == reasons
    assert [row.source.rsplit(" ", 1)[1] for row in rejected] == ["51", "103", "104", "105", "106"]
    assert "column spend" in rejected[2].detail
    assert table.num_rows == 150


def test_text_that_looks_like_a_time_stays_text_everywhere(tmp_path: Path) -> None:
    table, rejected = read(any_ndjson(tmp_path, {"at": "2026-01-01T00:00:00"}, {"at": "soon"}))
    assert table["at"].to_pylist() == ["2026-01-01T00:00:00", "soon"]
    assert rejected == []


def test_a_value_of_ten_megabytes_is_read(tmp_path: Path) -> None:
    table, _ = read(any_ndjson(tmp_path, {"id": "1", "x": "y" * 10_000_000}, {"id": "2", "x": "z"}))
    assert [len(value) for value in table["x"].to_pylist()] == [10_000_000, 1]


def test_a_file_without_a_line_end_at_its_end_and_with_a_mark_at_its_start(tmp_path: Path) -> None:
    path = tmp_path / "customers.ndjson"
    path.write_bytes(b'\xef\xbb\xbf{"id": 1}\r\n{"id": 2}')
    assert read(path)[0].to_pylist() == [{"id": 1}, {"id": 2}]


def test_a_json_array_is_refused_with_what_to_write(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="write one object a line"):
        read(any_ndjson(tmp_path, [{"id": 1}, {"id": 2}]))


def test_a_line_over_the_limit_is_refused_by_its_number(tmp_path: Path) -> None:
    path = any_ndjson(tmp_path, {"id": "1"}, {"id": "2", "x": "y" * (65 << 20)})
    with pytest.raises(InputError, match="line 2 is longer than 64 MB"):
        read(path)
