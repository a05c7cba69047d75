import gzip
from pathlib import Path

import pyarrow as pa
import pytest

from connectors.tables.csv_files import CsvFiles
from connectors.tables.sources import Rejected
from schemas.problems import InputError


def read(*paths: Path) -> tuple[pa.Table, list[Rejected]]:
    files = CsvFiles(str(paths[0]), list(paths))
    rejected: list[Rejected] = []
    return pa.Table.from_batches(files.batches(rejected.append), files.schema), rejected


def any_csv(folder: Path, text: str | bytes, name: str = "customers.csv") -> Path:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


TYPES = [
    ("whole numbers", ["1", "-20", ""], pa.int64()),
    ("decimals", ["1", "2.50", "-1e3"], pa.float64()),
    ("digits with a leading zero", ["01234", "99999"], pa.string()),
    ("digits with a plus", ["+15550100", "15550100"], pa.string()),
    ("ids of 22 digits", ["1234567890123456789012", "5"], pa.string()),
    ("hexadecimal, underscores and blanks", ["0x1F", "1_000"], pa.string()),
    ("true and false", ["true", "FALSE", ""], pa.bool_()),
    ("yes and no", ["yes", "no"], pa.string()),
    ("days", ["2026-01-31", "2026-02-01"], pa.date32()),
    ("times", ["2026-01-31 10:00:00", "2026-02-01T10:00:00.5"], pa.timestamp("us")),
    ("days and times", ["2026-01-31", "2026-02-01T10:00:00"], pa.timestamp("us")),
    ("times with a zone", ["2026-01-31T10:00:00+02:00", "2026-02-01T10:00:00Z"], pa.timestamp("us", "UTC")),
    ("words and numbers", ["abc", "1"], pa.string()),
    ("nothing", ["", ""], pa.string()),
]


@pytest.mark.parametrize(("values", "kind"), [row[1:] for row in TYPES], ids=[row[0] for row in TYPES])
def test_a_column_has_the_type_that_loses_nothing_of(tmp_path: Path, values: list[str], kind: pa.DataType) -> None:
    table, rejected = read(any_csv(tmp_path, "id,x\n" + "".join(f"c{n},{v}\n" for n, v in enumerate(values))))
    assert table.schema.field("x").type == kind
    assert rejected == []
    assert table.num_rows == len(values)
    if kind == pa.string():
        assert table["x"].to_pylist() == [value or None for value in values]


def test_a_time_with_an_offset_is_the_right_moment(tmp_path: Path) -> None:
    table, _ = read(any_csv(tmp_path, "id,at\n1,2026-01-31T10:00:00+02:00\n"))
    assert table["at"].cast(pa.string()).to_pylist() == ["2026-01-31 08:00:00.000000Z"]


LATER = [
    ("a leading zero makes it text", "5", "007", pa.string(), 0),
    ("a fraction makes it decimal", "5", "7.5", pa.float64(), 0),
    ("a word is that row's mistake", "5", "seven", pa.int64(), 1),
    ("a time makes days times", "2026-01-01", "2026-01-02 10:00", pa.timestamp("us"), 0),
    ("a first value gives the type", "", "7", pa.int64(), 0),
    ("a word in a text is fine", "a", "5", pa.string(), 0),
]


@pytest.mark.parametrize(("early", "late", "kind", "refused"), [r[1:] for r in LATER], ids=[r[0] for r in LATER])
def test_after_the_sample(tmp_path: Path, early: str, late: str, kind: pa.DataType, refused: int) -> None:
    rows = "".join(f"c{n},{early}\n" for n in range(20_480))
    table, rejected = read(any_csv(tmp_path, f"id,x\n{rows}late,{late}\n"))
    assert table.schema.field("x").type == kind
    assert len(rejected) == refused
    assert table.num_rows + len(rejected) == 20_481
    if kind == pa.string():
        assert table["x"].to_pylist()[-1] == late


BROKEN = (
    b'id,name,spend\nok-1,"Ann, ""the"" one",1\nshort,x\nlong,x,1,2,3\nok-2,"two\nlines",2\n'
    b"utf,\xff\xfe,1\nword,x,many\nok-3,plain,3\n"
)


@pytest.mark.parametrize("variant", ["plain", "bom", "crlf", "gz"])
def test_broken_rows_are_rejected_with_their_bytes_and_their_line(tmp_path: Path, variant: str) -> None:
    data = {"bom": b"\xef\xbb\xbf" + BROKEN, "crlf": BROKEN.replace(b"\n", b"\r\n")}.get(variant, BROKEN)
    name = "customers.csv.gz" if variant == "gz" else "customers.csv"
    rows = "".join(f"filler-{n},x,{n}\n" for n in range(20_480)).encode()
    end = b"\r\n" if variant == "crlf" else b"\n"
    head, _, rest = data.partition(end)
    data = head + end + rows.replace(b"\n", end) + rest
    table, rejected = read(any_csv(tmp_path, gzip.compress(data) if variant == "gz" else data, name))
    assert [(row.reason, row.data) for row in rejected] == [
        ("wrong_columns", b"short,x"),
        ("wrong_columns", b"long,x,1,2,3"),
        ("broken_text", b"utf,\xff\xfe,1"),
        ("wrong_type", b"word,x,many"),
    ]
    lines = data.split(end)
    assert [lines[int(row.source.rsplit(" ", 1)[1]) - 1] for row in rejected] == [row.data for row in rejected]
    assert "column spend" in rejected[3].detail
    assert table.num_rows + len(rejected) == 20_480 + 7
    assert table["name"].to_pylist()[-3:] == ['Ann, "the" one', f"two{end.decode()}lines", "plain"]


@pytest.mark.parametrize("delimiter", [",", ";", "|", "\t"])
def test_the_delimiter_is_the_one_in_the_first_line(tmp_path: Path, delimiter: str) -> None:
    table, _ = read(any_csv(tmp_path, f"id{delimiter}x\n1{delimiter}a\n"))
    assert table.to_pylist() == [{"id": 1, "x": "a"}]


def test_a_zero_byte_in_a_row_refuses_no_file(tmp_path: Path) -> None:
    assert read(any_csv(tmp_path, b"id,x\n1,a\0b\n"))[0].to_pylist() == [{"id": 1, "x": "a\0b"}]


IDS: list[tuple[str, list[str], pa.DataType]] = [
    ("whole numbers", ["7", "", "-1"], pa.int64()),
    ("a leading zero", ["7", "007"], pa.string()),
    ("a fraction", ["7", "12.5"], pa.string()),
    ("fractions", ["1.10", "2.50"], pa.string()),
    ("days", ["2026-01-01", "2026-01-02"], pa.string()),
    ("booleans", ["true", "TRUE"], pa.string()),
    ("a minus zero", ["-0", "7"], pa.string()),
    ("nothing", ["", ""], pa.string()),
]


@pytest.mark.parametrize(("values", "kind"), [row[1:] for row in IDS], ids=[row[0] for row in IDS])
@pytest.mark.parametrize("later", [False, True])
def test_a_column_of_ids_is_whole_numbers_or_stays_as_it_is(
    tmp_path: Path, values: list[str], kind: pa.DataType, later: bool
) -> None:
    every = [*["5"] * (20_480 if later else 0), *values]
    path = any_csv(tmp_path, "id,x\n" + "".join(f"{value},x\n" for value in every))
    files, rejected = CsvFiles(str(path), [path], ["id"]), list[Rejected]()
    table = pa.Table.from_batches(files.batches(rejected.append), files.schema)
    kind = pa.int64() if later and not any(values) else kind
    assert (table.schema.field("id").type, rejected) == (kind, [])
    wanted = [value or None for value in every]
    assert table["id"].cast(pa.string()).to_pylist() == wanted


def test_files_of_which_one_has_whole_numbers_keep_the_ids_of_both(tmp_path: Path) -> None:
    paths = [any_csv(tmp_path, "id,x\n7,a\n", "1.csv"), any_csv(tmp_path, "id,x\n1.10,b\n", "2.csv")]
    files = CsvFiles("both", paths, ["id"])
    rows = [row for batch in files.batches(lambda _: None) for row in batch.to_pylist()]
    assert [row["id"] for row in rows] == ["7", "1.10"]


def test_a_value_of_ten_megabytes_is_read(tmp_path: Path) -> None:
    table, rejected = read(any_csv(tmp_path, f"id,x\n1,{'y' * 10_000_000}\n2,z\n"))
    assert [len(value) for value in table["x"].to_pylist()] == [10_000_000, 1]
    assert rejected == []


def test_files_of_one_source_may_differ_in_order_and_number_type(tmp_path: Path) -> None:
    table, _ = read(any_csv(tmp_path, "id,x\na,1\n", "1.csv"), any_csv(tmp_path, "x,id\n2.5,b\n", "2.csv"))
    assert table.to_pylist() == [{"id": "a", "x": 1.0}, {"id": "b", "x": 2.5}]


REFUSED = [
    ("an open quote", b'id,x\n1,a\n2,"b\n3,c\n', "line 3 opens a quote that is never closed"),
    ("two columns of one name", b"id,ID\n1,2\n", "is the name of two columns"),
    ("a column without a name", b"id,\n1,2\n", "a column has no name"),
    ("UTF-16 without a mark", "id,x\n1,2\n".encode("utf-16-le"), "a zero byte at byte 2"),
    ("a row of 40 MB", b"id,x\n1," + b"y" * 40_000_000 + b"\n", "longer than 16 MB"),
    (
        "a quote that swallows the rest",
        b'id,x\n1,a\n2,"b\n' + b"3,yyyyyyyyyyyyyyy\n" * 1_200_000,
        "the row at line 3 is longer",
    ),
]


@pytest.mark.parametrize(("data", "expected"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED])
def test_a_file_is_refused_for(tmp_path: Path, data: bytes, expected: str) -> None:
    with pytest.raises(InputError, match=expected):
        read(any_csv(tmp_path, data))


def test_files_with_other_columns_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"2\.csv  column = x\n    is missing here"):
        read(any_csv(tmp_path, "id,x\na,1\n", "1.csv"), any_csv(tmp_path, "id,y\nb,2\n", "2.csv"))


def test_quotes_within_fields_mislead_nobody(tmp_path: Path) -> None:
    rows = 'a,5" pipe\n' + "b,yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy\n" * 900_000
    table, rejected = read(any_csv(tmp_path, f"id,x\n{rows}"))
    assert (table.num_rows, rejected) == (900_001, [])
    assert table["x"][0].as_py() == '5" pipe'


@pytest.mark.parametrize("row", ['2,"a"b', '"2"x,a', '2,"a"b"c'])
def test_quotes_that_do_not_fit_their_field_are_that_rows_mistake(tmp_path: Path, row: str) -> None:
    table, (rejected,) = read(any_csv(tmp_path, f'id,x\n1,x\n{row}\n3,"k"\n4,l\n'))
    assert table["id"].to_pylist() == [1, 3, 4]
    assert (rejected.reason, rejected.data, rejected.source) == ("broken_quotes", row.encode(), "customers.csv line 3")
