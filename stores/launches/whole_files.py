"""Files of a launch, read back: one that is damaged is named, with what to do, and never passes for a whole one."""

from __future__ import annotations

import hashlib
import json
import os
import zlib
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from schemas.problems import InputError, Problem, shown

COUNTS, COUNTS_CRC = b"campaigns.counts", b"campaigns.counts_crc"
_DIGEST = "digest"
SNAPSHOT = "delete the folder snapshot/ of the launch and run the launch command again: the customers are read again"


def damaged(path: Path, how: str, fix: str) -> Problem:
    """What is wrong with a file, and what to do about it."""
    return Problem(str(path), "", f"damaged: {shown(how, 160)}", fix)


def read_json(path: Path, fix: str) -> dict[str, Any] | None:
    """The object in a JSON file, or None where there is no file. Raises InputError with the fix for anything else."""
    try:
        found = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise InputError([damaged(path, _told(error), fix)]) from error
    if not isinstance(found, dict):
        raise InputError([damaged(path, "no JSON object", fix)])
    return found


def with_digest(content: dict[str, Any]) -> dict[str, Any]:
    """The content with a digest of it, by which a later change is found."""
    return {**content, _DIGEST: _digest(content)}


def check_digest(path: Path, content: dict[str, Any], fix: str) -> dict[str, Any]:
    """The content without its digest, which files of earlier versions do not have. Raises InputError where it is
    another one's."""
    rest = {name: value for name, value in content.items() if name != _DIGEST}
    if content.get(_DIGEST, (own := _digest(rest))) != own:
        raise InputError([damaged(path, "it has been changed since it was written", fix)])
    return rest


def _digest(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def list_parquet(folder: Path, fix: str) -> dict[str, Path]:
    """The Parquet files of a folder by their names without the ending; none where there is no folder."""
    try:
        with os.scandir(folder) as entries:
            return {one.name.removesuffix(".parquet"): Path(one.path) for one in entries if _is_part(one.name)}
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise InputError([damaged(folder, _told(error), fix)]) from error


def _is_part(name: str) -> bool:
    return name.endswith(".parquet") and not name.startswith(".")


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
        raise InputError([damaged(path, _told(error), fix)]) from error


def batch_damage(path: Path, columns: Collection[str], *, counted: bool = True) -> str | None:
    """What is wrong with a file that has these columns, and the counts of its batch where it is `counted`; None where
    it is whole. Its pages are held against their checksums."""
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
        return _told(error)


def check_parquet(paths: Iterable[Path], fix: str) -> None:
    """Raises InputError with the fix for every file that is not whole."""
    if problems := [
        damaged(path, how, fix) for path in sorted(paths) if (how := batch_damage(path, (), counted=False))
    ]:
        raise InputError(problems)


def _told(error: BaseException) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
