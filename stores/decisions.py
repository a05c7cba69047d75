"""What a launch decides over all customers at once, kept in its folder: every worker reads the same."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from stores.launch_folder import replace_file, write_parquet

Rows = npt.NDArray[np.int64]
MEMORY = "400MB"


@dataclass(frozen=True)
class Decisions:
    """Rows by the name of their batch: `duplicates` of a customer, `shared` (by campaign too) the ones that
    another customer with the same address is preferred to. `queues` by (campaign, offer): None where nobody
    is refused, else the granted order keys, sorted, or only the last of them."""

    duplicates: dict[str, Rows] = field(default_factory=dict)
    shared: dict[str, dict[str, Rows]] = field(default_factory=dict)
    queues: dict[tuple[str, str], npt.NDArray[np.bytes_]] = field(default_factory=dict)


def working_connection(folder: Path) -> duckdb.DuckDBPyConnection:
    """A connection for exact work over more rows than fit in memory: it spills into the folder."""
    con = duckdb.connect(":memory:")
    for setting in (f"memory_limit = '{MEMORY}'", "preserve_insertion_order = false", "threads = 2",
                    "python_enable_replacements = false"):  # fmt: skip
        con.execute(f"SET {setting}")
    con.execute("SET temp_directory = ?", [str(folder / "spill")])
    return con


def repeated(con: duckdb.DuckDBPyConnection, scan: Any, key: tuple[str, ...], columns: tuple[str, ...]) -> pa.Table:
    """The rows (their `columns`) whose key occurs more than once, exactly, in memory of 8 bytes a key.

    `scan()` gives a fresh reader over all rows. A first pass finds hashes that repeat, a second one
    compares the few keys behind them as they are.
    """
    hashed = f"hash({', '.join(key)})"
    present = " AND ".join(f"{name} IS NOT NULL" for name in key)
    con.register("scanned", scan())
    con.execute(
        f"CREATE OR REPLACE TEMP TABLE suspects AS SELECT {hashed} AS h FROM scanned WHERE {present} "  # noqa: S608
        "GROUP BY h HAVING count(*) > 1"
    )
    con.unregister("scanned")
    if con.execute("SELECT count(*) FROM suspects").fetchall()[0][0] == 0:
        return pa.table({name: pa.nulls(0) for name in columns})
    con.register("scanned", scan())
    keys = ", ".join(key)
    wanted = ", ".join(columns)
    found = con.sql(
        f"SELECT {wanted} FROM scanned WHERE {present} AND {hashed} IN (SELECT h FROM suspects) "  # noqa: S608
        f"QUALIFY count(*) OVER (PARTITION BY {keys}) > 1"
    ).to_arrow_table()
    con.unregister("scanned")
    return found


def write_decisions(folder: Path, duplicates: pa.Table, losers: pa.Table, queues: pa.Table) -> None:
    """Write the decisions of a launch; the marker comes last."""
    write_parquet(folder / "duplicates.parquet", duplicates)
    write_parquet(folder / "shared.parquet", losers)
    write_parquet(folder / "queues.parquet", queues)
    replace_file(folder / "done.json", json.dumps({"duplicates": duplicates.num_rows}).encode())


def decided(folder: Path) -> bool:
    """Whether the decisions are complete."""
    return (folder / "done.json").exists()


def read_decisions(folder: Path) -> Decisions:
    """The decisions of a launch whose survey is done."""
    duplicates = dict(_by_batch(pq.read_table(folder / "duplicates.parquet")))
    losers = pq.read_table(folder / "shared.parquet")
    shared: dict[str, dict[str, Rows]] = {}
    for campaign in losers["campaign"].unique().to_pylist():
        for batch, rows in _by_batch(losers.filter(pa.compute.equal(losers["campaign"], campaign))):
            shared.setdefault(batch, {})[campaign] = rows
    queues: dict[tuple[str, str], npt.NDArray[np.bytes_]] = {}
    for row in pq.read_table(folder / "queues.parquet").to_pylist():
        queues[row["campaign"], row["offer"]] = np.array(row["keys"], "S32")
    return Decisions(duplicates, shared, queues)


def _by_batch(table: pa.Table) -> Iterator[tuple[str, Rows]]:
    """(batch, rows) of a table with these columns."""
    if not table.num_rows:
        return
    ordered = table.sort_by([("batch", "ascending"), ("row", "ascending")])
    batches = ordered["batch"].combine_chunks().dictionary_encode()
    rows = ordered["row"].to_numpy().astype(np.int64)
    ends = np.flatnonzero(np.diff(batches.indices.to_numpy(), append=-1))
    for start, end in zip([0, *(ends[:-1] + 1).tolist()], (ends + 1).tolist(), strict=True):
        yield str(batches[start]), rows[start:end]
