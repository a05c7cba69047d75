"""Reads Avro container files block by block: many records become columns, and no record becomes a Python object.

A block says how many records it has, not where each begins. Our records begin with an event id, so its pattern shows
where a record may begin; a scan of the pieces then proves that each is one whole record (schemas/codec/avro_scan.py).
fastavro reads the blocks without that proof: it takes ten times as long and says what is wrong.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import fastavro
import numpy as np
import pyarrow as pa
from apache_beam.io.filesystems import FileSystems

from schemas.codec.avro_container import ContainerReader
from schemas.codec.avro_scan import Rows, Scan
from schemas.contracts import parsed, schema
from schemas.problems import shown

_AT_ONCE = 1 << 18  # bytes of records that are scanned together at least: more would not stay in the cache
_ID, _LENGTH = 32, ord("@")  # the hex digits of an event id, and how a zigzag number says so
_BRANCH = 2  # before a call's id, which looks like an event's: that it is not null
_HEX = np.isin(np.arange(256), list(b"0123456789abcdef"))

Types = Mapping[str, pa.DataType]
Refuse = Callable[[str, Exception], None]
"""Called with the path of a file that cannot be used, and the reason."""


class _Block(NamedTuple):
    path: str
    records: int
    data: bytes


def read_columns(paths: Iterable[str], name: str, types: Types, refuse: Refuse) -> Iterator[pa.Table]:
    """Columns of the records of these files, local or gs://, in their order, many files or a part of one at a time.
    `name` is our schema, whose fields these columns are. Files of an earlier version of it are read too."""
    waiting: list[_Block] = []
    size = 0
    for path in paths:
        try:
            with FileSystems.open(path, "application/octet-stream") as file:
                container = ContainerReader(file)
                held, wanted = _name(parsed(container.schema)), _name(parsed(schema(name)))
                if held != wanted:
                    raise ValueError(f"it holds {shown(held, 60)}, not {wanted}")
                current = container.schema == schema(name)
                for count, data in container.blocks():
                    block = _Block(path, count, data)
                    if not current:
                        yield from _read_slowly([block], name, types, refuse, parsed(container.schema))
                        continue
                    waiting.append(block)
                    size += len(data)
                    if size >= _AT_ONCE:
                        yield from _read(waiting, name, types, refuse)
                        waiting, size = [], 0
        except Exception as error:  # each file system and each codec has its own
            refuse(path, error)
    yield from _read(waiting, name, types, refuse)


def _name(of: Any) -> str:
    return str(of.get("name") if isinstance(of, Mapping) else of)


def _read(blocks: list[_Block], name: str, types: Types, refuse: Refuse) -> Iterator[pa.Table]:
    if not blocks:
        return
    data = b"".join([block.data for block in blocks])
    lengths = _lengths(data, blocks)
    scan = None if lengths is None else Scan(parsed(schema(name)), [data], frozenset(types), lengths=lengths)
    if scan is None or not scan.sound.all():
        yield from _read_slowly(blocks, name, types, refuse)
        return
    fields = {field["name"]: field["type"] for field in schema(name)["fields"]}
    symbols = {field: kind["symbols"] for field, kind in fields.items() if "symbols" in kind}
    yield pa.table({column: _column(scan, column, kind, symbols.get(column)) for column, kind in types.items()})


def _lengths(data: bytes, blocks: list[_Block]) -> Rows | None:
    """The expected length of each record of these blocks; None where the ids do not show it."""
    numbers = np.frombuffer(data, np.uint8)
    starts = np.flatnonzero(numbers[: max(0, len(numbers) - _ID)] == _LENGTH)
    for place in (1, _ID, *range(2, _ID)):  # most of what is no id ends with one of the first
        starts = starts[_HEX[numbers[starts + place]]]
    ends = np.cumsum([len(block.data) for block in blocks])
    expected = [block.records for block in blocks]
    if _by_block(starts, ends) != expected:
        starts = starts[(starts == 0) | (numbers[starts - 1] != _BRANCH)]
    if _by_block(starts, ends) != expected or not len(starts):
        return None
    first = np.concatenate([[0], ends[:-1]])[np.array(expected) > 0]
    if (starts[np.searchsorted(starts, first)] != first).any():
        return None
    return np.diff(starts, append=len(data))


def _by_block(starts: Rows, ends: Rows) -> list[int]:
    """The number of these places in each block."""
    return np.diff(np.searchsorted(starts, ends), prepend=0).tolist()


def _column(scan: Scan, name: str, kind: pa.DataType, symbols: list[str] | None) -> pa.Array:
    if symbols is not None:
        codes = pa.array(scan.numbers[name].astype(np.int32))
        return pa.DictionaryArray.from_arrays(codes, pa.array(symbols)).cast(kind)
    if name in scan.numbers:
        return pa.array(scan.numbers[name]).cast(kind)
    return scan.array(name).cast(kind)


def _read_slowly(
    blocks: list[_Block], name: str, types: Types, refuse: Refuse, writer: Any = None
) -> Iterator[pa.Table]:
    """The same columns, record by record; `writer` is the schema of the blocks, if it is not ours."""
    for block in blocks:
        data, rows = io.BytesIO(block.data), list[Any]()
        try:
            reader = parsed(schema(name))
            schemas = (writer, reader) if writer else (reader, None)
            rows = [fastavro.schemaless_reader(data, *schemas) for _ in range(block.records)]
            if rest := len(block.data) - data.tell():
                raise ValueError(f"{rest:,} bytes are left in a block of {block.records:,} records")
        except Exception as error:  # fastavro has no common base: EOFError, ValueError, IndexError, …
            refuse(block.path, error)
            continue
        yield pa.table({column: pa.array([row[column] for row in rows], kind) for column, kind in types.items()})


def record_damage(path: str, records: int) -> str | None:
    """The damage of a container file, local or gs://, that should have so many records; None for a sound file.
    The records are counted, not read."""
    try:
        with FileSystems.open(path, "application/octet-stream") as file:
            count = sum(count for count, _ in ContainerReader(file).blocks())
    except FileNotFoundError:
        return "missing"
    except Exception as error:  # each file system and each codec has its own
        return f"damaged: {shown(str(error) or type(error).__name__, 160)}"
    return None if count == records else f"damaged: {count:,} of {records:,} records are there"
