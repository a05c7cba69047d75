"""Avro container files, record by record, as far as their bytes allow: a broken record does not hide the others."""

from __future__ import annotations

import io
import json
import zlib
from collections.abc import Iterator, Mapping
from functools import lru_cache
from itertools import count
from typing import IO, Any, NamedTuple

import fastavro
from fastavro.read import BLOCK_READERS

from schemas.codec.varints import zigzag
from schemas.contracts import parsed

_MAGIC, _SYNC = b"Obj\x01", 16
_META = fastavro.parse_schema({"type": "map", "values": "bytes"})
_LONGEST_VARINT = 10


class Stored(NamedTuple):
    """One record's own bytes, its number in the file, and its values: text as bytes where it is no UTF-8. What cannot
    be separated into records is one piece: `values` is None, and `problem` says what it is."""

    number: int
    body: bytes
    values: Any
    problem: str = ""


class ContainerReader:
    """The header of a container file, which raises for what is none; then its records. `schema` is the writer's, as it
    stands in the file."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        if file.read(len(_MAGIC)) != _MAGIC:
            raise ValueError("no Avro container file")
        meta: Any = fastavro.schemaless_reader(file, _META, None)
        self._sync = self._exactly(_SYNC)
        self.schema: Any = json.loads(meta["avro.schema"])
        self._codec = meta.get("avro.codec", b"null").decode()
        if self._codec not in BLOCK_READERS:
            raise ValueError(f"the codec {self._codec} is not known here")
        self._strict, self._lenient = _schemas(meta["avro.schema"])

    def blocks(self) -> Iterator[tuple[int, bytes]]:
        """How many records each block says it has, and their bytes. Raises for a file that breaks off, or of which a
        block cannot be read."""
        while head := self._file.read(1):
            claimed = self._varint(head)
            yield claimed, _decompressed(self._codec, self._block())

    def _block(self) -> bytes:
        data = self._exactly(self._varint(self._exactly(1)))
        if self._exactly(_SYNC) != self._sync:
            raise ValueError("the marker behind a block is not the file's")
        return data

    def records(self) -> Iterator[Stored]:
        """The records in their order. Where the bytes of a record cannot be read, the rest of its block is one piece,
        since nothing says where the next record begins; a block that cannot be decompressed is one piece as a whole.
        The next block is read again. Raises for a file that breaks off, or whose blocks do not follow each other."""
        number = 0
        while head := self._file.read(1):
            claimed = self._varint(head)
            data = self._block()
            try:
                block = _decompressed(self._codec, data)
            except Exception as error:  # each codec has its own
                problem = f"a block of {claimed:,} records that is no {self._codec} ({type(error).__name__}: {error})"
                yield Stored(number, data, None, problem)
            else:
                yield from self._separated(block, claimed, number)
            number += max(0, claimed)

    def _separated(self, block: bytes, claimed: int, first: int) -> Iterator[Stored]:
        """The records of a block that says it has so many."""
        data, start, done = io.BytesIO(block), 0, 0
        problem = ""
        while done < claimed and start < len(block):
            try:
                values = fastavro.schemaless_reader(data, self._strict, None)
            except Exception as error:  # fastavro has no common base: EOFError, IndexError, StopIteration, …
                values = self._lenient_values(data, start)
                if values is None:
                    problem = f" ({type(error).__name__}: {error})"
                    break
            end = data.tell()
            yield Stored(first + done, block[start:end], values)
            start, done = end, done + 1
        if done < claimed or start < len(block):
            problem = f"from record {done:,} of a block of {claimed:,} on{problem}"
            yield Stored(first + done, block[start:], None, f"the bytes {problem}")

    def _lenient_values(self, data: io.BytesIO, start: int) -> Any:
        """The values of a record whose text is no UTF-8 or whose symbol is not known; None when more is wrong."""
        try:
            data.seek(start)
            return None if self._lenient is None else fastavro.schemaless_reader(data, self._lenient, None)
        except Exception:
            return None

    def _varint(self, first: bytes) -> int:
        value, byte = first[0] & 0x7F, first[0]
        for shift in range(7, 7 * _LONGEST_VARINT, 7):
            if byte < 0x80:
                break
            byte = self._exactly(1)[0]
            value |= (byte & 0x7F) << shift
        return (value >> 1) ^ -(value & 1)

    def _exactly(self, size: int) -> bytes:
        data = self._file.read(size) if size >= 0 else b""
        if len(data) != size:
            raise EOFError(f"it breaks off: {size:,} bytes should follow, {len(data):,} do")
        return data


def _decompressed(codec: str, data: bytes) -> bytes:
    if codec == "null":
        return data
    if codec == "deflate":
        return zlib.decompress(data, -15)
    return bytes(BLOCK_READERS[codec](io.BytesIO(zigzag(len(data)) + data)).read())


@lru_cache(maxsize=16)
def _schemas(text: bytes) -> tuple[Any, Any]:
    """The schema of a file, parsed, and the lenient one."""
    strict = parsed(json.loads(text))
    return strict, _lenient_schema(strict)


def _lenient_schema(strict: Any) -> Any:
    """A schema that reads records of the same lengths and minds nothing else: text is bytes, a symbol is a number.
    None when there is no such schema."""
    try:
        return fastavro.parse_schema(_lenient(strict, set(), count()))
    except Exception:  # a union of what has become the same
        return None


def _lenient(node: Any, enums: set[str], numbers: Iterator[int]) -> Any:
    if isinstance(node, list):
        return [_lenient(kind, enums, numbers) for kind in node]
    if not isinstance(node, Mapping):
        return "bytes" if node == "string" else "int" if node in enums else node
    kind = node["type"]
    if kind == "enum":
        enums.add(node["name"])
        return "int"
    if kind == "map":
        pair = [("key", "bytes"), ("value", _lenient(node["values"], enums, numbers))]
        fields = [{"name": name, "type": of} for name, of in pair]
        return {"type": "array", "items": {"type": "record", "name": f"Entry{next(numbers)}", "fields": fields}}
    if kind == "array":
        return {"type": "array", "items": _lenient(node["items"], enums, numbers)}
    if kind in ("record", "error"):
        fields = [{"name": field["name"], "type": _lenient(field["type"], enums, numbers)} for field in node["fields"]]
        return {"type": "record", "name": node["name"], "fields": fields}
    return node if kind == "fixed" else _lenient(kind, enums, numbers)
