"""The customers of one launch. Parquet is read where it is; every other source is converted once into snapshot/."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from connectors.files.whole_file import cannot_write, write_whole
from connectors.tables.avro_files import AvroFiles
from connectors.tables.bigquery import BigQueryRows
from connectors.tables.csv_files import CsvFiles
from connectors.tables.ndjson_files import NdjsonFiles
from connectors.tables.parquet_files import CustomerFile, Footers, plain_schema, read_footers, read_row_groups
from connectors.tables.sources import (
    BATCH_ROWS,
    BIGQUERY,
    Rejected,
    Source,
    files_fingerprint,
    find_files,
    resize_batches,
    unusable,
)
from schemas.columns.ids import id_texts
from schemas.problems import InputError
from stores.launches.rejected_file import MAX_BATCH_BYTES, RejectedFile
from stores.launches.whole_files import SNAPSHOT, check_parquet, read_json

FILE_ROWS = 8 * BATCH_ROWS


@dataclass(frozen=True)
class Snapshot:
    """Customers as Parquet files; `rejected` is the file of the rows that could not be read, if there are any."""

    files: tuple[CustomerFile, ...]
    schema: pa.Schema
    rows: int
    fingerprint: str
    source: str
    rejected: str | None = None


class Part(NamedTuple):
    """Some row groups of a file, read as `batches` batches of `batch_rows` rows (the last one may be shorter)."""

    number: int
    path: str
    row_groups: tuple[int, ...]
    rows: int
    batch_rows: int

    @property
    def batches(self) -> int:
        """How many batches the part has."""
        return -(-self.rows // self.batch_rows)


def take_snapshot(source: str, folder: Path, ids: Collection[str] = ()) -> Snapshot:
    """The customers of a source. A converted source is kept in `folder`/snapshot, and reused on a resume. `ids` are
    columns whose values are read exactly as they were written. Raises InputError for a source that cannot be read, has
    no customers, or has more than a tenth of rows that cannot be read."""
    if source.startswith(BIGQUERY):
        # Of the query text alone: it runs once, as its result may change.
        digest = hashlib.sha256(source.removeprefix(BIGQUERY).strip().encode()).hexdigest()[:16]
        return _converted(source, digest, lambda: BigQueryRows(source), folder / "snapshot", ())
    try:
        kind, paths = find_files(source)
    except InputError:
        if (kept := _kept(source, folder / "snapshot")) is not None:
            return kept
        raise
    if kind == "parquet":
        footers = read_footers(source, paths)
        return _given(source, footers, footers.fingerprint)
    make = partial(open_files, kind, source, paths, ids)
    return _converted(source, files_fingerprint(paths), make, folder / "snapshot", ids)


def open_files(kind: str, source: str, paths: Sequence[Path], ids: Collection[str] = ()) -> Source:
    """The rows of files of a format that is not Parquet."""
    if kind == "avro":
        return AvroFiles(source, paths)
    return (CsvFiles if kind == "csv" else NdjsonFiles)(source, paths, ids)


def _given(source: str, footers: Footers, fingerprint: str, rejected: str | None = None) -> Snapshot:
    rows = sum(file.rows for file in footers.files)
    if not rows:
        raise _nobody(source)
    return Snapshot(footers.files, footers.schema, rows, fingerprint, source, rejected)


def _nobody(source: str) -> InputError:
    return unusable(source, "0 rows", "holds no customers: nobody would be sent anything; check the source")


def _kept(
    source: str, folder: Path, fingerprint: str | None = None, ids: Collection[str] | None = None
) -> Snapshot | None:
    """The snapshot that was converted before from the same source, content and id columns, where these are given."""
    stored = read_json(folder / "done.json", SNAPSHOT)
    if stored is None or stored.get("source") != source or fingerprint not in (None, stored.get("fingerprint")):
        return None
    if ids is not None and sorted(ids) != stored.get("ids", []):
        return None
    files = {*folder.glob("*.parquet"), *(folder / str(name) for name in stored.get("files", ()))}
    check_parquet(dict.fromkeys(sorted(files), ()), SNAPSHOT)
    return _stored(source, folder, str(stored.get("fingerprint")))


def _stored(source: str, folder: Path, fingerprint: str) -> Snapshot:
    footers = read_footers(source, sorted(folder.glob("part-*.parquet")))
    rejected = folder / "rejected.parquet"
    return _given(source, footers, fingerprint, str(rejected) if rejected.exists() else None)


def _converted(
    source: str, fingerprint: str, open_source: Callable[[], Source], folder: Path, ids: Collection[str]
) -> Snapshot:
    """The snapshot of a source that is not Parquet; the source is opened only when there is none yet. A launch that was
    started keeps its snapshot: if the fingerprint has changed, the manifest refuses it."""
    if (kept := _kept(source, folder, fingerprint, ids)) is not None:
        return kept
    if (folder / "done.json").exists() and (folder.parent / "manifest.json").exists():
        return _stored(source, folder, fingerprint)
    opened = open_source()
    shutil.rmtree(folder, ignore_errors=True)
    try:
        folder.mkdir(parents=True)
        _write(source, opened, folder)
        names = sorted(path.name for path in folder.glob("*.parquet"))
        done = {"source": source, "fingerprint": fingerprint, "ids": sorted(ids), "files": names}
        write_whole(folder / "done.json", [json.dumps(done).encode()])
    except OSError as error:
        raise cannot_write(folder, error) from error
    return _stored(source, folder, fingerprint)


def _write(source: str, opened: Source, folder: Path) -> None:
    rejected = RejectedFile(source, folder / "rejected.parquet")
    rows, number = 0, 0
    writer: pq.ParquetWriter | None = None
    try:
        for batch in resize_batches(opened.batches(rejected.add), BATCH_ROWS):
            if writer is None or rows >= FILE_ROWS:
                if writer is not None:
                    writer.close()
                writer = pq.ParquetWriter(
                    folder / f"part-{number:05d}.parquet", opened.schema, compression="lz4", write_page_checksum=True
                )
                rows, number = 0, number + 1
            writer.write_batch(batch, row_group_size=BATCH_ROWS)
            rows += batch.num_rows
            rejected.check_fuse(batch.num_rows)
        rejected.check_fuse(0, at_the_end=True)
        if writer is None:
            raise _nobody(source)
    finally:
        if writer is not None:
            writer.close()
        rejected.close()


def read_rejected(snapshot: Snapshot) -> Iterator[Rejected]:
    """The rows that could not be read, in the order of the source."""
    if snapshot.rejected is not None:
        with pq.ParquetFile(snapshot.rejected) as file:
            for batch in file.iter_batches(1_000):
                for row in batch.to_pylist():
                    yield Rejected(**row)


def rejected_by_reason(snapshot: Snapshot) -> dict[str, int]:
    """How many rows could not be read, by reason."""
    return dict(Counter(row.reason for row in read_rejected(snapshot)))


def parts(snapshot: Snapshot, batch_rows: int = BATCH_ROWS) -> list[Part]:
    """The snapshot cut at row groups into parts of about `batch_rows` rows; batches of large rows have fewer."""
    result: list[Part] = []
    for file in snapshot.files:
        rows = max(1, min(batch_rows, MAX_BATCH_BYTES // max(file.row_bytes, 1)))
        groups: list[int] = []
        size = 0
        for index, count in enumerate(file.row_groups):
            if groups and size + count > batch_rows:
                result.append(Part(len(result), file.path, tuple(groups), size, rows))
                groups, size = [], 0
            groups.append(index)
            size += count
        if size:
            result.append(Part(len(result), file.path, tuple(groups), size, rows))
    return result


def read_part(part: Part, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """The batches of a part."""
    return read_row_groups(part.path, part.row_groups, columns, part.batch_rows)


def find_customers(snapshot: Snapshot, column: str, value: str) -> pa.Table:
    """The rows with a value in a column of ids."""
    schema = plain_schema(snapshot.schema)
    tables = [schema.empty_table()]
    for part in parts(snapshot):
        keys = [id_texts(batch.column(0)) for batch in read_part(part, [column])]
        if not any(pc.any(pc.equal(texts, value)).as_py() for texts in keys):
            continue
        for texts, batch in zip(keys, read_part(part, schema.names), strict=True):
            tables.append(pa.Table.from_batches([batch.replace_schema_metadata(None)]).filter(pc.equal(texts, value)))
    return pa.concat_tables(tables)


def source_schema(source: str, ids: Collection[str] = ()) -> pa.Schema:
    """The columns of a source, without converting it."""
    return open_rows(source, ids=ids)[0]


def open_rows(
    source: str, column: str | None = None, ids: Collection[str] = ()
) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
    """The columns of a source, and its rows without those that cannot be read; of Parquet files only `column`, if it is
    given. `ids` are columns whose values are read exactly as they were written."""
    if source.startswith(BIGQUERY):
        rows = BigQueryRows(source)
        return rows.schema, rows.batches(lambda _: None)
    kind, paths = find_files(source)
    if kind != "parquet":
        opened = open_files(kind, source, paths, ids)
        return opened.schema, opened.batches(lambda _: None)
    snapshot = _given(source, footers := read_footers(source, paths), footers.fingerprint)
    names = snapshot.schema.names if column is None else [column]
    return snapshot.schema, (batch for part in parts(snapshot) for batch in read_part(part, names))


def distinct_values(source: str, column: str) -> set[str]:
    """The values of a column as ids, without nulls. Reads the whole source; rows that cannot be read are left out."""
    distinct: set[str] = set()
    for batch in open_rows(source, column, [column])[1]:
        distinct.update(id_texts(pc.unique(batch.column(column))).drop_null().to_pylist())
    return distinct


class Column(NamedTuple):
    """A column: its type, and the share of nulls and some values of the first rows."""

    name: str
    type: str
    nulls: float
    examples: list[Any]


def describe(source: str, rows: int = 10_000) -> list[Column]:
    """The columns of a source, described from its first rows."""
    schema, batches = open_rows(source)
    first = next(iter(resize_batches(batches, rows)), None)
    if first is None:
        raise unusable(source, "0 rows", "holds no readable customers")
    return [
        Column(field.name, str(field.type), column.null_count / len(column), _examples(column))
        for field, column in zip(schema, first.columns, strict=True)
    ]


def _examples(column: pa.Array) -> list[Any]:
    examples: list[Any] = []
    for value in column.drop_null().slice(0, 1_000).to_pylist():
        if value not in examples:
            examples.append(value)
        if len(examples) == 3:
            break
    return examples
