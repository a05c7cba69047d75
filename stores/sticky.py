"""Sticky assignments: which variant a unit was given, kept from launch to launch in a Parquet file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from schemas.problems import InputError, Problem

SCHEMA = pa.schema(
    [("experiment", pa.string()), ("unit", pa.string()), ("variant", pa.string()), ("bucket_version", pa.int64())]
)


def read_sticky(path: str | Path) -> pa.Table:
    """The assignments of a file, one a unit and experiment. Raises InputError when it is something else."""
    try:
        table = pq.read_table(path)
        missing = [name for name in SCHEMA.names if name not in table.column_names]
        if not missing:
            return table.select(SCHEMA.names).cast(SCHEMA)
        reason = f"has no column {', '.join(missing)}"
    except (OSError, pa.ArrowException) as error:
        reason = f"cannot be read ({error})"
    fix = f"{reason}; give the sticky.parquet that an earlier launch wrote"
    raise InputError([Problem("--sticky", "", str(path), fix)])


def write_sticky(path: Path, before: str | None, exposures: Path, experiments: Mapping[str, tuple[str, int]]) -> None:
    """Write the assignments of a finished launch over the ones before it, sorted, memory flat.

    `experiments` gives the experiment's key and bucket version of each campaign with sticky assignments.
    Held-out, outside and forced customers are not assigned; a test launch must not call this.
    """
    con = duckdb.connect(":memory:")
    rows = [{"campaign_id": name, "experiment": key, "bucket_version": v} for name, (key, v) in experiments.items()]
    schema = pa.schema([("campaign_id", pa.string()), ("experiment", pa.string()), ("bucket_version", pa.int64())])
    con.register("experiments", pa.Table.from_pylist(rows, schema=schema))
    con.register("before", SCHEMA.empty_table() if before is None else read_sticky(before))
    files: list[Any] = sorted(str(file) for file in exposures.glob("*.parquet"))
    con.read_parquet(files).create_view("exposures")
    temporary = path.with_suffix(".tmp")
    con.execute(
        """
        COPY (
          WITH now AS (
            SELECT experiment, coalesce(unit, customer_id) AS unit, variant::VARCHAR AS variant, bucket_version
            FROM exposures JOIN experiments USING (campaign_id)
            WHERE variant IS NOT NULL AND assigned_by <> 'forced'
          ), every AS (
            SELECT *, 1 AS newer FROM now UNION ALL SELECT *, 0 FROM before
          )
          SELECT experiment, unit, variant, bucket_version FROM every
          QUALIFY row_number() OVER (PARTITION BY experiment, unit ORDER BY newer DESC, bucket_version DESC) = 1
          ORDER BY experiment, unit
        ) TO ? (FORMAT parquet)
        """,
        [str(temporary)],
    )
    temporary.replace(path)
