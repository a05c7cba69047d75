"""find_duplicate_keys: the rows whose key is in several rows of all customers; exact, in bounded memory."""

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
"""By kind, a function that gives the two text columns of a key for all rows (None) or for the given ones; a row with a
null has no key."""
Hashed = tuple[npt.NDArray[np.int64], Hashes64]
Scan = Callable[[], Iterator[tuple[str, Keys]]]
"""Reads all batches from the start: the name of each batch and its keys."""
SCHEMA = pa.schema([("kind", pa.string()), ("key", pa.string()), ("batch", pa.string()), ("row", pa.int64())])
IN_MEMORY = 1 << 24
"""Hashes that are sorted at once, of 8 bytes each."""
_LIKELY_BITS = 22
_SHIFT = np.uint64(64 - _LIKELY_BITS)


def find_duplicate_keys(scan: Scan, kinds: list[str], rows: int, folder: Path) -> pa.Table:
    """(kind, key, batch, row) of every row whose key is in another row too, in the order of the scan.

    A first scan finds the 64-bit hashes that occur twice; many are sorted in parts, as files in `folder`. A second scan
    reads the rows with these hashes, whose keys are then compared as texts.
    """
    with ExitStack() as stack:
        hashes_of = {kind: _Hashes(rows, folder, stack) for kind in kinds}
        for _, keys in scan():
            for kind, columns in keys.items():
                hashes_of[kind].add(*_hash_keys(*columns(None)))
        suspects = {kind: twice for kind, hashes in hashes_of.items() if len(twice := hashes.twice())}
        if not suspects:
            return SCHEMA.empty_table()
        kept = {kind: hashes.kept for kind, hashes in hashes_of.items()}
        return _true_duplicates(pa.concat_tables([SCHEMA.empty_table(), *_rows_with(scan, suspects, kept)]))


class _Hashes:
    """The hashes of all keys of a kind: `kept` batch by batch, or, when they are many, in files by their top bits."""

    def __init__(self, rows: int, folder: Path, stack: ExitStack) -> None:
        self._bits = (rows // IN_MEMORY).bit_length()
        self.kept: list[Hashed] = []
        self._files: list[Any] = [
            stack.enter_context(tempfile.TemporaryFile(dir=folder))  # noqa: SIM115 (the stack is the context)
            for _ in range(1 << self._bits if self._bits else 0)
        ]

    def add(self, rows: npt.NDArray[np.int64], hashes: Hashes64) -> None:
        """Add the rows of the next batch that have a key, and their hashes."""
        if not self._files:
            self.kept.append((rows, hashes))
            return
        parts = hashes >> np.uint64(64 - self._bits)
        for number, file in enumerate(self._files):
            file.write(hashes[parts == number].tobytes())

    def twice(self) -> Hashes64:
        """The hashes that occur twice, sorted."""
        if not self._files:
            return _twice(np.concatenate([np.zeros(0, np.uint64), *(hashes for _, hashes in self.kept)]))
        return np.concatenate([_twice(_read(file)) for file in self._files])


def _read(file: Any) -> Hashes64:
    file.seek(0)
    return np.fromfile(file, np.uint64)


def _twice(hashes: Hashes64) -> Hashes64:
    hashes.sort()
    return np.unique(hashes[1:][hashes[1:] == hashes[:-1]])


def _hash_keys(group: pa.Array, within: pa.Array) -> Hashed:
    """The rows that have a key, and 64 bits of each. There are few groups, so each is hashed once."""
    group, rows = group.dictionary_encode(), np.arange(len(group))
    if group.null_count or within.null_count:
        rows = np.flatnonzero(np.asarray(pc.and_(group.is_valid(), within.is_valid())))
        group, within = group.take(pa.array(rows)), within.take(pa.array(rows))
    hashes = hash64_rows(within)
    hashes += hash64_rows(group.dictionary)[group.indices.to_numpy(zero_copy_only=False)] * GOLDEN
    return rows, hashes


def _rows_with(scan: Scan, suspects: Mapping[str, Hashes64], kept: Mapping[str, list[Hashed]]) -> Iterator[pa.Table]:
    likely = {kind: np.zeros(1 << _LIKELY_BITS, np.bool_) for kind in suspects}
    for kind, twice in suspects.items():
        likely[kind][twice >> _SHIFT] = True
    for number, (name, keys) in enumerate(scan()):
        for kind, twice in suspects.items():
            rows, hashes = kept[kind][number] if kept[kind] else _hash_keys(*keys[kind](None))
            mask = likely[kind][hashes >> _SHIFT]
            rows, hashes = rows[mask], hashes[mask]
            rows = rows[twice[np.minimum(np.searchsorted(twice, hashes), len(twice) - 1)] == hashes]
            if len(rows):
                joined = joined_key(*keys[kind](pa.array(rows)))
                columns = [pa.repeat(kind, len(rows)), joined, pa.repeat(name, len(rows)), rows]
                yield pa.table(columns, schema=SCHEMA)


def _true_duplicates(table: pa.Table) -> pa.Table:
    """The rows whose kind and key occur twice, not their hash alone."""
    return table.filter(pa.array(np.bincount(codes := codes_of(table))[codes] > 1))


def codes_of(table: pa.Table) -> npt.NDArray[np.int64]:
    """A number for the kind and key of each row, by the first row with them."""
    kinds = table["kind"].combine_chunks().dictionary_encode().indices.to_numpy().astype(np.int64)
    keys = table["key"].combine_chunks().dictionary_encode().indices.to_numpy().astype(np.int64)
    return np.unique(keys * (kinds.max(initial=0) + 1) + kinds, return_inverse=True)[1]
