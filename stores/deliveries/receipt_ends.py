"""The outcome of each event by its receipts, in a file on disk: a million receipts need little memory."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import duckdb
import pyarrow as pa

from schemas.problems import InputError, Problem, shown

_OUTCOMES = ("accepted", "rejected", "expired", "unknown")  # best first
# Aggregates of numbers alone, which DuckDB can move to the disk.
_ENDS = """
CREATE TABLE ends AS SELECT event_id,
    CASE WHEN min(place) = 0 THEN 0 ELSE 3 - max(greatest(settled_at, 0)::HUGEINT * 4 + 3 - place) % 4 END AS place,
    CASE WHEN min(place) = 0 THEN min(settled_at) FILTER (place = 0) ELSE max(settled_at) END AS settled_at
FROM receipts GROUP BY event_id
"""


class End(NamedTuple):
    """An event, its outcome, and when it was settled (epoch ms)."""

    event_id: str
    outcome: str
    settled_at: int


class ReceiptEnds:
    """Takes receipts and returns the outcome of each event: the first accepted one, else the last one, as the view
    `outcomes` of stores/deliveries/receipts.py has it. A context manager; its file is in `folder` while it is open."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __enter__(self) -> ReceiptEnds:
        self._directory = tempfile.TemporaryDirectory(prefix=".rebuild-", dir=self._folder)
        self._con = duckdb.connect(f"{self._directory.name}/ends.duckdb", config={"threads": 2})
        self._con.execute("SET memory_limit = '256MB'; SET preserve_insertion_order = false")
        self._con.execute("SET enable_progress_bar = false")
        self._con.execute("CREATE TABLE receipts (event_id VARCHAR, place TINYINT, settled_at BIGINT)")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._con.close()
        self._directory.cleanup()

    def add(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Add rows with the fields of a Receipt. Raises InputError for an outcome that no receipt has."""
        wrong = {row["outcome"] for row in rows} - {*_OUTCOMES}
        if wrong:
            fix = f"is no outcome of a receipt: {', '.join(_OUTCOMES)}"
            raise InputError([Problem("receipts", "outcome", shown(min(wrong)), fix)])
        chunk = pa.table(
            {
                "event_id": pa.array([row["event_id"] for row in rows], pa.string()),
                "place": pa.array([_OUTCOMES.index(row["outcome"]) for row in rows], pa.int8()),
                "settled_at": pa.array([row["settled_at"] for row in rows], pa.int64()),
            }
        )
        self._con.register("chunk", chunk)
        self._con.execute("INSERT INTO receipts FROM chunk")
        self._con.unregister("chunk")

    def gather(self) -> int:
        """Compute the outcomes of all that was added; how many events there are."""
        self._con.execute(_ENDS)
        return int(self._con.execute("SELECT count(*) FROM ends").fetchall()[0][0])

    def each(self, step: int) -> Iterator[list[End]]:
        """The outcomes in the order of their times, so many at a time; after `gather`."""
        cursor = self._con.execute("SELECT event_id, place, settled_at FROM ends ORDER BY settled_at, event_id")
        while rows := cursor.fetchmany(step):
            yield [End(event_id, _OUTCOMES[place], settled_at) for event_id, place, settled_at in rows]
