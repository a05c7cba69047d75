"""Avro container files written in one piece: a part is there completely or not at all, the same on every run."""

from __future__ import annotations

import errno
import json
import os
import uuid
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from apache_beam.io.filesystems import FileSystems
from google.api_core.exceptions import GoogleAPICallError
from google.auth.exceptions import GoogleAuthError

from schemas.codec.varints import offsets, zigzag
from schemas.contracts import ContractError
from schemas.problems import JobError

_BLOCK = 2 << 20  # bytes of records in a block, a larger record alone
_AGAIN = "then run the same command again: finished parts are written again just as they are"
_TODO = {
    errno.ENOSPC: "Free some space",
    errno.EDQUOT: "Free some space",
    errno.EFBIG: "Raise the limit on the size of files",
    errno.EACCES: "Give this account the right to write there, or choose another folder",
    errno.EROFS: "Choose a folder that can be written",
}


@dataclass(frozen=True)
class FileSink:
    """Writes parts, DIRECTORY/PART.avro, of records that are encoded already; local folders and gs://."""

    directory: str
    codec: Literal["null", "deflate"] = "null"

    def __post_init__(self) -> None:
        if self.codec not in ("null", "deflate"):
            raise ValueError(f"codec {self.codec!r} is neither null nor deflate")

    def write(self, part: str, schema: Mapping[str, Any], bodies: pa.Array) -> str:
        """The path of the new file, which replaces an earlier one of that name.

        The same part and bodies give the same bytes: the sync marker is derived from the part's name.
        Raises JobError when it cannot be written, ContractError for null bodies.
        """
        if not part or "/" in part:
            raise ValueError(f"{part!r} is no name of a part")
        if bodies.null_count:
            raise ContractError(part, "a record without a body", int(np.argmax(np.asarray(bodies.is_null()))))
        path = f"{self.directory.rstrip('/') or '/'}/{part}.avro"
        write_whole(path, self._chunks(part, schema, bodies.cast(pa.large_binary())))
        return path

    def _chunks(
        self, part: str, schema: Mapping[str, Any], bodies: pa.LargeBinaryArray
    ) -> Iterator[bytes | memoryview]:
        sync = blake2b(part.encode(), digest_size=16).digest()
        meta = {"avro.codec": self.codec.encode(), "avro.schema": json.dumps(schema).encode()}
        pairs = b"".join(_with_length(key.encode()) + _with_length(value) for key, value in meta.items())
        yield b"Obj\x01" + zigzag(len(meta)) + pairs + zigzag(0) + sync
        for count, block in _blocks(bodies):
            data = _deflated(block) if self.codec == "deflate" else block
            yield zigzag(count) + zigzag(len(data))
            yield data
            yield sync


def _with_length(data: bytes) -> bytes:
    return zigzag(len(data)) + data


def _deflated(data: memoryview) -> bytes:
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(data) + packer.flush()


def _blocks(bodies: pa.LargeBinaryArray) -> Iterator[tuple[int, memoryview]]:
    """Neighbouring records as slices of their buffer, and how many each holds."""
    edges, start = offsets(bodies), 0
    data = memoryview(bodies.buffers()[2] or b"")
    while start < len(bodies):
        fits = int(np.searchsorted(edges, edges[start] + _BLOCK, side="right")) - 1
        stop = max(fits, start + 1)
        yield stop - start, data[edges[start] : edges[stop]]
        start = stop


def write_whole(path: str, chunks: Iterable[bytes | memoryview]) -> None:
    """Writes a file that is seen only when it is complete, in place of an earlier one; makes its folder.

    Raises JobError that names the path and what to do.
    """
    try:
        (_write_remote if "://" in path else _write_local)(path, chunks)
    except (OSError, GoogleAPICallError, GoogleAuthError) as error:
        todo = _TODO.get(getattr(error, "errno", None) or 0, "See that the folder is there and can be written")
        raise JobError(f"{path} could not be written ({error})", f"{todo}, {_AGAIN}") from error


def _temporary(path: str) -> str:
    folder, _, name = path.rpartition("/")
    return f"{folder}/.{name}.{uuid.uuid4().hex}.tmp"


def _write_local(path: str, chunks: Iterable[bytes | memoryview]) -> None:
    folder, temporary = Path(path).parent, Path(_temporary(path))
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with temporary.open("xb") as file:
            file.writelines(chunks)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _sync_folder(folder)


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _write_remote(path: str, chunks: Iterable[bytes | memoryview]) -> None:
    at_once = path.startswith("gs://")  # an object of Cloud Storage is seen when its upload is complete, never before
    ready = list(chunks)  # or a chunk that cannot be made would end an upload in the middle, as if it were complete
    temporary = path if at_once else _temporary(path)
    with FileSystems.create(temporary, "application/octet-stream") as file:
        for chunk in ready:
            file.write(bytes(chunk))
    if not at_once:
        FileSystems.rename([temporary], [path])
