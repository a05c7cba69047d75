"""Parquet tables, read in place: checked by their footers, read by row group."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from connectors.tables.sources import check_names, check_same, open_binary, resize_batches, unusable
from schemas.elements import BROKEN_ROWS
from schemas.problems import InputError, JobError, Problem


class CustomerFile(NamedTuple):
    """One Parquet file: its path, the rows of each row group, and the memory of a row (bytes)."""

    path: str
    row_groups: tuple[int, ...]
    row_bytes: int

    @property
    def rows(self) -> int:
        """Rows of the file."""
        return sum(self.row_groups)


class Footers(NamedTuple):
    """The footers of a source's files: rows, common schema and a fingerprint."""

    files: tuple[CustomerFile, ...]
    schema: pa.Schema
    fingerprint: str


def read_footers(source: str, paths: Sequence[Path]) -> Footers:
    """The files with their common schema. Raises InputError for what is no Parquet and for schemas that differ."""
    files, total = [], hashlib.sha256()
    schema: pa.Schema | None = None
    for path in paths:
        try:
            with open_binary(path) as file, pq.ParquetFile(file) as parquet:
                meta, file_schema = parquet.metadata, plain_schema(parquet.schema_arrow)
        except (pa.ArrowException, OSError) as error:
            fix = f"is not a whole Parquet file ({str(error)[:200]}); get it again"
            raise unusable(source, path.name, fix) from error
        schema = schema or file_schema
        _check_alike(paths[0], schema, path, file_schema)
        groups = [meta.row_group(at) for at in range(meta.num_row_groups)]
        size = sum(group.total_byte_size for group in groups)
        counts = tuple(group.num_rows for group in groups)
        files.append(CustomerFile(str(path), counts, size // max(meta.num_rows, 1)))
        total.update(f"{path.name}\0{_footer_hash(path)}\0".encode())
    assert schema is not None
    check_names(source, schema.names)
    _check_types(source, schema)
    return Footers(tuple(files), schema, total.hexdigest()[:16])


def _check_types(source: str, schema: pa.Schema) -> None:
    """Raises InputError for columns whose type DuckDB cannot evaluate conditions over."""
    con = duckdb.connect(":memory:")
    problems = []
    for field in schema:
        try:
            con.register("column", pa.schema([field]).empty_table())
        except (duckdb.Error, pa.ArrowException):
            fix = "no condition can be evaluated over this type; write DECIMAL(38, …), DOUBLE or text, or leave it out"
            problems.append(Problem(source, field.name, str(field.type), fix))
    if problems:
        raise InputError(problems)


def _check_alike(first: Path, schema: pa.Schema, path: Path, file_schema: pa.Schema) -> None:
    check_same(first, schema.names, path, file_schema.names)
    types = [(name, schema.field(name).type, file_schema.field(name).type) for name in schema.names]
    problems = [
        Problem(path.name, name, str(kind), f"{first.name} has {first_kind}; write all alike")
        for name, first_kind, kind in types
        if kind != first_kind
    ]
    if problems:
        raise InputError(problems)


def _footer_hash(path: Path) -> str:
    """A hash of the footer, which holds sizes, places and statistics of all columns, and of the file's size."""
    with open_binary(path) as file:
        size = file.seek(-8, 2) + 8
        length = int.from_bytes(file.read(4), "little")
        file.seek(max(0, size - 8 - length))
        return hashlib.sha256(b"%d " % size + file.read(length)).hexdigest()


def plain_type(kind: pa.DataType) -> pa.DataType:
    """The type of a column in a batch: dictionaries, views, large strings and half floats become plain types."""
    if pa.types.is_dictionary(kind):
        return plain_type(kind.value_type)
    if isinstance(kind, pa.BaseExtensionType):
        return plain_type(kind.storage_type)
    if pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return pa.string()
    if pa.types.is_binary_view(kind) or pa.types.is_large_binary(kind):
        return pa.binary()
    return pa.float32() if pa.types.is_float16(kind) else kind


def plain_schema(schema: pa.Schema) -> pa.Schema:
    """The schema of the batches."""
    return pa.schema([pa.field(field.name, plain_type(field.type)) for field in schema])


def read_row_groups(
    path: str, row_groups: Sequence[int], columns: Sequence[str], batch_rows: int
) -> Iterator[pa.RecordBatch]:
    """Batches of exactly `batch_rows` rows except the last; texts are valid UTF-8 (see BROKEN_ROWS). Raises JobError
    where the file is damaged between its footer and its beginning."""
    with pq.ParquetFile(path, memory_map=True) as file:
        batches = file.iter_batches(batch_rows, row_groups=list(row_groups), columns=list(columns))
        for batch in resize_batches(_undamaged(path, batches), batch_rows):
            yield escape_broken(pa.record_batch([_plain(column) for column in batch.columns], names=batch.schema.names))


def _undamaged(path: str, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    try:
        yield from batches
    except (pa.ArrowException, OSError) as error:
        raise JobError(f"{path} is damaged ({' '.join(str(error).split())[:160]}); get it again") from error


def _plain(column: pa.Array) -> pa.Array:
    wanted = plain_type(column.type)
    if isinstance(column.type, pa.BaseExtensionType):
        column = column.storage
    return column if column.type == wanted else column.cast(wanted)


def escape_broken(batch: pa.RecordBatch) -> pa.RecordBatch:
    """The batch with its invalid UTF-8 escaped (`\\xff`), and the rows of it in the metadata."""
    columns, rows = [], np.zeros(batch.num_rows, np.bool_)
    for column in batch.columns:
        if (broken := _broken(column)) is not None:
            rows |= broken
            column = _escaped(column, broken)
        columns.append(column)
    if not rows.any():
        return batch
    metadata = {BROKEN_ROWS: np.flatnonzero(rows).astype(np.int64).tobytes()}
    return pa.record_batch(columns, names=batch.schema.names).replace_schema_metadata(metadata)


def _broken(column: pa.Array) -> np.ndarray | None:
    """The rows whose text, or text inside a list or struct, is not UTF-8; None if there are none."""
    try:
        column.validate(full=True)
        return None
    except pa.ArrowInvalid:
        pass
    broken = np.zeros(len(column), np.bool_)
    for row in range(len(column)):
        try:
            column.slice(row, 1).validate(full=True)
        except pa.ArrowInvalid:
            broken[row] = True
    return broken


def _escaped(column: pa.Array, broken: np.ndarray) -> pa.Array:
    if not pa.types.is_string(column.type):
        return pc.if_else(pa.array(broken), pa.scalar(None, column.type), column)
    raw = column.cast(pa.binary()).to_pylist()
    texts = [None if text is None else text.decode("utf-8", "backslashreplace") for text in raw]
    return pa.array(texts, pa.string())
