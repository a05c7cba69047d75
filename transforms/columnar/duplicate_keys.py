"""Which keys stand in more than one row of all customers: exact, in memory that does not grow with their number."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from transforms.columnar.hashing import GOLDEN, Hashes64, hash64_rows
from transforms.columnar.id_index import joined_key

Keys = Mapping[str, Callable[[pa.Array | None], tuple[pa.Array, pa.Array]]]
"""By what they are keys of, what makes two columns of text of a batch, or of some rows of it; a null is no key."""
Hashed = tuple[npt.NDArray[np.int64], Hashes64]
Scan = Callable[[], Iterator[tuple[str, Keys]]]
"""Reads everything anew: the name of each batch and its keys."""
SCHEMA = pa.schema([("kind", pa.string()), ("key", pa.string()), ("batch", pa.string()), ("row", pa.int64())])
IN_MEMORY = 1 << 24
"""Hashes that are sorted at once (8 bytes each)."""
_SEEN_BITS = 22
_SHIFT = np.uint64(64 - _SEEN_BITS)


def repeated(scan: Scan, kinds: list[str], rows: int, folder: Path) -> pa.Table:
    """(kind, key, batch, row) of every row whose key stands in another row too, in the order of the scan.

    A first scan finds the 64-bit hashes that repeat, sorted in parts that lie in `folder` when they are many;
    a second one takes the rows behind them, whose keys are then compared as they are.
    """
    with ExitStack() as stack:
        found = {kind: _Repeats(rows, folder, stack) for kind in kinds}
        for _, keys in scan():
            for kind, make in keys.items():
                found[kind].add(*_hashes(*make(None)))
        suspects = {kind: hashes for kind, repeats in found.items() if len(hashes := repeats.found())}
        if not suspects:
            return SCHEMA.empty_table()
        kept = {kind: repeats.kept for kind, repeats in found.items()}
        return _compared(pa.concat_tables([SCHEMA.empty_table(), *_suspected(scan, suspects, kept)]))


class _Repeats:
    """Hashes that came twice; many are parted by their top bits into files. Few are `kept`, batch by batch."""

    def __init__(self, rows: int, folder: Path, stack: ExitStack) -> None:
        self._bits = (rows // IN_MEMORY).bit_length()
        self.kept: list[Hashed] = []
        self._files: list[Any] = [
            stack.enter_context(tempfile.TemporaryFile(dir=folder))  # noqa: SIM115 (the stack is the context)
            for _ in range(1 << self._bits if self._bits else 0)
        ]

    def add(self, rows: npt.NDArray[np.int64], hashes: Hashes64) -> None:
        """The rows of the next batch that have a key, and its hashes."""
        if not self._files:
            self.kept.append((rows, hashes))
            return
        parts = hashes >> np.uint64(64 - self._bits)
        for number, file in enumerate(self._files):
            file.write(hashes[parts == number].tobytes())

    def found(self) -> Hashes64:
        """The repeated ones, sorted."""
        if not self._files:
            return _twice(np.concatenate([np.zeros(0, np.uint64), *(hashes for _, hashes in self.kept)]))
        return np.concatenate([_twice(_read(file)) for file in self._files])


def _read(file: Any) -> Hashes64:
    file.seek(0)
    return np.fromfile(file, np.uint64)


def _twice(hashes: Hashes64) -> Hashes64:
    hashes.sort()
    return np.unique(hashes[1:][hashes[1:] == hashes[:-1]])


def _hashes(group: pa.Array, within: pa.Array) -> Hashed:
    """The rows that have a key, and 64 bits of each; groups are few, so each is hashed once."""
    group, rows = group.dictionary_encode(), np.arange(len(group))
    if group.null_count or within.null_count:
        rows = np.flatnonzero(np.asarray(pc.and_(group.is_valid(), within.is_valid())))
        group, within = group.take(pa.array(rows)), within.take(pa.array(rows))
    hashes = hash64_rows(within)
    hashes += hash64_rows(group.dictionary)[group.indices.to_numpy(zero_copy_only=False)] * GOLDEN
    return rows, hashes


def _suspected(scan: Scan, suspects: Mapping[str, Hashes64], kept: Mapping[str, list[Hashed]]) -> Iterator[pa.Table]:
    seen = {kind: np.zeros(1 << _SEEN_BITS, np.bool_) for kind in suspects}
    for kind, found in suspects.items():
        seen[kind][found >> _SHIFT] = True
    for number, (name, keys) in enumerate(scan()):
        for kind, wanted in suspects.items():
            rows, hashes = kept[kind][number] if kept[kind] else _hashes(*keys[kind](None))
            likely = seen[kind][hashes >> _SHIFT]
            rows, hashes = rows[likely], hashes[likely]
            rows = rows[wanted[np.minimum(np.searchsorted(wanted, hashes), len(wanted) - 1)] == hashes]
            if len(rows):
                joined = joined_key(*keys[kind](pa.array(rows)))
                columns = [pa.repeat(kind, len(rows)), joined, pa.repeat(name, len(rows)), rows]
                yield pa.table(columns, schema=SCHEMA)


def _compared(table: pa.Table) -> pa.Table:
    """The rows whose kind and key really stand there twice."""
    return table.filter(pa.array(np.bincount(codes := codes_of(table))[codes] > 1))


def codes_of(table: pa.Table) -> npt.NDArray[np.int64]:
    """A number for each kind and key of some rows, in the order in which they first stand."""
    kinds = table["kind"].combine_chunks().dictionary_encode().indices.to_numpy().astype(np.int64)
    keys = table["key"].combine_chunks().dictionary_encode().indices.to_numpy().astype(np.int64)
    codes: npt.NDArray[np.int64] = np.unique(keys * (kinds.max(initial=0) + 1) + kinds, return_inverse=True)[1]
    return codes
