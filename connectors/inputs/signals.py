"""The signals of a warm-up: what came back of each day's messages, from any table that a person gives."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pyarrow as pa

from connectors.tables.input_tables import missing_columns, open_table, read_ids
from schemas.problems import InputError


def read_signal_rows(
    path: Path, name: str, columns: Sequence[str]
) -> tuple[list[dict[str, str]], Callable[[int], int | None]]:
    """The rows as text, with blanks around a value taken off and nothing for null; and what tells a row's line.

    Raises InputError for a table that cannot be read, or lacks one of the columns.
    """
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
