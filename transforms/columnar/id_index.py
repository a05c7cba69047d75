"""IdIndex: exact look-up of Arrow columns among millions of ids, for batches of a hundred thousand rows."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from schemas.columns.masks import to_mask
from transforms.columnar.hashing import Hashes64, hash64_rows

_IDS_PER_BUCKET = 4


class IdIndex:
    """The position of each id in a list: sorted hashes, found by their top bits; then the texts are compared.

    So an answer is exact, though two ids may have one hash. Holds 12 bytes for each id, half a byte to two of bucket
    starts, and the list itself. The first position of an id counts; nulls are ignored.
    """

    def __init__(self, ids: pa.Array, hashed: Callable[[pa.Array], Hashes64] = hash64_rows) -> None:
        self._hash = hashed
        self._ids = _texts(ids)
        present = np.flatnonzero(to_mask(self._ids.is_valid()))
        hashes = hashed(self._ids.drop_null())
        order = np.argsort(hashes, kind="stable")
        self._hashes = hashes[order]
        self._places = present[order].astype(np.int32)
        bits = max(len(present) // _IDS_PER_BUCKET, 1).bit_length()
        self._shift = np.uint64(64 - bits)
        edges = np.arange(1 << bits, dtype=np.uint64) << self._shift
        self._starts = np.append(np.searchsorted(self._hashes, edges), len(present)).astype(np.int32)

    def __len__(self) -> int:
        """The number of entries of the list, with repetitions and nulls."""
        return len(self._ids)

    def find(self, column: pa.Array) -> npt.NDArray[np.int64]:
        """The position of each row's id in the list; -1 where it is not in it, or null."""
        texts = _texts(column)
        rows = np.flatnonzero(to_mask(texts.is_valid()))
        positions = np.full(len(texts), -1, np.int64)
        hashes = self._hash(texts.drop_null())
        at = self._first_not_below(hashes)
        while True:
            same = at < len(self._hashes)
            same[same] = self._hashes[at[same]] == hashes[same]
            rows, at, hashes = rows[same], at[same], hashes[same]
            if not len(rows):
                return positions
            places = self._places[at]
            equal = to_mask(pc.equal(self._ids.take(pa.array(places)), texts.take(pa.array(rows))))
            positions[rows[equal]] = places[equal]
            rows, at, hashes = rows[~equal], at[~equal] + 1, hashes[~equal]

    def contains(self, column: pa.Array) -> npt.NDArray[np.bool_]:
        """Whether each row's id is in the list."""
        return self.find(column) >= 0

    def _first_not_below(self, hashes: Hashes64) -> npt.NDArray[np.int64]:
        """np.searchsorted, without its twenty steps over memory for every hash."""
        bucket = (hashes >> self._shift).astype(np.int64)
        at = self._starts[bucket].astype(np.int64)
        end = self._starts[bucket + 1]
        live = np.flatnonzero(at < end)
        while len(live):
            live = live[self._hashes[at[live]] < hashes[live]]
            at[live] += 1
            live = live[at[live] < end[live]]
        return at


def joined_key(*columns: pa.Array) -> pa.Array:
    """One text for each row of several key columns, null where one of them is: `3:abcxyz` for abc, xyz.

    Every text but the last has its length in bytes before it, so different keys never have the same text.
    """
    texts = [_texts(column) for column in columns]
    return reduce(lambda tail, head: _join(pc.binary_length(head).cast(head.type), ":", head, tail), reversed(texts))


def _join(length: pa.Array, colon: str, head: pa.Array, tail: pa.Array) -> pa.Array:
    tail = tail.cast(head.type)
    return pc.binary_join_element_wise(length, pa.scalar(colon, head.type), head, tail, pa.scalar("", head.type))


def _texts(column: pa.Array) -> pa.Array:
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        return column
    return column.cast(pa.string())
