"""The distinct values of a column of the customers."""

from __future__ import annotations

import pyarrow.compute as pc

from schemas.columns.ids import id_texts
from stores.launches.snapshot import open_rows


def distinct_values(source: str, column: str) -> set[str]:
    """The values of a column as ids, without nulls. Reads the whole source; rows that cannot be read are left out."""
    distinct: set[str] = set()
    for batch in open_rows(source, column, [column])[1]:
        values = id_texts(pc.unique(batch.column(column)))
        distinct.update(value for value in values.to_pylist() if value is not None)
    return distinct
