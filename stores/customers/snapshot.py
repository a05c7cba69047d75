"""Temporary Parquet-only reader."""

from __future__ import annotations

import glob
import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

BATCH = 131_072


class CustomerFile(NamedTuple):
    path: str
    rows: int
    row_groups: tuple[int, ...]


class Rejected(NamedTuple):
    reason: str
    detail: str
    source: str
    data: bytes


@dataclass(frozen=True)
class Snapshot:
    files: tuple[CustomerFile, ...]
    schema: pa.Schema
    rows: int
    fingerprint: str
    source: str


class Part(NamedTuple):
    index: int
    path: str
    row_groups: tuple[int, ...]
    first_row: int
    rows: int
    batches: int


def take_snapshot(source: str, workdir: Path, *, progress: Callable[..., None] | None = None) -> Snapshot:
    path = Path(source)
    names = sorted(map(str, path.glob("*.parquet"))) if path.is_dir() else sorted(glob.glob(source))
    files, total = [], hashlib.sha256()
    for name in names:
        meta = pq.read_metadata(name)
        groups = tuple(meta.row_group(i).num_rows for i in range(meta.num_row_groups))
        files.append(CustomerFile(name, meta.num_rows, groups))
        total.update(f"{Path(name).name} {meta.num_rows} {Path(name).stat().st_size}".encode())
    return Snapshot(tuple(files), pq.read_schema(names[0]), sum(f.rows for f in files), total.hexdigest()[:16], source)


def read_rejected(snapshot: Snapshot) -> list[Rejected]:
    return []


def source_schema(source: str) -> pa.Schema:
    return take_snapshot(source, Path()).schema


def describe(source: str) -> list[tuple[str, str, float, list[object]]]:
    return [(f.name, str(f.type), 0.0, []) for f in source_schema(source)]


def parts(snapshot: Snapshot, batch_rows: int = BATCH) -> list[Part]:
    found: list[Part] = []
    for file in snapshot.files:
        at = 0
        groups: list[int] = []
        size = start = 0
        for index, rows in enumerate(file.row_groups):
            if groups and size + rows > batch_rows:
                found.append(Part(len(found), file.path, tuple(groups), start, size, -(-size // batch_rows)))
                groups, size, start = [], 0, at
            groups.append(index)
            size += rows
            at += rows
        if groups:
            found.append(Part(len(found), file.path, tuple(groups), start, size, -(-size // batch_rows)))
    return found


def read_part(part: Part, columns: Sequence[str], batch_rows: int = BATCH) -> Iterator[pa.RecordBatch]:
    with pq.ParquetFile(part.path) as file:
        batches = file.iter_batches(batch_rows, row_groups=list(part.row_groups), columns=list(columns))
        yield from batches


def find_customers(snapshot: Snapshot, column_equals: dict[str, str]) -> pa.Table:
    con = duckdb.connect()
    con.read_parquet([f.path for f in snapshot.files]).create_view("c")
    ((column, value),) = column_equals.items()
    return con.execute(f'SELECT * FROM c WHERE "{column}"::VARCHAR = ?', [value]).to_arrow_table()
