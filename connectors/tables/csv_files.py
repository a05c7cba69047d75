"""CSV tables, read by DuckDB: RFC 4180 with `,`, `;`, `|` or a tab between fields, and a header line."""

from __future__ import annotations

import csv
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import duckdb
import pyarrow as pa

from connectors.tables.csv_rows import MAX_ROW, check_lengths, mixed_line, row_at
from connectors.tables.csv_types import column_types, common_type, literal, quoted
from connectors.tables.sources import BATCH_ROWS, Reject, Rejected, check_names, check_same, unusable
from connectors.tables.text import TextFile

DELIMITERS = ",;\t|"
_ENGINE_ROW, _ENGINE_BUFFER = 2 * MAX_ROW, 4 * MAX_ROW
_DIALECT = "quote = '\"', escape = '\"', comment = '', strict_mode = true"
_REASONS = {
    "CAST": ("wrong_type", "column {column}: the value does not fit the type {type} of the column; correct it"),
    "MISSING COLUMNS": ("wrong_columns", "the row has fewer fields than the header; complete it"),
    "TOO MANY COLUMNS": ("wrong_columns", "the row has more fields than the header; put fields with commas in quotes"),
    "UNQUOTED VALUE": ("broken_quotes", "the quotes do not pair up; write a quote inside a quoted field twice"),
    "INVALID ENCODING": ("broken_text", "is not UTF-8; save the source as UTF-8"),
}


class CsvFile(NamedTuple):
    """A file and its dialect: the delimiter, the type of each column, whether line 1 is a header."""

    text: TextFile
    delimiter: str
    types: dict[str, str]
    header: bool = True


class CsvFiles:
    """The rows of CSV files. Raises InputError for a file that is no CSV. A column of `ids` stays text unless all its
    values are whole numbers."""

    def __init__(self, source: str, paths: Sequence[Path], ids: Collection[str] = ()) -> None:
        self._source = source
        files = [_examine(source, path, ids) for path in paths]
        for path, file in zip(paths[1:], files[1:], strict=True):
            check_same(paths[0], list(files[0].types), path, list(file.types))
        self._types = {name: common_type([file.types[name] for file in files]) for name in files[0].types}
        self._files = files
        columns = ", ".join(f"NULL::{kind} AS {quoted(name)}" for name, kind in self._types.items())
        self.schema = _connection().sql(f"SELECT {columns} WHERE false").to_arrow_table().schema

    def batches(self, reject: Reject) -> Iterator[pa.RecordBatch]:
        """The rows whose fields all fit their columns."""
        for file in self._files:
            for batch in csv_batches(self._source, file, self._types, reject):
                yield pa.record_batch(batch.columns, schema=self.schema)


def csv_batches(
    source: str, file: CsvFile, types: dict[str, str], reject: Reject, columns: Collection[str] | None = None
) -> Iterator[pa.RecordBatch]:
    """The rows of one file whose fields all fit the types; all columns in the order of the types, or some."""
    names = ", ".join(quoted(name) for name in columns or types)
    con = _connection()
    query = f"SELECT {names} FROM {_read(file, types, 'store_rejects = true')}"  # noqa: S608 (names and texts are quoted)
    try:
        yield from con.sql(query).to_arrow_reader(BATCH_ROWS)
    except duckdb.Error as error:
        raise _unreadable(source, file.text, error) from error
    for rejected in _rejects(con, source, file.text, types):
        reject(rejected)


def _connection() -> duckdb.DuckDBPyConnection:
    con = duckdb.connect()
    for setting in ("threads = 2", "TimeZone = 'UTC'", "python_enable_replacements = false"):
        con.execute(f"SET {setting}")
    return con


def _read(file: CsvFile, types: dict[str, str], more: str) -> str:
    columns = ", ".join(f"{literal(name)}: {literal(types[name])}" for name in file.types)
    packed = "gzip" if file.text.packed else "none"
    return (
        f"read_csv({literal(str(file.text.path))}, delim = {literal(file.delimiter)}, {_DIALECT}, auto_detect = false, "
        f"header = {file.header}, compression = '{packed}', columns = {{{columns}}}, max_line_size = {_ENGINE_ROW}, "
        f"buffer_size = {_ENGINE_BUFFER}, {more})"
    )


def _examine(source: str, path: Path, ids: Collection[str]) -> CsvFile:
    """A file's delimiter and the types of its columns."""
    text = TextFile(source, path)
    names, delimiter = first_row(text)
    check_names(path.name, names)
    check_lengths(text)
    file = CsvFile(text, delimiter, dict.fromkeys(names, "VARCHAR"))
    try:
        types = column_types(_connection(), names, _read(file, file.types, "ignore_errors = true"), ids)
    except duckdb.Error as error:
        raise _unreadable(source, text, error) from error
    return file._replace(types=types)


def first_row(file: TextFile) -> tuple[list[str], str]:
    """The fields of the first line and their delimiter: the one that gives the most fields."""
    with file.open() as binary:
        line = binary.readline(MAX_ROW)
    try:
        first = line.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        fix = f"the first line is not UTF-8 (byte {error.start + 1}); save the file as UTF-8"
        raise unusable(file.source, file.name, fix) from error
    if not first.strip():
        raise unusable(file.source, file.name, "line 1 is empty; delete it: the first line names the columns")
    csv.field_size_limit(2 * MAX_ROW)
    try:
        rows = [(next(csv.reader([first], delimiter=delimiter), []), delimiter) for delimiter in DELIMITERS]
    except csv.Error as error:
        fix = f"line 1 cannot be read ({error}); end all lines alike, and put names with line ends in quotes"
        raise unusable(file.source, file.name, fix) from error
    return max(rows, key=lambda row: len(row[0]))


def _unreadable(source: str, file: TextFile, error: duckdb.Error) -> Exception:
    """DuckDB's message in short: its advice is about settings that no user has here."""
    message = str(error)
    if "Maximum line size" in message or "buffer" in message.lower():
        fix = f"a row is longer than {MAX_ROW >> 20} MB; shorten it (is a quote left open?)"
        return unusable(source, file.name, fix)
    if line := mixed_line(file):
        fix = f"line {line} does not end as those before it do (a carriage return too many or too few); end all alike"
        return unusable(source, file.name, fix)
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    cause = next((line for line in lines if "unicode" in line), lines[0] if lines else "")
    fix = f"is no CSV file that can be read ({cause[:160]}); separate fields by commas, end all rows alike, write UTF-8"
    return unusable(source, file.name, fix)


def _rejects(con: duckdb.DuckDBPyConnection, source: str, text: TextFile, types: dict[str, str]) -> Iterator[Rejected]:
    """The rejected rows in the order of the file, each once, with its bytes and its line."""
    rejects = con.sql(
        "SELECT line_byte_position, arg_min(error_type, rank), arg_min(column_name, rank), "
        "arg_min(error_message, rank), arg_min(csv_line, rank) "
        "FROM (SELECT *, (error_type = 'CAST', byte_position) AS rank FROM reject_errors) "
        "GROUP BY ALL ORDER BY line_byte_position"
    ).fetchall()
    with text.open() as file:
        line = 1
        for place, kind, column, message, line_text in rejects:
            quotes = "unterminated" in message
            skipped, data = row_at(file, place - 1, one_line=quotes)
            line += skipped
            if quotes and len(line_text.strip("\r\n").encode()) > len(data.strip(b"\r\n")):
                fix = f"line {line} opens a quote that is never closed, so the rest cannot be read; close it"
                raise unusable(source, text.name, fix)
            reason, fix = _REASONS.get(kind, ("broken_row", message.splitlines()[0][:200]))
            detail = fix.format(column=column, type=types.get(column, ""))
            yield Rejected(reason, detail, f"{text.name} line {line}", data.rstrip(b"\r\n"))
            line += data.count(b"\n")
