"""Input tables other than the customers (lists, histories, signals): the same formats and errors.

`open_table` returns one of three classes with the same methods: `names` (of a CSV file the fields of its first line),
`read` (some columns; those of CSV are text) and `line` (the line of a row, None in a binary file).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from connectors.tables.avro_files import AvroFiles
from connectors.tables.csv_files import CsvFile, csv_batches, first_row
from connectors.tables.csv_rows import check_lengths, line_of_row
from connectors.tables.ndjson_files import NdjsonFiles
from connectors.tables.parquet_files import plain_schema, read_footers, read_row_groups
from connectors.tables.sources import BATCH_ROWS, Rejected, check_names, format_of, unusable
from connectors.tables.text import TextFile
from schemas.columns.ids import exact_ids, id_type_problem, trimmed
from schemas.elements import BROKEN_ROWS
from schemas.problems import InputError, JobError, Problem, shown

MOST_PROBLEMS = 20


class Table(Protocol):
    """An opened table, called `name` in error messages."""

    name: str
    names: list[str]

    def read(self, columns: Sequence[str]) -> pa.Table:
        """The rows of some columns. Raises InputError that names the rows which cannot be read."""

    def line(self, row: int) -> int | None:
        """The line at which a row begins."""


def open_table(path: Path, name: str) -> Table:
    """Open the table of a file by the suffix of its name; an unknown suffix means text. Raises InputError."""
    if not path.is_file():
        raise InputError([Problem(name, "", "", "there is no such file; write it, or correct the name")])
    if not path.stat().st_size:
        raise InputError([Problem(name, "", "0 bytes", "is empty; write the file again")])
    kind = format_of(path.name) or "csv"
    with _named(name):
        if kind == "csv":
            return CsvTable(path, name)
        return ParquetTable(path, name) if kind == "parquet" else RowsTable(path, name, kind)


class CsvTable:
    """A CSV file, or a text file with one value a line; without a `header` its columns are named by numbers."""

    def __init__(self, path: Path, name: str) -> None:
        self.name, self.text = name, TextFile(name, path)
        first, self.delimiter = first_row(self.text)
        self.names = [field.strip() for field in first]
        self.header = True
        check_lengths(self.text)

    def without_header(self) -> None:
        """Treat the first line as a row."""
        self.header, self.names = False, [str(number) for number in range(len(self.names))]

    def read(self, columns: Sequence[str]) -> pa.Table:
        """The rows as text, stripped; an empty field is null."""
        with _named(self.name):
            check_names(self.name, self.names)
            file = CsvFile(self.text, self.delimiter, dict.fromkeys(self.names, "VARCHAR"), self.header)
            table = _whole(self.name, lambda reject: csv_batches(self.name, file, file.types, reject, columns), columns)
        texts = [trimmed(column) for column in table.columns]
        full = [pc.if_else(pc.greater(pc.binary_length(text), 0), text, None) for text in texts]
        return pa.table(full, names=table.column_names)

    def line(self, row: int) -> int | None:
        """The line at which a row begins."""
        return line_of_row(self.text, self.delimiter, row + self.header)


class RowsTable:
    """An NDJSON or an Avro file."""

    def __init__(self, path: Path, name: str, kind: str) -> None:
        self.name = name
        self._text = TextFile(name, path) if kind == "ndjson" else None
        self._rows = NdjsonFiles(name, [path], _Every()) if self._text else AvroFiles(name, [path])
        self.names = self._rows.schema.names

    def read(self, columns: Sequence[str]) -> pa.Table:
        """The rows, typed."""
        with _named(self.name):
            table = _whole(self.name, self._rows.batches, columns)
            return table if table.num_rows else self._rows.schema.empty_table().select(columns)

    def line(self, row: int) -> int | None:
        """The line of a row of NDJSON; None for Avro."""
        if self._text is None:
            return None
        with self._text.open() as file:
            full = (number for number, line in enumerate(file, 1) if line.strip())
            return next((number for at, number in enumerate(full) if at == row), None)


class ParquetTable:
    """A Parquet file."""

    def __init__(self, path: Path, name: str) -> None:
        self.name, self._path = name, path
        footers = read_footers(name, [path])
        self._groups = range(len(footers.files[0].row_groups))
        self._schema = plain_schema(footers.schema)
        self.names = self._schema.names

    def read(self, columns: Sequence[str]) -> pa.Table:
        """The rows, typed."""
        empty = pa.schema([self._schema.field(name) for name in columns]).empty_table()
        with _named(self.name):
            try:
                batches = list(read_row_groups(str(self._path), self._groups, columns, BATCH_ROWS))
            except JobError as error:
                raise unusable(self.name, self._path.name, str(error)) from error
        for number, batch in enumerate(batches):
            if broken := (batch.schema.metadata or {}).get(BROKEN_ROWS):
                row = number * BATCH_ROWS + int(np.frombuffer(broken, np.int64)[0]) + 1
                raise unusable(self.name, f"row {row}", "is not UTF-8; write the file again", field="text")
        return pa.concat_tables([empty, *(pa.Table.from_batches([batch]) for batch in batches)])

    def line(self, row: int) -> int | None:
        """None: the file has no lines."""
        return None


def row_problem(table: Table, field: str, value: object, fix: str, row: int) -> Problem:
    """A problem of a value in a row (from 0), with the row's line, or its number in a binary file."""
    line = table.line(row)
    return Problem(table.name, field, shown(value), fix if line is not None else f"row {row + 1}: {fix}", line)


def read_ids(table: Table, column: str, values: pa.ChunkedArray) -> pa.Array:
    """A column as ids (schemas/columns/ids.py). Raises InputError for a type or a value that cannot be an id."""
    if fix := id_type_problem(values.type):
        raise InputError([Problem(table.name, column, str(values.type), fix)])
    parts, seen = [], 0
    problems: list[Problem] = []
    for chunk in values.chunks:
        texts, inexact = exact_ids(chunk)
        fix = "is no exact id (a fraction, beyond 2^53, NaN or infinite); write the column as text"
        for row in inexact[: MOST_PROBLEMS - len(problems)].tolist():
            problems.append(row_problem(table, column, chunk[row].as_py(), fix, seen + row))
        parts.append(texts)
        seen += len(chunk)
    if problems:
        raise InputError(problems)
    kind = pa.large_string() if sum(part.nbytes for part in parts) >= 1 << 31 else pa.string()
    return pa.concat_arrays([pa.array([], kind), *(part.cast(kind) for part in parts)])


def missing_columns(table: Table, columns: Iterable[str], needs: str) -> list[Problem]:
    """A problem for each missing column of a table."""
    has = f"the file has: {', '.join(map(shown, table.names))}"
    return [Problem(table.name, name, "missing", f"{needs}; {has}") for name in columns if name not in table.names]


class _Every:
    """A collection of which every name is a member."""

    def __contains__(self, name: object) -> bool:
        return True


@contextmanager
def _named(name: str) -> Iterator[None]:
    """Raise the readers' errors with the name of the table instead of the option --customers."""
    try:
        yield
    except InputError as error:
        fields = [re.sub("^--customers$", "", problem.field) for problem in error.problems]
        named = zip(error.problems, fields, strict=True)
        raise InputError(problem._replace(file=name, field=field) for problem, field in named) from error


def _whole(name: str, batches: Any, columns: Sequence[str]) -> pa.Table:
    """The columns of all rows. Raises InputError with the first rows that cannot be read."""
    rejected: list[Rejected] = []
    parts = [batch.select(columns) for batch in batches(rejected.append)]
    if rejected:
        raise InputError(_rejected(name, row) for row in rejected[:MOST_PROBLEMS])
    return pa.Table.from_batches(parts) if parts else pa.schema([(c, pa.string()) for c in columns]).empty_table()


def _rejected(name: str, row: Rejected) -> Problem:
    line = re.search(r" line (\d+)$", row.source)
    fix = row.detail
    try:
        row.data.decode()
    except UnicodeDecodeError as error:
        fix = f"{fix} (byte {error.start + 1} of the line)" if row.reason == "broken_text" else fix
    value = shown(row.data.decode("utf-8", "backslashreplace"))
    return Problem(name, row.reason, value, fix if line else f"{row.source}: {fix}", int(line[1]) if line else None)
