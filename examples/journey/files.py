"""Parquet files that are there whole or not at all, and what the loaders say while they work."""

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
    """A writer beside the path; the file takes its place when all went well. Folders are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with pq.ParquetWriter(beside, schema, compression="zstd") as writer:
            yield writer
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def write(table: pa.Table, path: Path, row_group: int) -> None:
    """Write a table in row groups of so many rows."""
    with whole_file(path, table.schema) as writer:
        writer.write_table(table, row_group)


def say(text: str) -> None:
    """A line of progress on stderr."""
    print(text, file=sys.stderr, flush=True)
