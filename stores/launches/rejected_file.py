"""The file of the snapshot with the customer rows that could not be read."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from connectors.tables.sources import BATCH_ROWS, Rejected, unusable

MAX_BATCH_BYTES = 256 << 20
FUSE_SHARE, FUSE_ROWS = 0.1, 100
_REJECTED = pa.schema({**dict.fromkeys(("reason", "detail", "source"), pa.string()), "data": pa.binary()})


class RejectedFile:
    """Writes the rows that could not be read, and refuses a source with too many of them."""

    def __init__(self, source: str, path: Path) -> None:
        self._source, self._path = source, path
        self._writer: pq.ParquetWriter | None = None
        self._buffer: list[Rejected] = []
        self._count = self._good = self._bytes = 0
        self._first: list[Rejected] = []

    def add(self, row: Rejected) -> None:
        """Add a row."""
        self._count += 1
        self._first += [row] if len(self._first) < 3 else []
        self._buffer.append(row)
        self._bytes += len(row.data)
        if self._bytes > MAX_BATCH_BYTES or len(self._buffer) >= BATCH_ROWS:
            self._flush()

    def check_fuse(self, good: int, at_the_end: bool = False) -> None:
        """Count `good` more rows. Raises InputError when of all rows more than a tenth (and more than a hundred) cannot
        be read, or at the end none can."""
        self._good += good
        total = self._good + self._count
        if (self._count > FUSE_ROWS and self._count > FUSE_SHARE * total) or (
            at_the_end and self._count and not self._good
        ):
            examples = "; ".join(f"{row.source}: {row.detail}" for row in self._first)
            fix = f"so much is broken that the source must be wrong, and nothing was sent. The first: {examples}"
            raise unusable(self._source, f"{self._count:,} of {total:,} rows cannot be read", fix)

    def _flush(self) -> None:
        if self._buffer:
            self._writer = self._writer or pq.ParquetWriter(self._path, _REJECTED, write_page_checksum=True)
            self._writer.write_batch(pa.RecordBatch.from_pylist([r._asdict() for r in self._buffer], schema=_REJECTED))
            self._buffer, self._bytes = [], 0

    def close(self) -> None:
        """Write the remaining rows and close the file."""
        self._flush()
        if self._writer is not None:
            self._writer.close()
