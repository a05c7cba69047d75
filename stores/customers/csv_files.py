"""CSV customers, read by DuckDB: RFC 4180 with any of `,;|` and tab between fields, the first line naming them."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import duckdb
import numpy as np
import pyarrow as pa

from stores.customers.sources import (
    BATCH_ROWS,
    SAMPLE_ROWS,
    Reject,
    Rejected,
    check_names,
    check_same,
    opened,
    wrong,
)

MAX_ROW = 16 << 20
"""Bytes of a row. The engine drops or hangs on rows that come near its buffer, so larger ones never reach it."""
BLOCK = 16 << 20
_ENGINE_ROW, _ENGINE_BUFFER = 2 * MAX_ROW, 4 * MAX_ROW
_DIALECT = "quote = '\"', escape = '\"', header = true, comment = '', strict_mode = true"
_REASONS = {
    "CAST": ("wrong_type", "column {column}: the value does not fit the type {type} of the column; correct it"),
    "MISSING COLUMNS": ("wrong_columns", "the row has fewer fields than the header; complete it"),
    "TOO MANY COLUMNS": ("wrong_columns", "the row has more fields than the header; put fields with commas in quotes"),
    "UNQUOTED VALUE": ("broken_quotes", "the quotes do not pair up; write a quote inside a quoted field twice"),
    "INVALID ENCODING": ("broken_text", "is not UTF-8; save the source as UTF-8"),
}


class _File(NamedTuple):
    path: Path
    delimiter: str
    types: dict[str, str]


class CsvFiles:
    """Customers of CSV files. Raises InputError for a file that cannot be read as such at all."""

    def __init__(self, source: str, paths: Sequence[Path]) -> None:
        self._source = source
        files = [_examined(source, path) for path in paths]
        for file in files[1:]:
            check_same(paths[0], list(files[0].types), file.path, list(file.types))
        self._types = {name: _common([file.types[name] for file in files]) for name in files[0].types}
        self._files = files
        self.schema = _connection().sql(f"SELECT {_nothing(self._types)}").to_arrow_table().schema

    def batches(self, reject: Reject) -> Iterator[pa.RecordBatch]:
        """The rows whose fields all fit their columns."""
        names = ", ".join(_quoted(name) for name in self._types)
        for file in self._files:
            con = _connection()
            query = f"SELECT {names} FROM {_read(file, self._types, 'store_rejects = true')}"  # noqa: S608 (names and texts are quoted)
            try:
                for batch in con.sql(query).to_arrow_reader(BATCH_ROWS):
                    yield pa.record_batch(batch.columns, schema=self.schema)
            except duckdb.Error as error:
                raise _unreadable(self._source, file.path, error) from error
            for rejected in _rejects(con, self._source, file.path, self._types):
                reject(rejected)


def _connection() -> duckdb.DuckDBPyConnection:
    con = duckdb.connect()
    for setting in ("threads = 2", "TimeZone = 'UTC'", "python_enable_replacements = false"):
        con.execute(f"SET {setting}")
    return con


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"


def _nothing(types: dict[str, str]) -> str:
    return ", ".join(f"NULL::{kind} AS {_quoted(name)}" for name, kind in types.items()) + " WHERE false"


def _read(file: _File, types: dict[str, str], more: str) -> str:
    columns = ", ".join(f"{_text(name)}: {_text(types[name])}" for name in file.types)
    return (
        f"read_csv({_text(str(file.path))}, delim = {_text(file.delimiter)}, {_DIALECT}, auto_detect = false, "
        f"columns = {{{columns}}}, max_line_size = {_ENGINE_ROW}, buffer_size = {_ENGINE_BUFFER}, {more})"
    )


def _examined(source: str, path: Path) -> _File:
    """A file's delimiter and the types of its columns: those of the sample, widened by what comes after it."""
    names, delimiter = _header(source, path)
    check_names(path.name, names)
    _check_lengths(source, path)
    file = _File(path, delimiter, dict.fromkeys(names, "VARCHAR"))
    rows = _read(file, file.types, "ignore_errors = true")
    con = _connection()
    try:
        sampled = _forms(con, dict.fromkeys(names, _FORMS), f"(FROM {rows} LIMIT {SAMPLE_ROWS})")
        later = _forms(con, {name: _to_ask(forms) for name, forms in sampled.items()}, rows)
    except duckdb.Error as error:
        raise _unreadable(source, path, error) from error
    return file._replace(types={name: _type_of(forms, later.get(name, set())) for name, forms in sampled.items()})


_DAY = "[0-9]{4}-[0-9]{2}-[0-9]{2}"
_FORMS = {
    "BIGINT": "-?(0|[1-9][0-9]{0,17})",
    "DOUBLE": "-?((0|[1-9][0-9]{0,17})([.][0-9]*)?|[.][0-9]+)([eE][-+]?[0-9]{1,3})?",
    "BOOLEAN": "(?i:true|false)",
    "DATE": _DAY,
    "TIMESTAMP": _DAY + "[T ][0-9]{2}:[0-9]{2}(:[0-9]{2}([.][0-9]{1,9})?)?",
    "TIMESTAMPTZ": _DAY + "[T ][0-9]{2}:[0-9]{2}(:[0-9]{2}([.][0-9]{1,9})?)?(Z|[-+][0-9]{2}(:?[0-9]{2})?)",
    "VARCHAR": "[-+]?[0-9]+",
}
"""What the values of a type look like, tried in this order. Digits that are no BIGINT (a leading zero, a plus, 19 and
more of them) are text: as numbers they would not come back as they were written."""
_WIDER = {
    "BIGINT": ["BIGINT", "DOUBLE", "VARCHAR"],
    "DATE": ["DATE", "TIMESTAMP", "TIMESTAMPTZ"],
    "BOOLEAN": ["BOOLEAN"],
}
_FAMILY = {kind: family for family, kinds in _WIDER.items() for kind in kinds}
_OTHER = "OTHER"


def _forms(con: duckdb.DuckDBPyConnection, asked: dict[str, Any], rows: str) -> dict[str, set[str]]:
    """The forms that some value of each column has, of those that are asked for; `OTHER` for none of all."""
    asked = {name: forms for name, forms in asked.items() if forms}
    if not asked:
        return {}
    columns = []
    for name, forms in asked.items():
        cases = " ".join(
            f"WHEN regexp_full_match({_quoted(name)}, {_text(_FORMS[form])}) THEN {_text(form)}" for form in forms
        )
        columns.append(f"list(DISTINCT CASE {cases} ELSE '{_OTHER}' END) FILTER (WHERE {_quoted(name)} IS NOT NULL)")
    found = con.sql(f"SELECT {', '.join(columns)} FROM {rows}").fetchall()[0]  # noqa: S608
    return {name: set(forms or ()) for name, forms in zip(asked, found, strict=True)}


def _to_ask(sampled: set[str]) -> list[str]:
    """What the rest of the file may widen a column to."""
    if not sampled:
        return list(_FORMS)
    family = _family(sampled)
    return [] if family in (None, "BOOLEAN") else _WIDER[str(family)]


def _family(forms: set[str]) -> str | None:
    """What all forms belong to: numbers (BIGINT), times (DATE), BOOLEAN, or nothing."""
    families = {None if form in (_OTHER, "VARCHAR") else _FAMILY[form] for form in forms}
    return families.pop() if len(families) == 1 else None


def _type_of(sampled: set[str], later: set[str]) -> str:
    """The type that loses nothing of the values; later ones of another kind are mistakes of their rows."""
    family = _family(sampled or later)
    if family is None or (sampled and "VARCHAR" in later):
        return "VARCHAR"
    seen = (sampled | later) - {_OTHER}
    return [kind for kind in _WIDER[family] if kind in seen][-1]


def _header(source: str, path: Path) -> tuple[list[str], str]:
    """The names in the first line, and what separates them: of the delimiters the one that stands there most."""
    with opened(path) as file:
        line = file.readline(MAX_ROW)
    try:
        text = line.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        fix = f"the first line is not UTF-8 (byte {error.start}); save the file as UTF-8"
        raise wrong(source, path.name, fix) from error
    rows = [(next(csv.reader([text], delimiter=one), []), one) for one in ",;\t|"]
    return max(rows, key=lambda row: len(row[0]))


def _common(types: list[str]) -> str:
    """The type for a column of several files."""
    if len(set(types)) == 1:
        return types[0]
    return "DOUBLE" if set(types) <= {"BIGINT", "DOUBLE"} else "VARCHAR"


def _unreadable(source: str, path: Path, error: duckdb.Error) -> Exception:
    """The engine's message in short: its advice is about settings that nobody can reach here."""
    text = str(error)
    if "Maximum line size" in text or "buffer" in text.lower():
        fix = f"a row is longer than {MAX_ROW >> 20} MB; shorten it (is a quote left open?)"
        return wrong(source, path.name, fix)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    told = next((line for line in lines if "unicode" in line), lines[0] if lines else "")
    fix = f"is no CSV file that can be read ({told[:160]}); separate fields by commas, end all rows alike, write UTF-8"
    return wrong(source, path.name, fix)


def _rejects(con: duckdb.DuckDBPyConnection, source: str, path: Path, types: dict[str, str]) -> Iterator[Rejected]:
    """The refused rows in the order of the file, each once, with its bytes and its line."""
    found = con.sql(
        "SELECT line_byte_position, arg_min(error_type, rank), arg_min(column_name, rank), "
        "arg_min(error_message, rank), arg_min(csv_line, rank) "
        "FROM (SELECT *, (error_type = 'CAST', byte_position) AS rank FROM reject_errors) "
        "GROUP BY ALL ORDER BY line_byte_position"
    ).fetchall()
    with opened(path) as file:
        line = 1
        for place, kind, column, message, text in found:
            quotes = "unterminated" in message
            skipped, data = _row_at(file, place - 1, one_line=quotes)
            line += skipped
            if quotes and len(text.strip("\r\n").encode()) > len(data.strip(b"\r\n")):
                fix = f"line {line} opens a quote that is never closed, so the rest cannot be read; close it"
                raise wrong(source, path.name, fix)
            reason, fix = _REASONS.get(kind, ("broken_row", message.splitlines()[0][:200]))
            told = fix.format(column=column, type=types.get(column, ""))
            yield Rejected(reason, told, f"{path.name} line {line}", data.rstrip(b"\r\n"))
            line += data.count(b"\n")


def _row_at(file: BinaryIO, place: int, one_line: bool) -> tuple[int, bytes]:
    """The line ends up to a place, and the row there, whose quotes may hold line ends unless it is `one_line`.

    With \\r\\n the engine's place is at times a byte too early or too late: a row follows a line end, and is not empty.
    """
    count, skipped = place - 1 - file.tell(), 0
    while count > 0 and (block := file.read(min(count, 1 << 20))):
        skipped += block.count(b"\n")
        count -= len(block)
    before = file.read(1) if place > file.tell() else b""
    if before == b"\n":
        skipped, before = skipped + 1, b""
    data = _row(file, before, one_line)
    while data and not data.strip(b"\r\n"):
        skipped, data = skipped + data.count(b"\n"), _row(file, b"", one_line)
    return skipped, data


def _row(file: BinaryIO, data: bytes, one_line: bool) -> bytes:
    """The row that begins with some bytes: up to a line end that no quote protects."""
    data += file.readline(MAX_ROW)
    while not one_line and data.count(b'"') % 2 and len(data) < MAX_ROW and (more := file.readline(MAX_ROW)):
        data += more
    return data


def _check_lengths(source: str, path: Path) -> None:
    """Raises InputError for a row over MAX_ROW, as a quote that is never closed makes one.

    A line end between quotes (an odd number of them before it) ends no row. A quote in the middle of a field
    misleads this count, so a row that seems too long is looked at as the csv module reads it.
    """
    with opened(path) as file:
        start = line = read = quotes = lines = 0
        while block := file.read(BLOCK):
            data = np.frombuffer(block, np.uint8)
            ends, marks = np.flatnonzero(data == 0x0A), np.flatnonzero(data == 0x22)
            closing = ends[(quotes + np.searchsorted(marks, ends)) % 2 == 0]
            edges = np.concatenate([[start], read + closing + 1, [read + len(block)]])
            if (long := np.flatnonzero(np.diff(edges) > MAX_ROW)).size:
                before = int(edges[long[0]])
                line = lines + int(np.searchsorted(ends, before - read)) + 1 if before >= read else line
                _check_row(source, path, before, line)
                closing, quotes = ends[-1:], -len(marks)
            if closing.size:
                start, line = read + int(closing[-1]) + 1, lines + int(np.searchsorted(ends, closing[-1])) + 2
            read, lines, quotes = read + len(block), lines + len(ends), quotes + len(marks)


def _check_row(source: str, path: Path, place: int, line: int) -> None:
    with opened(path) as file:
        file.seek(place)
        data = file.read(MAX_ROW + 1)
    lines = data.decode("utf-8", "replace").splitlines(keepends=True)
    csv.field_size_limit(2 * MAX_ROW)
    reader = csv.reader(iter(lines))
    next(reader, None)
    if reader.line_num >= len(lines):
        fix = f"the row at line {line} is longer than {MAX_ROW >> 20} MB; shorten it, or close the quote it leaves open"
        raise wrong(source, path.name, fix)
