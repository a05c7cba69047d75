"""Sources of tables: files of one format, or BigQuery; all give large Arrow record batches."""

from __future__ import annotations

import glob
import hashlib
import io
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple, Protocol, cast

import pyarrow as pa

from schemas.problems import InputError, Problem

BATCH_ROWS = 131_072
SAMPLE_ROWS = 20_480
"""Rows from which the types of CSV and NDJSON columns are taken."""
FORMATS = {".parquet": "parquet", ".csv": "csv", ".ndjson": "ndjson", ".jsonl": "ndjson", ".avro": "avro"}
BIGQUERY = "bigquery:"
_FORMS = (
    "a .parquet, .csv, .ndjson (.jsonl) or .avro file (.csv.gz and .ndjson.gz too), a folder or a glob of them, "
    "or bigquery:…"
)


class Rejected(NamedTuple):
    """A row that could not be read: the reason, what to do, its place, and its bytes."""

    reason: str
    detail: str
    source: str
    data: bytes


Reject = Callable[[Rejected], None]


class Source(Protocol):
    """A source of customers. `batches` yields every readable row in a stable order and `reject`s the others."""

    @property
    def schema(self) -> pa.Schema: ...
    def batches(self, reject: Reject) -> Iterator[pa.RecordBatch]: ...


def unusable(source: str, value: str, fix: str, field: str = "--customers") -> InputError:
    """The error for a source that cannot be used."""
    return InputError([Problem(source, field, value, fix)])


def format_of(name: str) -> str | None:
    """The format of a file by its name; None for an unknown one."""
    path = Path(name.lower())
    suffix = Path(path.stem).suffix if path.suffix == ".gz" else path.suffix
    kind = FORMATS.get(suffix)
    return None if path.suffix == ".gz" and kind not in ("csv", "ndjson") else kind


def find_files(source: str) -> tuple[str, list[Path]]:
    """The format and the files of a source, sorted by name. Raises InputError when there is none, or a mixture."""
    path = Path(source)
    if path.is_dir():
        files = sorted(p for p in path.iterdir() if format_of(p.name) and not p.name.startswith((".", "_")))
    else:
        files = [path] if path.is_file() else sorted(Path(name) for name in glob.glob(source))
    if not files:
        raise unusable(source, "no file", f"there is no such file; give {_FORMS}")
    formats = {format_of(file.name) for file in files}
    if None in formats:
        other = next(file for file in files if format_of(file.name) is None)
        raise unusable(source, other.name, f"is of no known format; give {_FORMS}")
    if len(formats) > 1:
        raise unusable(source, ", ".join(sorted(map(str, formats))), "holds several formats; give files of one")
    if empty := [file.name for file in files if not file.stat().st_size]:
        raise unusable(source, ", ".join(empty[:3]), "is empty (0 bytes); write the file again, or remove it")
    return str(formats.pop()), files


def files_fingerprint(files: Sequence[Path]) -> str:
    """A hash of the files' names and bytes. Raises InputError for a file that may not be read."""
    total = hashlib.sha256()
    for path in files:
        with open_binary(path) as file:
            digest = hashlib.file_digest(cast(io.BufferedReader, file), "sha256")
        total.update(f"{path.name}\0{digest.hexdigest()}\0".encode())
    return total.hexdigest()[:16]


def open_binary(path: Path) -> BinaryIO:
    """A file's bytes. Raises InputError when it may not be read."""
    try:
        return path.open("rb")
    except OSError as error:
        raise unusable(str(path), path.name, f"cannot be read ({error.strerror}); check its permissions") from error


def check_names(where: str, names: Sequence[str]) -> None:
    """Raises InputError for column names that are empty, or the same without regard to case (as SQL compares them)."""
    seen: dict[str, str] = {}
    problems = []
    for name in names:
        other = seen.setdefault(name.lower(), name)
        if not name.strip():
            fix = "a column has no name; name it in the first line"
            problems.append(Problem(where, "column name", repr(name), fix))
        elif other is not name:
            problems.append(Problem(where, "column name", name, f"is the name of two columns ({other}); rename one"))
    if problems:
        raise InputError(problems)


def check_same(first: Path, names: Sequence[str], other: Path, others: Sequence[str]) -> None:
    """Raises InputError when two files of one source do not have the same columns."""
    missing, more = sorted(set(names) - set(others)), sorted(set(others) - set(names))
    fix = f"{first.name}, the first file, has other columns: write all files alike"
    problems = [Problem(other.name, "column", name, f"is missing here; {fix}") for name in missing]
    problems += [Problem(other.name, "column", name, f"is only here; {fix}") for name in more]
    if problems:
        raise InputError(problems)


def resize_batches(batches: Iterator[pa.RecordBatch], rows: int) -> Iterator[pa.RecordBatch]:
    """The same rows in batches of exactly `rows`, except the last."""
    waiting: list[pa.RecordBatch] = []
    count = 0
    for batch in batches:
        if not waiting and batch.num_rows == rows:
            yield batch
            continue
        while count + batch.num_rows >= rows:
            yield _joined([*waiting, batch.slice(0, rows - count)])
            batch = batch.slice(rows - count)
            waiting, count = [], 0
        if batch.num_rows:
            waiting.append(batch)
            count += batch.num_rows
    if waiting:
        yield _joined(waiting)


def _joined(batches: list[pa.RecordBatch]) -> pa.RecordBatch:
    return batches[0] if len(batches) == 1 else pa.concat_batches(batches)
