"""The results of the survey, which looks at all customers at once. Every worker reads the same files of survey/."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from connectors.files.whole_file import write_whole
from schemas.problems import Problem
from stores.launches.launch_folder import write_parquet
from stores.launches.whole_files import check_parquet, read_table

Rows = npt.NDArray[np.int64]
MEMORY = "400MB"
_FIX = "delete the folder survey/ of the launch and run the launch command again: all is decided again, the same way"
PLACES = pa.schema([("batch", pa.string()), ("row", pa.int64())])
SHARED_ADDRESSES = pa.schema([("channel", pa.string()), ("key", pa.string()), *PLACES])
SUPERSEDED = pa.schema([("campaign", pa.string()), *PLACES])
ALLOCATIONS = pa.schema([("campaign", pa.string()), ("offer", pa.string()), ("keys", pa.list_(pa.binary(32)))])
_COMPLETE = "done.json"
_SCHEMAS = {"duplicates": PLACES, "sharing": SHARED_ADDRESSES, "shared": SUPERSEDED, "queues": ALLOCATIONS}
"""The files by their names, which launches of earlier versions have too."""


def working_connection(folder: Path) -> duckdb.DuckDBPyConnection:
    """A connection for exact work over more rows than fit in memory: it spills into the folder."""
    con = duckdb.connect(":memory:")
    for setting in (f"memory_limit = '{MEMORY}'", "preserve_insertion_order = false", "threads = 2",
                    "python_enable_replacements = false"):  # fmt: skip
        con.execute(f"SET {setting}")
    con.execute("SET temp_directory = ?", [str(folder / "spill")])
    return con


def write_duplicates(folder: Path, duplicates: pa.Table, shared_addresses: pa.Table) -> None:
    """Write the later rows of each customer, and the rows that share an address."""
    write_parquet(folder / "duplicates.parquet", duplicates)
    write_parquet(folder / "sharing.parquet", shared_addresses)


def write_decisions(folder: Path, superseded: pa.Table, allocations: pa.Table) -> None:
    """Write which rows are superseded and what each limited offer grants. The results are complete then."""
    write_parquet(folder / "shared.parquet", superseded)
    write_parquet(folder / "queues.parquet", allocations)
    write_whole(folder / _COMPLETE, [b"{}"])


def is_complete(folder: Path) -> bool:
    """Whether all results are there. Raises InputError with every file of them that is damaged."""
    if not (folder / _COMPLETE).exists():
        return False
    check_parquet({folder / f"{name}.parquet": schema.names for name, schema in _SCHEMAS.items()}, _FIX)
    return True


def incomplete(folder: Path) -> Problem:
    """The problem of a launch that has finished batches and no complete survey."""
    return Problem(str(folder / _COMPLETE), "", "missing", _FIX)


def _read(folder: Path, name: str, columns: list[str] | None = None) -> pa.Table:
    return read_table(folder / f"{name}.parquet", columns, _FIX)


def read_duplicates(folder: Path) -> dict[str, Rows]:
    """The rows whose customer has an earlier row, by batch name."""
    return dict(rows_by_batch(_read(folder, "duplicates")))


def read_rows_with_shared_address(folder: Path) -> dict[str, Rows]:
    """The rows that share an address, by batch name."""
    table = _read(folder, "sharing", ["batch", "row"])
    return {batch: np.unique(rows) for batch, rows in rows_by_batch(table)}


def read_shared_addresses(folder: Path) -> dict[str, pa.Array]:
    """The keys of the addresses that several customers have, by channel."""
    table = _read(folder, "sharing", ["channel", "key"])
    channels = table["channel"].unique().to_pylist()
    return {name: table.filter(pc.equal(table["channel"], name))["key"].combine_chunks().unique() for name in channels}


def read_superseded(folder: Path) -> dict[str, dict[str, Rows]]:
    """The rows to which another customer with the same address is preferred, by batch name and campaign."""
    table = _read(folder, "shared")
    superseded: dict[str, dict[str, Rows]] = {}
    for campaign in table["campaign"].unique().to_pylist():
        for batch, rows in rows_by_batch(table.filter(pc.equal(table["campaign"], campaign))):
            superseded.setdefault(batch, {})[campaign] = rows
    return superseded


def read_offer_allocations(folder: Path) -> dict[tuple[str, str], npt.NDArray[np.bytes_]]:
    """The order keys that each limited offer grants, sorted, by (campaign, offer). Of a budget only the cut-off, and
    nothing if the demand is below it."""
    rows = _read(folder, "queues").to_pylist()
    return {(row["campaign"], row["offer"]): np.array(row["keys"], "S32") for row in rows}


def rows_by_batch(table: pa.Table) -> Iterator[tuple[str, Rows]]:
    """(batch, rows) of a table with these columns."""
    if not table.num_rows:
        return
    ordered = table.sort_by([("batch", "ascending"), ("row", "ascending")])
    batches = ordered["batch"].combine_chunks().dictionary_encode()
    rows = ordered["row"].to_numpy().astype(np.int64)
    ends = np.flatnonzero(np.diff(batches.indices.to_numpy(), append=-1))
    for start, end in zip([0, *(ends[:-1] + 1).tolist()], (ends + 1).tolist(), strict=True):
        yield str(batches[start]), rows[start:end]
