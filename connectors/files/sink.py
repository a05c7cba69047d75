"""Avro container files written in one piece: a part is there completely or not at all, the same on every run."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import numpy as np
import pyarrow as pa

from connectors.files.whole_file import write_whole
from schemas.codec.varints import offsets, zigzag
from schemas.contracts import ContractError

_BLOCK = 2 << 20  # bytes of records in a block, a larger record alone


@dataclass(frozen=True)
class FileSink:
    """Writes parts, DIRECTORY/PART.avro, of records that are encoded already; local folders and gs://."""

    directory: str

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

    def _chunks(self, part: str, schema: Mapping[str, Any], bodies: pa.Array) -> Iterator[bytes | memoryview]:
        sync = blake2b(part.encode(), digest_size=16).digest()
        meta = {"avro.codec": b"null", "avro.schema": json.dumps(schema).encode()}
        pairs = b"".join(_with_length(key.encode()) + _with_length(value) for key, value in meta.items())
        yield b"Obj\x01" + zigzag(len(meta)) + pairs + zigzag(0) + sync
        for count, block in _blocks(bodies):
            yield zigzag(count) + zigzag(len(block))
            yield block
            yield sync


def _with_length(data: bytes) -> bytes:
    return zigzag(len(data)) + data


def _blocks(bodies: pa.LargeBinaryArray) -> Iterator[tuple[int, memoryview]]:
    """Neighbouring records as slices of their buffer, and how many each holds."""
    edges, start = offsets(bodies), 0
    data = memoryview(bodies.buffers()[2] or b"")
    while start < len(bodies):
        fits = int(np.searchsorted(edges, edges[start] + _BLOCK, side="right")) - 1
        stop = max(fits, start + 1)
        yield stop - start, data[edges[start] : edges[stop]]
        start = stop
