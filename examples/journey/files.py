"""Write Parquet files atomically, and print progress."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq


@contextmanager
def whole_file(path: Path, schema: pa.Schema) -> Iterator[pq.ParquetWriter]:
    """A writer of a temporary file, which is renamed to the path when the block succeeds. Creates the folders."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with pq.ParquetWriter(temporary, schema, compression="zstd") as writer:
            yield writer
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write(table: pa.Table, path: Path, row_group: int) -> None:
    """Write a table in row groups of `row_group` rows."""
    with whole_file(path, table.schema) as writer:
        writer.write_table(table, row_group)


def say(text: str) -> None:
    """Print a line of progress to stderr."""
    print(text, file=sys.stderr, flush=True)
