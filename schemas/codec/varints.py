"""Bytes of many rows at once: varints, and rows joined from parts, as Arrow binary columns.

A part is what one field adds to every row: `bytes` (the same for each row), `Cells` (a few bytes a row, as a
numpy matrix) or a binary array, in which null adds nothing.
"""

from __future__ import annotations

from itertools import groupby
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

Numbers: TypeAlias = "np.ndarray[Any, Any]"
_SHORT = 8  # up to so many constant bytes cost less as cells than as one more piece of the join


class Cells(NamedTuple):
    """A few bytes a row: a (rows, width) matrix, of which `keep` (None: all) says the ones that count."""

    data: Numbers
    keep: Numbers | None

    def widths(self) -> Numbers:
        """How many bytes each row has."""
        rows, width = self.data.shape
        if self.keep is None:
            return np.full(rows, width, np.int64)
        total = np.zeros(rows, np.int64)
        for column in range(width):
            total += self.keep[:, column]
        return total


Part: TypeAlias = bytes | Cells | pa.Array


def varint(value: int) -> bytes:
    """One unsigned number as a base-128 varint."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes((*out, value))


def zigzag(value: int) -> bytes:
    """One signed 64-bit number as Avro writes an int or long."""
    return varint((value << 1 ^ value >> 63) & 0xFFFF_FFFF_FFFF_FFFF)


def varints(values: Numbers, present: Numbers | None = None) -> Part:
    """Unsigned numbers as varints; nothing for a row that is not `present` (None: all are)."""
    numbers = values.astype(np.uint64, copy=False)
    if present is not None:
        numbers = np.where(present, numbers, np.uint64(0))
    low, high = (int(numbers.min()), int(numbers.max())) if len(numbers) else (0, 0)
    if low == high and present is None:
        return varint(high)
    width = len(varint(high))
    data = np.empty((len(numbers), width), np.uint8)
    keep = np.empty((len(numbers), width), bool)
    keep[:, 0] = True if present is None else present
    for k in range(width):
        longer = numbers >= np.uint64(1 << 7 * (k + 1)) if k + 1 < width else np.zeros(len(numbers), bool)
        data[:, k] = (numbers >> np.uint64(7 * k)).astype(np.uint8) & 0x7F | longer.astype(np.uint8) << 7
        if k + 1 < width:
            keep[:, k + 1] = longer
    return Cells(data, None if present is None and len(varint(low)) == width else keep)


def zigzags(values: Numbers, present: Numbers | None = None) -> Part:
    """Signed 64-bit numbers as Avro writes an int or long; nothing for a row that is not `present`."""
    signed = values.astype(np.int64, copy=False)
    return varints((signed << 1 ^ signed >> 63).view(np.uint64), present)


def constant(data: bytes, length: int, present: Numbers | None = None) -> Part:
    """The same bytes for every row that is `present`, nothing for the others."""
    if present is None or not data:
        return data
    if len(data) > _SHORT:
        picks = pa.array(np.zeros(length, np.int8), mask=~present)
        return pa.array([data], pa.large_binary()).take(picks)
    shape = (length, len(data))
    return Cells(np.broadcast_to(np.frombuffer(data, np.uint8), shape), np.broadcast_to(present[:, None], shape))


def offsets(column: pa.Array) -> Numbers:
    """Where each value of a large_binary or large_string array starts, and the last one ends (length + 1)."""
    buffer = column.buffers()[1]
    if not buffer or not len(column):
        return np.zeros(len(column) + 1, np.int64)
    return np.frombuffer(buffer, np.int64)[column.offset : column.offset + len(column) + 1]


def sizes(parts: list[Part], length: int) -> Numbers:
    """How many bytes the parts add to each row."""
    total = np.zeros(length, np.int64)
    for part in parts:
        if isinstance(part, bytes):
            total += len(part)
        elif isinstance(part, Cells):
            total += part.widths()
        else:
            own = np.diff(offsets(part))
            total += own if not part.null_count else np.where(np.asarray(part.is_valid()), own, 0)
    return total


def join(parts: list[Part], length: int) -> pa.LargeBinaryArray:
    """Each row's parts one after the other: a large_binary array without nulls, its offset 0."""
    pieces = [_column(part) for part in _fused(parts)]
    if length == 0:
        return pa.array([], pa.large_binary())
    if all(isinstance(piece, bytes) for piece in pieces):
        return _binary(np.full(length, len(b"".join(pieces)), np.int64), b"".join(pieces) * length)
    ready = [pa.scalar(p, pa.large_binary()) if isinstance(p, bytes) else p for p in pieces]
    nothing = pa.scalar(b"", pa.large_binary())
    return pc.binary_join_element_wise(*ready, nothing, null_handling="replace", null_replacement=b"")


def _fused(parts: list[Part]) -> list[Part]:
    """The same rows in fewer parts: constants merged, short ones laid into the cells beside them."""
    merged: list[Part] = []
    for part in parts:
        if isinstance(part, bytes) and merged and isinstance(merged[-1], bytes):
            merged[-1] += part
        elif not isinstance(part, bytes) or part:
            merged.append(part)
    fused: list[Part] = []
    for small, run in groupby(merged, key=_is_small):
        group = list(run)
        cells = any(isinstance(part, Cells) for part in group)
        fused += [_side_by_side(group)] if small and cells and len(group) > 1 else group
    return fused


def _is_small(part: Part) -> bool:
    return isinstance(part, Cells) or (isinstance(part, bytes) and len(part) <= _SHORT)


def _side_by_side(parts: list[Part]) -> Cells:
    rows = next(len(part.data) for part in parts if isinstance(part, Cells))
    cells = [_as_cells(part, rows) for part in parts]
    data = np.concatenate([cell.data for cell in cells], axis=1)
    if all(cell.keep is None for cell in cells):
        return Cells(data, None)
    kept = [np.ones(cell.data.shape, bool) if cell.keep is None else cell.keep for cell in cells]
    return Cells(data, np.concatenate(kept, axis=1))


def _as_cells(part: Part, rows: int) -> Cells:
    if isinstance(part, bytes):
        return Cells(np.broadcast_to(np.frombuffer(part, np.uint8), (rows, len(part))), None)
    assert isinstance(part, Cells)
    return part


def _column(part: Part) -> bytes | pa.Array:
    if not isinstance(part, Cells):
        return part
    kept = part.data if part.keep is None else part.data[part.keep]
    return _binary(part.widths(), np.ascontiguousarray(kept))


def _binary(widths: Numbers, data: Any) -> pa.LargeBinaryArray:
    ends = np.concatenate([np.zeros(1, np.int64), np.cumsum(widths)])
    buffers = [None, pa.py_buffer(ends), pa.py_buffer(data)]
    return pa.LargeBinaryArray.from_buffers(pa.large_binary(), len(widths), buffers)
