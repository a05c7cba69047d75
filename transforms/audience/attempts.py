"""Evaluates an expression that raises an error for some rows: the values of the others, and the failed rows."""

from __future__ import annotations

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from schemas.elements import Bools
from transforms.audience.conditions import TABLE, first_line, open_connection

ROW_ERRORS = (duckdb.DataError, duckdb.ProgrammingError, duckdb.NotSupportedError)
"""Errors that the values of a row can cause. Any other, such as a lack of memory, is not due to a row."""
MAX_QUERIES = 2_000
"""Queries at most for one expression over one batch. The rows that are not evaluated by then count as failed."""


class Attempts:
    """Evaluates expressions that fail, halving the rows around each error. `columns` is SQL to add to `SELECT *`."""

    def __init__(self, columns: str) -> None:
        # DuckDB would compute a part that occurs twice in an expression outside of its TRY, and fail for all rows.
        self._con = open_connection("disabled_optimizers = 'common_subexpressions'")
        self._source = f"(SELECT *{columns} FROM {TABLE})"  # noqa: S608

    def values(self, rows: pa.Table, expression: str, kind: pa.DataType) -> tuple[pa.Array, Bools]:
        """The values of an expression, null where it raised an error, and the rows where it did."""
        parts: list[pa.Array] = []
        failed = np.zeros(rows.num_rows, np.bool_)
        waiting, queries = [(0, rows.num_rows)], 0
        while waiting:
            start, end = waiting.pop()
            results = self._try(rows.slice(start, end - start), expression) if queries < MAX_QUERIES else None
            queries += 1
            if results is not None:
                parts.append(pc.struct_field(results, "v").cast(kind))
                failed[start:end] = results.is_null().to_numpy(zero_copy_only=False)
            elif end - start == 1 or queries >= MAX_QUERIES:
                parts.append(pa.nulls(end - start, kind))
                failed[start:end] = True
            else:
                middle = (start + end) // 2
                waiting += [(middle, end), (start, middle)]
        return pa.concat_arrays([pa.array([], kind), *parts]), failed

    def reason(self, rows: pa.Table, expression: str) -> str:
        """The error that an expression raises for some rows; empty when it does not."""
        try:
            self._query(rows, expression)
        except ROW_ERRORS as error:
            return first_line(error)
        return ""

    def _try(self, rows: pa.Table, expression: str) -> pa.Array | None:
        """The values in structs, null for a row that raised an error; None after an error that TRY does not catch."""
        try:
            return self._query(rows, f"TRY({{'v': {expression}}})")
        except ROW_ERRORS:
            return None

    def _query(self, rows: pa.Table, expression: str) -> pa.Array:
        self._con.register(TABLE, rows)
        try:
            table = self._con.sql(f"SELECT {expression} AS v FROM {self._source}").to_arrow_table()  # noqa: S608
        finally:
            self._con.unregister(TABLE)
        return table.column(0).combine_chunks()
