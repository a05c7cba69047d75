"""The stamp of a feature row: which of two rows of an entity is right."""

from __future__ import annotations

import struct
from typing import NamedTuple

_STAMP = struct.Struct("<Iq")
STAMP_BYTES = _STAMP.size


class Stamp(NamedTuple):
    """The larger wins. A row is a function of its epoch and of the log's events before its position: of one epoch both
    rows are true, and the one with the larger position knows more. `position` is that of the first event of the
    partition that is not folded in; corrections and erasures begin a new epoch."""

    epoch: int
    position: int


FIRST = Stamp(0, 0)


def pack_stamp(stamp: Stamp) -> bytes:
    """The bytes that a row begins with."""
    return _STAMP.pack(*stamp)


def stamp_of(row: bytes | memoryview | None) -> Stamp:
    """The stamp of a row; the least where there is none. Raises ValueError for bytes that are no row."""
    if row is None:
        return FIRST
    if len(row) < STAMP_BYTES:
        raise ValueError(f"a feature row has only {len(row)} bytes")
    return Stamp(*_STAMP.unpack_from(row))
