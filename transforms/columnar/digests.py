"""SHA-256 of columns of ids: event ids, and the order keys of limited offers."""

from __future__ import annotations

from functools import cache
from typing import Any

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from transforms.audience.conditions import open_connection

SEPARATOR = "\x1f"
DIGITS = 32


@cache
def _connection() -> duckdb.DuckDBPyConnection:
    return open_connection()


def hex_digests(prefix: Any, *columns: pa.Array) -> pa.Array:
    """The first 32 hex digits of SHA-256 of `prefix` and the columns, joined by U+001F, for each row.

    `prefix` is a text that ends with U+001F, or a column of such texts. Ids hold no control characters
    (transforms.customers.validate_customers refuses them), so the joined text is unambiguous.
    """
    joined = pc.binary_join_element_wise(*columns, pa.scalar(SEPARATOR))
    text = pc.binary_join_element_wise(prefix, joined, pa.scalar(""))
    if not len(text):
        return pa.array([], pa.string())
    con = _connection().cursor()
    con.register("ids", pa.table({"id": text}))
    table = con.sql(f"SELECT left(sha256(id), {DIGITS}) AS digest FROM ids").to_arrow_table()  # noqa: S608
    con.unregister("ids")
    return table["digest"].combine_chunks()


def digests(prefix: str, *columns: pa.Array) -> npt.NDArray[np.bytes_]:
    """`hex_digests` as fixed-width numpy text, which sorts by value."""
    text = hex_digests(prefix, *columns).cast(pa.string())
    data = text.buffers()[2]
    if not len(text) or data is None:
        return np.zeros(0, f"S{DIGITS}")
    return np.frombuffer(data, f"S{DIGITS}", count=len(text), offset=text.offset * DIGITS)
