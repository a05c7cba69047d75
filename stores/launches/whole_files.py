"""Read files of a launch. A damaged file raises InputError that names it and says what to do."""

from __future__ import annotations

import hashlib
import json
import os
import zlib
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from schemas.problems import InputError, Problem, shown

COUNTS, COUNTS_CRC = b"campaigns.counts", b"campaigns.counts_crc"
_DIGEST = "digest"
SNAPSHOT = "delete the folder snapshot/ of the launch and run the launch command again: the customers are read again"


def damaged(path: Path, damage: str, fix: str) -> Problem:
    """The problem of a damaged file."""
    return Problem(str(path), "", f"damaged: {shown(damage, 160)}", fix)


def read_json(path: Path, fix: str) -> dict[str, Any] | None:
    """The object in a JSON file, or None where there is no file. Raises InputError with the fix for anything else."""
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise InputError([damaged(path, _describe(error), fix)]) from error
    if not isinstance(content, dict):
        raise InputError([damaged(path, "no JSON object", fix)])
    return content


def with_digest(content: dict[str, Any]) -> dict[str, Any]:
    """The content with its digest, by which a later change is detected."""
    return {**content, _DIGEST: _digest(content)}


def check_digest(path: Path, content: dict[str, Any], fix: str) -> dict[str, Any]:
    """The content without its digest (earlier versions wrote none). Raises InputError when it has changed."""
    rest = {name: value for name, value in content.items() if name != _DIGEST}
    if content.get(_DIGEST, (digest := _digest(rest))) != digest:
        raise InputError([damaged(path, "it has been changed since it was written", fix)])
    return rest


def _digest(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def list_parquet(folder: Path, fix: str) -> dict[str, Path]:
    """The Parquet files of a folder by their names without the suffix; none if there is no folder."""
    try:
        with os.scandir(folder) as entries:
            return {
                entry.name.removesuffix(".parquet"): Path(entry.path)
                for entry in entries
                if entry.name.endswith(".parquet") and not entry.name.startswith(".")
            }
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise InputError([damaged(folder, _describe(error), fix)]) from error


def counts_metadata(counts: dict[str, Any]) -> dict[bytes, bytes]:
    """A batch's counts as the metadata of its file."""
    data = json.dumps(counts, separators=(",", ":")).encode()
    return {COUNTS: data, COUNTS_CRC: b"%d" % zlib.crc32(data)}


def read_table(path: Path, columns: Sequence[str] | None, fix: str) -> pa.Table:
    """The columns of a Parquet file, its checksums verified. Raises InputError with the fix for a damaged one."""
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            return file.read(columns=columns, use_threads=False)
    except (OSError, pa.ArrowException, ValueError, KeyError) as error:
        raise InputError([damaged(path, _describe(error), fix)]) from error


def batch_damage(path: Path, columns: Collection[str], *, counted: bool = True) -> str | None:
    """The damage of a Parquet file, None if it is whole: its pages match their checksums, it has these columns, and, if
    `counted`, the counts of its batch."""
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            metadata = file.metadata.metadata or {}
            if counted and COUNTS not in metadata:
                return "the counts of its batch are missing"
            if counted and metadata.get(COUNTS_CRC, own := b"%d" % zlib.crc32(metadata[COUNTS])) != own:
                return "the counts of its batch have been changed"
            if missing := [name for name in columns if name not in file.schema_arrow.names]:
                return f"it has no column {missing[0]}"
            rows = sum(batch.num_rows for batch in file.iter_batches(use_threads=False))
            return None if rows == file.metadata.num_rows else f"{rows:,} of {file.metadata.num_rows:,} rows are there"
    except (OSError, pa.ArrowException, ValueError, KeyError) as error:
        return _describe(error)


def check_parquet(files: Mapping[Path, Collection[str]], fix: str) -> None:
    """Raises InputError with the fix for every file that is not whole or lacks one of its columns."""
    damages = {path: batch_damage(path, columns, counted=False) for path, columns in files.items()}
    if problems := [damaged(path, damage, fix) for path, damage in damages.items() if damage is not None]:
        raise InputError(problems)


def _describe(error: BaseException) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
