"""Columns of times in any spelling, as epoch milliseconds."""

from __future__ import annotations

from typing import Any

import duckdb
import numpy as np
import pyarrow as pa

from connectors.tables.csv_types import FORMS, literal
from connectors.tables.input_tables import MOST_PROBLEMS, Table, row_problem
from schemas.problems import InputError, Problem

_TEXT = f"({FORMS['DATE']}|{FORMS['TIMESTAMP']}|{FORMS['TIMESTAMPTZ']})"
_FIX = "is no time; write 2026-01-31, 2026-01-31T10:00:00 (UTC), or with a zone: 2026-01-31T10:00:00+02:00"


def read_times(table: Table, column: str, values: pa.ChunkedArray) -> pa.Array:
    """Times, dates, or texts of them (see `_FIX`) as epoch milliseconds; a time without a zone is in UTC.

    Raises InputError with the rows that cannot be read, and for a column of another type.
    """
    kind = values.type
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        times = values.cast(pa.timestamp("ms", getattr(kind, "tz", None)), safe=False).cast(pa.int64())
    elif pa.types.is_string(kind) or pa.types.is_null(kind):
        times = _of_texts(values.cast(pa.string()))
    else:
        raise InputError(
            [Problem(table.name, column, str(kind), "must hold times (a TIMESTAMP or a DATE), or text of them")]
        )
    bad = np.flatnonzero(np.asarray(times.is_null()))[:MOST_PROBLEMS].tolist()
    if bad:
        raise InputError(row_problem(table, column, values[row].as_py() or "", _FIX, row) for row in bad)
    return times.combine_chunks()


def _of_texts(values: pa.ChunkedArray) -> Any:
    con = duckdb.connect()
    con.execute("SET TimeZone = 'UTC'")
    con.register("texts", pa.table({"text": values}))
    sure = f"CASE WHEN regexp_full_match(trim(text), {literal(_TEXT)}) THEN trim(text) END"
    return con.sql(f"SELECT epoch_ms(TRY_CAST({sure} AS TIMESTAMPTZ)) AS at FROM texts").to_arrow_table()["at"]  # noqa: S608
