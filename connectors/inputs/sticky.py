"""Sticky assignments: the variant of each unit, kept from launch to launch in a table."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from connectors.tables.input_tables import MOST_PROBLEMS, missing_columns, open_table, read_ids, row_problem
from schemas.problems import InputError, Problem, shown

_TEXT = pa.string()
SCHEMA = pa.schema([("experiment", _TEXT), ("unit", _TEXT), ("variant", _TEXT), ("bucket_version", pa.int64())])


def read_sticky(path: str | Path) -> pa.Table:
    """The assignments of a table, one a unit and experiment; units are texts (schemas/columns/ids.py). Raises
    InputError for a file that is something else, with the row of a value that cannot be used."""
    table = open_table(Path(path), str(path))
    if missing := missing_columns(table, SCHEMA.names, "give the sticky.parquet that an earlier launch wrote"):
        raise InputError(missing)
    rows = table.read(SCHEMA.names)
    texts = {name: read_ids(table, name, rows[name]) for name in SCHEMA.names}
    version = texts["bucket_version"]
    whole = pc.match_substring_regex(version, "^[0-9]{1,18}$")
    problems = [
        row_problem(table, name, "", "is empty; every assignment has an experiment, a unit and a variant", row)
        for name in SCHEMA.names[:3]
        for row in _places(texts[name].is_null())
    ]
    fix = "is no whole number; write the experiment's bucket_version"
    problems += [
        row_problem(table, "bucket_version", version[row].as_py(), fix, row)
        for row in _places(pc.invert(pc.fill_null(whole, False)))
    ]
    if problems:
        raise InputError(problems)
    return pa.table({**texts, "bucket_version": version.cast(pa.int64())}).cast(SCHEMA)


def check_sticky(path: str | Path) -> pa.Table:
    """The assignments. Raises InputError where `read_sticky` does, for a table without any, and for a unit that has two
    in one experiment."""
    table = read_sticky(path)
    if not table.num_rows:
        fix = "holds no assignments, so nobody would keep a variant; give another file, or leave --sticky out"
        raise InputError([Problem(str(path), "", "0 rows", fix)])
    con = duckdb.connect(":memory:")
    con.register("given", table)
    query = "SELECT experiment, unit, count(*) FROM given GROUP BY ALL HAVING count(*) > 1 ORDER BY ALL LIMIT 20"
    if twice := con.execute(query).fetchall():
        fix = "the unit has {} assignments in the experiment {}; keep one"
        raise InputError(Problem(str(path), "unit", shown(u), fix.format(n, shown(e))) for e, u, n in twice)
    return table


def _places(mask: Any) -> list[int]:
    places: list[int] = np.flatnonzero(np.asarray(mask.to_numpy(zero_copy_only=False)))[:MOST_PROBLEMS].tolist()
    return places


def write_sticky(path: Path, before: str | None, exposures: Path, experiments: Mapping[str, tuple[str, int]]) -> None:
    """Write the assignments of a finished launch over the ones before it, sorted, memory flat.

    `experiments` gives the experiment's key and bucket version of each campaign with sticky assignments.
    Held-out, outside and forced customers are not assigned; a test launch must not call this.
    """
    con = duckdb.connect(":memory:")
    rows = [{"campaign_id": name, "experiment": key, "bucket_version": v} for name, (key, v) in experiments.items()]
    schema = pa.schema([("campaign_id", _TEXT), ("experiment", _TEXT), ("bucket_version", pa.int64())])
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
