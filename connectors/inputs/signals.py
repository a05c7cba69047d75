"""The signals of a warm-up: each day's bounces and complaints, from an input table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pyarrow as pa

from connectors.tables.input_tables import missing_columns, open_table, read_ids
from schemas.problems import InputError

LineOfRow = Callable[[int], int | None]


def read_signal_rows(path: Path, name: str, columns: Sequence[str]) -> tuple[list[dict[str, str]], LineOfRow]:
    """The rows as stripped text, with "" for null, and a function that returns the line of a row. Raises InputError for
    a table that cannot be read, or lacks one of the columns."""
    table = open_table(path, name)
    if missing := missing_columns(table, columns, f"signals have the columns {','.join(columns)}"):
        raise InputError(missing)
    rows = table.read(columns)
    texts = {
        column: rows[column].cast(pa.string())
        if pa.types.is_date(rows[column].type)
        else read_ids(table, column, rows[column])
        for column in columns
    }
    records = pa.table(texts).to_pylist()
    return [{column: (text or "").strip() for column, text in row.items()} for row in records], table.line
