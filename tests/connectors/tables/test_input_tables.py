"""Each table that a person gives, in each form: the same rows, or the same refusal."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import fastavro
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from connectors.inputs.histories import read_histories
from connectors.inputs.lists import read_codes, read_list
from connectors.inputs.signals import read_signal_rows
from connectors.inputs.sticky import check_sticky, read_sticky
from schemas.problems import InputError
from stores.launches.snapshot import parts, read_part, rejected_by_reason, take_snapshot


class Kind(NamedTuple):
    """A kind of table: its columns and rows as they are written, how it is read, and what comes out."""

    rows: list[dict[str, str]]
    read: Callable[[Path], Any]
    comes_out: Any


def read_customers(path: Path) -> list[dict[str, Any]]:
    snapshot = take_snapshot(str(path), path.parent / "launch", {"customer_id", "retailer_id"})
    assert rejected_by_reason(snapshot) == {}
    return [
        row for part in parts(snapshot) for batch in read_part(part, snapshot.schema.names) for row in batch.to_pylist()
    ]


def read_history(path: Path) -> list[dict[str, Any]]:
    (table,) = read_histories([str(path)], ["retailer_id", "customer_id"])
    return list(table.to_pylist())


def read_assignments(path: Path) -> list[dict[str, Any]]:
    check_sticky(path)
    return list(read_sticky(path).to_pylist())


NINE = 1_767_258_000_000
"""2026-01-01T09:00Z."""
KINDS = {
    "customers": Kind(
        rows=[{"customer_id": "007", "retailer_id": "é"}, {"customer_id": "1.10", "retailer_id": "b,c"}],
        read=read_customers,
        comes_out=[{"customer_id": "007", "retailer_id": "é"}, {"customer_id": "1.10", "retailer_id": "b,c"}],
    ),
    "a list": Kind(
        rows=[{"customer_id": "007", "since": "é"}, {"customer_id": "1.10", "since": "b,c"}],
        read=lambda path: read_list(path, "customer_id").to_pylist(),
        comes_out=["007", "1.10"],
    ),
    "codes": Kind(
        rows=[{"code": "007", "value": "é"}, {"code": "1.10", "value": "b,c"}],
        read=lambda path: read_codes(path).to_pylist(),
        comes_out=["007", "1.10"],
    ),
    "a history": Kind(
        rows=[
            {"customer_id": "007", "retailer_id": "é", "channel": "sms", "sent_at": "2026-01-01T09:00:00"},
            {"customer_id": "1.10", "retailer_id": "b,c", "channel": "sms", "sent_at": "2026-01-01T11:00:00+02:00"},
        ],
        read=read_history,
        comes_out=[
            {"retailer": "é", "customer": "007", "channel": "sms", "sent_at": NINE},
            {"retailer": "b,c", "customer": "1.10", "channel": "sms", "sent_at": NINE},
        ],
    ),
    "sticky assignments": Kind(
        rows=[
            {"experiment": "é", "unit": "007", "variant": "a", "bucket_version": "1"},
            {"experiment": "b,c", "unit": "1.10", "variant": "b", "bucket_version": "2"},
        ],
        read=read_assignments,
        comes_out=[
            {"experiment": "é", "unit": "007", "variant": "a", "bucket_version": 1},
            {"experiment": "b,c", "unit": "1.10", "variant": "b", "bucket_version": 2},
        ],
    ),
    "signals": Kind(
        rows=[
            {"date": "2026-04-01", "retailer_id": "é", "sent": "10", "bounced": "1", "complained": "0"},
            {"date": "2026-04-01", "retailer_id": "b,c", "sent": "10", "bounced": "1", "complained": "0"},
        ],
        read=lambda path: read_signal_rows(path, path.name, ["date", "retailer_id", "sent", "bounced", "complained"])[
            0
        ],
        comes_out=[
            {"date": "2026-04-01", "retailer_id": "é", "sent": "10", "bounced": "1", "complained": "0"},
            {"date": "2026-04-01", "retailer_id": "b,c", "sent": "10", "bounced": "1", "complained": "0"},
        ],
    ),
}


def csv_of(rows: list[dict[str, str]], separator: str = ",", end: str = "\n") -> str:
    """The rows as CSV, every field in quotes but the header's."""
    lines = [separator.join(rows[0]), *(separator.join(f'"{value}"' for value in row.values()) for row in rows)]
    return "".join(line + end for line in lines)


def parquet_of(rows: list[dict[str, str]], path: Path) -> None:
    pq.write_table(pa.Table.from_pylist(rows), path)


def avro_of(rows: list[dict[str, str]], path: Path) -> None:
    fields = [{"name": name, "type": "string"} for name in rows[0]]
    with path.open("wb") as file:
        fastavro.writer(file, {"type": "record", "name": "Row", "fields": fields}, rows)


def text_form(encode: Callable[[list[dict[str, str]]], bytes]) -> Callable[[list[dict[str, str]], Path], None]:
    def write(rows: list[dict[str, str]], path: Path) -> None:
        path.write_bytes(encode(rows))

    return write


def ndjson_of(rows: list[dict[str, str]]) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


FORMS: dict[str, tuple[str, Callable[[list[dict[str, str]], Path], None]]] = {
    "commas": ("t.csv", text_form(lambda rows: csv_of(rows).encode())),
    "semicolons": ("t.csv", text_form(lambda rows: csv_of(rows, ";").encode())),
    "tabs": ("t.csv", text_form(lambda rows: csv_of(rows, "\t").encode())),
    "bars": ("t.csv", text_form(lambda rows: csv_of(rows, "|").encode())),
    "a mark of UTF-8": ("t.csv", text_form(lambda rows: csv_of(rows).encode("utf-8-sig"))),
    "UTF-16, little end first": ("t.csv", text_form(lambda rows: b"\xff\xfe" + csv_of(rows).encode("utf-16-le"))),
    "UTF-16, big end first": ("t.csv", text_form(lambda rows: b"\xfe\xff" + csv_of(rows, ";").encode("utf-16-be"))),
    "line ends of Windows": ("t.csv", text_form(lambda rows: csv_of(rows, end="\r\n").encode())),
    "carriage returns": ("t.csv", text_form(lambda rows: csv_of(rows, end="\r").encode())),
    "UTF-16 and carriage returns": ("t.csv", text_form(lambda rows: csv_of(rows, end="\r").encode("utf-16"))),
    "gzip": ("t.csv.gz", text_form(lambda rows: gzip.compress(csv_of(rows).encode()))),
    "gzip without its ending": ("t.csv", text_form(lambda rows: gzip.compress(csv_of(rows).encode("utf-16")))),
    "NDJSON": ("t.ndjson", text_form(ndjson_of)),
    "NDJSON in UTF-16": ("t.jsonl", text_form(lambda rows: ndjson_of(rows).decode().encode("utf-16"))),
    "NDJSON packed": ("t.ndjson.gz", text_form(lambda rows: gzip.compress(ndjson_of(rows)))),
    "Parquet": ("t.parquet", parquet_of),
    "Avro": ("t.avro", avro_of),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("form", FORMS)
def test_the_same_rows_come_out_of(tmp_path: Path, kind: str, form: str) -> None:
    name, write = FORMS[form]
    write(KINDS[kind].rows, tmp_path / name)
    assert KINDS[kind].read(tmp_path / name) == KINDS[kind].comes_out


def cut(data: bytes) -> bytes:
    return gzip.compress(data * 1_000)[:-20]


REFUSED: dict[str, tuple[str, Callable[[list[dict[str, str]]], bytes], str]] = {
    "nothing": ("t.csv", lambda rows: b"", r"is empty"),
    "empty lines": ("t.csv", lambda rows: b"\n\n", r"is empty"),
    "UTF-16 without a mark": ("t.csv", lambda rows: csv_of(rows).encode("utf-16-le"), r"zero byte at byte 2\)"),
    "UTF-32": ("t.csv", lambda rows: csv_of(rows).encode("utf-32"), r"zero byte at byte 3\)"),
    "Latin 1 in the header": ("t.csv", lambda rows: b"\xe9," + csv_of(rows).encode(), r"not UTF-8 \(byte 1\)"),
    "half a letter of UTF-16": (
        "t.csv",
        lambda rows: csv_of(rows).encode("utf-16")[:-1],
        r"breaks off within a letter",
    ),
    "a gzip file that breaks off": ("t.csv.gz", lambda rows: cut(csv_of(rows).encode()), r"breaks off or is damaged"),
    "NDJSON whose gzip breaks off": ("t.ndjson.gz", lambda rows: cut(ndjson_of(rows)), r"breaks off or is damaged"),
    "a false gzip": ("t.csv.gz", lambda rows: csv_of(rows).encode(), r"not packed by gzip though its name says so"),
    "an empty first line": ("t.csv", lambda rows: b"\n" + csv_of(rows).encode(), r"line 1 is empty"),
    "a carriage return in the header": ("t.csv", lambda rows: b"\r" + csv_of(rows).encode(), r"line 1 cannot be read"),
    "mixed line ends": (
        "t.csv",
        lambda rows: csv_of(rows).encode() + b"a\rb\n",
        r"line 4 does not end as those before",
    ),
    "an open quote": ("t.csv", lambda rows: csv_of(rows).encode() + b'"open\n' * 3, r"quote"),
    "a workbook": ("t.csv", lambda rows: b"PK\x03\x04" + bytes(100), r"a workbook of Excel"),
    "Parquet by another name": ("t.csv", lambda rows: b"PAR1" + bytes(100), r"is a Parquet file; name it .parquet"),
    "no Parquet": ("t.parquet", lambda rows: csv_of(rows).encode(), r"is not a whole Parquet file"),
    "no Avro": ("t.avro", lambda rows: csv_of(rows).encode(), r"is no Avro container file"),
    "a list of JSON": (
        "t.ndjson",
        lambda rows: json.dumps(rows).encode(),
        r"is one JSON list; write one object a line",
    ),
    "a list of JSON over lines": ("t.ndjson", lambda rows: json.dumps(rows, indent=1).encode(), r"is one JSON list"),
    "two columns of one name": (
        "t.csv",
        lambda rows: csv_of([{**r, "X": "", "x": ""} for r in rows]).encode(),
        "two columns",
    ),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("case", REFUSED)
def test_every_table_is_refused_for(tmp_path: Path, kind: str, case: str) -> None:
    name, make, expected = REFUSED[case]
    (tmp_path / name).write_bytes(make(KINDS[kind].rows))
    with pytest.raises(InputError, match=expected) as raised:
        KINDS[kind].read(tmp_path / name)
    assert all(problem.fix for problem in raised.value.problems)
    assert name in str(raised.value)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "customers"])
@pytest.mark.parametrize(
    ("row", "reason"), [(b"\xff\xfe", "broken_text"), (b'"a"b', "broken_quotes"), (b"1,2,3,4,5,6,7", "wrong_columns")]
)
def test_a_row_that_cannot_be_read_is_refused_with_its_line(tmp_path: Path, kind: str, row: bytes, reason: str) -> None:
    names = list(KINDS[kind].rows[0])
    data = csv_of(KINDS[kind].rows).encode() + b",".join([row, *[b"x"] * (len(names) - 1)]) + b"\n"
    (tmp_path / "t.csv").write_bytes(data)
    with pytest.raises(InputError) as raised:
        KINDS[kind].read(tmp_path / "t.csv")
    (problem,) = raised.value.problems
    assert (problem.line, problem.field) == (4, reason)


@pytest.mark.parametrize("kind", ["a history", "sticky assignments", "signals"])
@pytest.mark.parametrize("form", ["commas", "NDJSON", "Parquet", "Avro"])
def test_a_column_that_is_missing_is_named_with_those_there_are(tmp_path: Path, kind: str, form: str) -> None:
    name, write = FORMS[form]
    rows = KINDS[kind].rows
    gone = list(rows[0])[-1]
    write([{key: value for key, value in row.items() if key != gone} for row in rows], tmp_path / name)
    with pytest.raises(InputError) as raised:
        KINDS[kind].read(tmp_path / name)
    (problem,) = raised.value.problems
    assert (problem.field, problem.value) == (gone, "missing")
    assert f"the file has: {', '.join(list(rows[0])[:-1])}" in problem.fix


def test_deeply_nested_json_is_that_rows_mistake(tmp_path: Path) -> None:
    deep = '{"customer_id": "b", "x": ' + "[" * 100_000 + "]" * 100_000 + "}\n"
    (tmp_path / "t.ndjson").write_text('{"customer_id": "a"}\n' + deep)
    with pytest.raises(InputError, match=r"t\.ndjson:2  broken_json .*\n    has more than 100 objects and lists"):
        read_list(tmp_path / "t.ndjson", "customer_id")


TIMES: list[tuple[str, Any]] = [
    ("text", pa.array(["2026-01-01T09:00:00"])),
    ("text with blanks", pa.array([" 2026-01-01 09:00 "])),
    ("text of nanoseconds", pa.array(["2026-01-01T09:00:00.000123456"])),
    ("text with a zone", pa.array(["2026-01-01T11:00:00+0200"])),
    ("dictionaries of text", pa.array(["2026-01-01T09:00:00Z"]).dictionary_encode()),
    ("microseconds", pa.array([datetime(2026, 1, 1, 9, 0, 0, 123)], pa.timestamp("us"))),
    ("nanoseconds", pa.array([NINE * 1_000_000 + 1], pa.int64()).cast(pa.timestamp("ns"))),
    ("a zone", pa.array([datetime(2026, 1, 1, 9, tzinfo=UTC)], pa.timestamp("us", "Asia/Tokyo"))),
    ("seconds", pa.array([NINE // 1000], pa.int64()).cast(pa.timestamp("s"))),
]


@pytest.mark.parametrize("values", [row[1] for row in TIMES], ids=[row[0] for row in TIMES])
def test_a_history_takes_times_as(tmp_path: Path, values: pa.Array) -> None:
    table = pa.table({"customer_id": ["a"], "retailer_id": ["r"], "channel": ["sms"], "sent_at": values})
    pq.write_table(table, tmp_path / "t.parquet")
    assert [row["sent_at"] for row in read_history(tmp_path / "t.parquet")] == [NINE]


def test_a_day_is_its_first_moment(tmp_path: Path) -> None:
    for values in (pa.array(["2026-01-01"]), pa.array([date(2026, 1, 1)])):
        table = pa.table({"customer_id": ["a"], "retailer_id": ["r"], "channel": ["sms"], "sent_at": values})
        pq.write_table(table, tmp_path / "t.parquet")
        assert read_history(tmp_path / "t.parquet")[0]["sent_at"] == NINE - timedelta(hours=9) / timedelta(
            milliseconds=1
        )


NO_TIMES: list[tuple[str, Any, str]] = [
    ("a day that is none", ["2026-01-01", "2026-02-30"], r"sent_at = 2026-02-30\n    row 2: is no time"),
    ("a word", ["yesterday"], r"sent_at = yesterday\n    row 1: is no time"),
    ("nothing", pa.array([None], pa.timestamp("us")), r"row 1: is no time"),
    ("numbers", [NINE], r"sent_at = int64\n    must hold times"),
]


@pytest.mark.parametrize(("values", "expected"), [row[1:] for row in NO_TIMES], ids=[row[0] for row in NO_TIMES])
def test_a_history_is_refused_for(tmp_path: Path, values: Any, expected: str) -> None:
    n = len(values)
    table = pa.table({"customer_id": ["a"] * n, "retailer_id": ["r"] * n, "channel": ["sms"] * n, "sent_at": values})
    pq.write_table(table, tmp_path / "t.parquet")
    with pytest.raises(InputError, match=expected):
        read_history(tmp_path / "t.parquet")


def test_a_unit_with_two_assignments_is_refused(tmp_path: Path) -> None:
    row = {"experiment": "e", "unit": "7", "variant": "a", "bucket_version": 1}
    pq.write_table(pa.Table.from_pylist([row, {**row, "variant": "b"}]), tmp_path / "t.parquet")
    with pytest.raises(InputError, match=r"unit = 7\n    the unit has 2 assignments in the experiment e; keep one"):
        check_sticky(tmp_path / "t.parquet")


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"unit": None}, r"unit = \n    row 1: is empty"),
        ({"unit": 7.5}, r"unit = 7\.5\n    row 1: is no exact id"),
        ({"bucket_version": "one"}, r"bucket_version = one\n    row 1: is no whole number"),
        ({"unit": [1]}, r"unit = list"),
    ],
)
def test_sticky_assignments_are_refused_for(tmp_path: Path, changes: dict[str, Any], expected: str) -> None:
    row = {"experiment": "e", "unit": "7", "variant": "a", "bucket_version": 1, **changes}
    pq.write_table(pa.Table.from_pylist([row]), tmp_path / "t.parquet")
    with pytest.raises(InputError, match=expected):
        check_sticky(tmp_path / "t.parquet")
