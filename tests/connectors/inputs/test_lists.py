"""Which column of a list is meant, and which lists are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from connectors.inputs.lists import list_problems, read_codes, read_list
from schemas.problems import InputError

READ: list[tuple[str, str, str, list[str]]] = [
    ("an id a line", "customer_id", "c-1\nc-2\n", ["c-1", "c-2"]),
    ("no line end at the end", "customer_id", "c-1\nc-2", ["c-1", "c-2"]),
    ("empty lines and blanks", "customer_id", "c-1\n\n  c-2  \n", ["c-1", "c-2"]),
    ("a header", "customer_id", "Customer ID\nc-1\n", ["c-1"]),
    ("a header that says no more than id", "email", "id\na@b.c\n", ["a@b.c"]),
    ("the column that is looked up", "hh", "hh\nc-1\n", ["c-1"]),
    ("the named column of several", "customer_id", "since;customer_id\n2020;c-1\n", ["c-1"]),
    ("the named column of two that are known", "email", "customer_id\temail\nc-1\ta@b.c\n", ["a@b.c"]),
    ("another name for what is looked up", "email", "name|E-Mail\nAnn|a@b.c\n", ["a@b.c"]),
    ("separators in quotes", "customer_id", 'customer_id\n"auth0|7"\n"a;b"\n"c,d"\n', ["auth0|7", "a;b", "c,d"]),
    ("digits as they are written", "customer_id", "id\n007\n1.10\n1e3\n+49\n", ["007", "1.10", "1e3", "+49"]),
    ("a line end in quotes", "customer_id", 'customer_id,note\nc-1,"two\nlines"\nc-2,\n', ["c-1", "c-2"]),
]


@pytest.mark.parametrize(("column", "text", "ids"), [row[1:] for row in READ], ids=[row[0] for row in READ])
def test_a_list_gives_its_ids_with(tmp_path: Path, column: str, text: str, ids: list[str]) -> None:
    (tmp_path / "l.csv").write_text(text)
    assert read_list(tmp_path / "l.csv", column).to_pylist() == ids


REFUSED: list[tuple[str, str, str, str]] = [
    (
        "several columns and no header",
        "customer_id",
        "c-1;2020\n",
        r"columns = c-1, 2020\n    it is unclear which column",
    ),
    (
        "several columns of no known name",
        "customer_id",
        "name,since\nc-1,2020\n",
        r"it is unclear which column to read",
    ),
    ("two columns that could be meant", "hh", "customer_id,email\nc-1,a@b.c\n", r"it is unclear which column to read"),
    ("a column of something else", "email", "customer_id\nc-1\n", r"holds customer_id, but is looked up by email"),
    (
        "separators under a header of one column",
        "customer_id",
        "customer_id\nc-1;2020\n",
        r"l\.csv:2 .*\n.*separated by ';'",
    ),
    ("a comma under a header of one column", "customer_id", "customer_id\nc-1,2020\n", r"l\.csv:2  wrong_columns"),
    (
        "a header of no known name",
        "customer_id",
        "Kundennummer\n17\n18\n",
        r"first line = Kundennummer\n.*a header or an id",
    ),
    ("a header of no known name over addresses", "email", "Kontakt 1\na@b.c\n", r"a header or an id"),
    ("a title over words without blanks", "code", "Spring codes\nABCD\nEFGH\n", r"a header or an id"),
    ("a header in small letters over capitals", "code", "Gutscheine\nABCD\nEFGH\n", r"a header or an id"),
    ("a header alone", "customer_id", "customer_id\n", r"customer_id = 0 rows\n    holds no ids"),
    ("a header and blanks", "customer_id", "customer_id\n  \n\n", r"holds no ids"),
]


@pytest.mark.parametrize(("column", "text", "expected"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED])
def test_a_list_is_refused_for(tmp_path: Path, column: str, text: str, expected: str) -> None:
    (tmp_path / "l.csv").write_text(text)
    with pytest.raises(InputError, match=expected):
        read_list(tmp_path / "l.csv", column)


COLUMNS: list[tuple[str, Any, list[str] | str]] = [
    ("whole numbers", pa.array([7, None, 2**63 - 1]), ["7", "9223372036854775807"]),
    ("whole floats", pa.array([7.0, 2.0**53, None]), ["7", "9007199254740992"]),
    ("a fraction", pa.array([7.0, 12.5]), r"customer_id = 12\.5\n    row 2: is no exact id"),
    ("NaN", pa.array([float("nan")]), r"customer_id = nan\n    row 1: is no exact id"),
    ("bytes", pa.array([b"c-1"]), r"customer_id = binary\n    an id is text or a whole number"),
    ("days", pa.array([1], pa.date32()), r"customer_id = date32\[day\]\n    an id is text"),
]


@pytest.mark.parametrize(("values", "found"), [row[1:] for row in COLUMNS], ids=[row[0] for row in COLUMNS])
def test_a_list_in_parquet_of(tmp_path: Path, values: Any, found: list[str] | str) -> None:
    pq.write_table(pa.table({"customer_id": values}), tmp_path / "l.parquet")
    if isinstance(found, list):
        assert read_list(tmp_path / "l.parquet", "customer_id").to_pylist() == found
    else:
        with pytest.raises(InputError, match=found):
            read_list(tmp_path / "l.parquet", "customer_id")


def test_a_column_of_numbers_in_ndjson_with_one_fraction_names_its_line(tmp_path: Path) -> None:
    (tmp_path / "l.ndjson").write_text('{"customer_id": 7}\n\n{"customer_id": 7.5}\n')
    with pytest.raises(InputError, match=r"l\.ndjson:3  wrong_type"):
        read_list(tmp_path / "l.ndjson", "customer_id")


CODES: list[tuple[str, str, list[str] | str]] = [
    ("a header of one column", "Voucher Code\nA1\nB2\n", ["A1", "B2"]),
    ("the named column of two", "value;code\n5;A1\n6;B2\n", ["A1", "B2"]),
    ("no header", "A1\nB2\n", ["A1", "B2"]),
    ("a header of no known name", "Gutschein\nA1\nB2\n", r"a header or an id"),
    ("whole lines", "A1;5\nB2;6\n", r"it is unclear which column to read"),
    ("a code that stands twice", "code\nA1\nB2\n\nA1\n", r"l\.csv:5  code = A1\n    is in line 2 too"),
]


@pytest.mark.parametrize(("text", "found"), [row[1:] for row in CODES], ids=[row[0] for row in CODES])
def test_a_code_list_with(tmp_path: Path, text: str, found: list[str] | str) -> None:
    (tmp_path / "l.csv").write_text(text)
    if isinstance(found, list):
        assert read_codes(tmp_path / "l.csv").to_pylist() == found
    else:
        with pytest.raises(InputError, match=found):
            read_codes(tmp_path / "l.csv")


def test_a_code_of_two_code_lists_is_refused_with_both_files(tmp_path: Path) -> None:
    for name, codes in {"a.csv": "A1\nA2\n", "b.csv": "B1\nA2\nA1\n", "c.csv": "C1\nC2\n"}.items():
        (tmp_path / name).write_text(codes)
    (problem,) = list_problems(tmp_path, [(name, None) for name in ("a.csv", "b.csv", "c.csv")])
    assert (problem.file, problem.field, problem.value) == ("b.csv", "code", "A2")
    assert "2 of its codes stand in a.csv too" in problem.fix
