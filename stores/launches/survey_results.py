"""What a launch decides over all customers at once, kept in its folder: every worker reads the same."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from connectors.files.whole_file import write_whole
from schemas.problems import InputError, Problem
from stores.launches.launch_folder import write_parquet
from stores.launches.whole_files import batch_damage, damaged, read_table

Rows = npt.NDArray[np.int64]
MEMORY = "400MB"
_FIX = "delete the folder survey/ of the launch and run the launch command again: all is decided again, the same way"
PLACES = pa.schema([("batch", pa.string()), ("row", pa.int64())])
SHARING = pa.schema([("channel", pa.string()), ("key", pa.string()), *PLACES])
LOSERS = pa.schema([("campaign", pa.string()), *PLACES])
QUEUES = pa.schema([("campaign", pa.string()), ("offer", pa.string()), ("keys", pa.list_(pa.binary(32)))])


def working_connection(folder: Path) -> duckdb.DuckDBPyConnection:
    """A connection for exact work over more rows than fit in memory: it spills into the folder."""
    con = duckdb.connect(":memory:")
    for setting in (f"memory_limit = '{MEMORY}'", "preserve_insertion_order = false", "threads = 2",
                    "python_enable_replacements = false"):  # fmt: skip
        con.execute(f"SET {setting}")
    con.execute("SET temp_directory = ?", [str(folder / "spill")])
    return con


def write_repeats(folder: Path, duplicates: pa.Table, sharing: pa.Table) -> None:
    """Write who stands twice (batch, row), and who shares an address with whom (channel, key, batch, row)."""
    write_parquet(folder / "duplicates.parquet", duplicates)
    write_parquet(folder / "sharing.parquet", sharing)


def write_decisions(folder: Path, losers: pa.Table, queues: pa.Table) -> None:
    """Write who is preferred to whom and the queues of the limited offers; the marker comes last."""
    write_parquet(folder / "shared.parquet", losers)
    write_parquet(folder / "queues.parquet", queues)
    write_whole(folder / "done.json", [b"{}"])


def decided(folder: Path) -> bool:
    """Whether the decisions are complete. Raises InputError with every file of them that is damaged."""
    if not (folder / "done.json").exists():
        return False
    schemas = {"duplicates": PLACES, "sharing": SHARING, "shared": LOSERS, "queues": QUEUES}
    found = {folder / f"{name}.parquet": schema.names for name, schema in schemas.items()}
    problems = [
        damaged(path, how, _FIX)
        for path, columns in found.items()
        if (how := batch_damage(path, columns, counted=False)) is not None
    ]
    if problems:
        raise InputError(problems)
    return True


def undecided(folder: Path) -> Problem:
    """What is wrong with a launch that has batches which are done, and is not decided."""
    return Problem(str(folder / "done.json"), "", "missing", _FIX)


def _read(folder: Path, name: str, columns: list[str] | None = None) -> pa.Table:
    return read_table(folder / f"{name}.parquet", columns, _FIX)


def read_duplicates(folder: Path) -> dict[str, Rows]:
    """The rows of customers that stand in an earlier row too, by the name of their batch."""
    return dict(rows_by_batch(_read(folder, "duplicates")))


def read_sharing_rows(folder: Path) -> dict[str, Rows]:
    """The rows that share an address, by the name of their batch."""
    table = _read(folder, "sharing", ["batch", "row"])
    return {batch: np.unique(rows) for batch, rows in rows_by_batch(table)}


def read_sharing_keys(folder: Path) -> dict[str, pa.Array]:
    """The keys of the addresses that several customers have, by channel."""
    table = _read(folder, "sharing", ["channel", "key"])
    channels = table["channel"].unique().to_pylist()
    return {name: table.filter(pc.equal(table["channel"], name))["key"].combine_chunks().unique() for name in channels}


def read_losers(folder: Path) -> dict[str, dict[str, Rows]]:
    """The rows that another customer with the same address is preferred to, by batch and campaign."""
    losers = _read(folder, "shared")
    found: dict[str, dict[str, Rows]] = {}
    for campaign in losers["campaign"].unique().to_pylist():
        for batch, rows in rows_by_batch(losers.filter(pc.equal(losers["campaign"], campaign))):
            found.setdefault(batch, {})[campaign] = rows
    return found


def read_queues(folder: Path) -> dict[tuple[str, str], npt.NDArray[np.bytes_]]:
    """By (campaign, offer) the granted order keys, sorted, or only the last; none where nobody is refused."""
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
