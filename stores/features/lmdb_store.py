"""The embedded feature store: LMDB files in a folder, read by many processes while one at a time writes."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import Any
from weakref import WeakValueDictionary

import lmdb

from schemas.features.stamps import FIRST, Stamp, pack_stamp, stamp_of
from schemas.problems import JobError
from stores.features.keys import entity_prefix, group_prefix, parse_key, row_key
from stores.features.protocol import RowKey

_SIZE = 4 << 30  # the map grows by this where it is full; the file only takes what it needs
_READERS = 512
_POSITIONS = b"positions"


class _Opened:
    """LMDB's environment of a folder: a process may have only one, which closes with the last store that uses it."""

    def __init__(self, folder: Path, read_only: bool) -> None:
        file = folder / "data.mdb"
        self.env = lmdb.open(
            str(folder),
            map_size=_SIZE + (file.stat().st_size if file.exists() else 0),
            max_dbs=2,
            max_readers=_READERS,
            readonly=read_only,
            readahead=False,
            sync=False,
            metasync=False,
        )
        self.rows = self.env.open_db(b"rows", create=not read_only)
        self.positions = self.env.open_db(_POSITIONS, create=not read_only)

    def __del__(self) -> None:
        if hasattr(self, "env"):
            self.env.close()


_OPENED: WeakValueDictionary[tuple[int, Path, bool], _Opened] = WeakValueDictionary()
_LOCK = Lock()


def _open(folder: Path, read_only: bool) -> _Opened:
    with _LOCK:
        for mode in (False, read_only):  # what may write may read too
            if opened := _OPENED.get((os.getpid(), folder, mode)):
                return opened
        opened = _OPENED[os.getpid(), folder, read_only] = _Opened(folder, read_only)
        return opened


class LmdbStore:
    """A folder with LMDB's files. Writes survive the end of any process. They reach the disk when the system writes
    them: after a power cut, rebuild the store from the log."""

    def __init__(self, folder: Path, *, read_only: bool = False) -> None:
        self._folder = folder
        if not read_only:
            folder.mkdir(parents=True, exist_ok=True)
        try:
            self._opened = _open(folder.resolve(), read_only)
        except lmdb.Error as error:
            raise JobError(f"{folder}: the feature store does not open: {error}") from error
        self._env, self._rows, self._positions = self._opened.env, self._opened.rows, self._opened.positions

    def rows(self, group: str, partition: int, entities: Sequence[str]) -> list[bytes | None]:
        with self._begin() as txn:
            return [txn.get(row_key(group, entity, partition)) for entity in entities]

    def write(self, group: str, partition: int, rows: Mapping[str, bytes]) -> int:
        return int(self._written(lambda txn: self._put(txn, group, partition, rows)))

    def read(self, wanted: Sequence[tuple[str, str]]) -> list[list[bytes]]:
        found = list[list[bytes]]()
        with self._begin() as txn, txn.cursor() as cursor:
            for group, entity in wanted:
                prefix, rows = entity_prefix(group, entity), list[bytes]()
                more = cursor.set_range(prefix)
                while more:
                    key, row = cursor.item()
                    if not key.startswith(prefix):
                        break
                    rows.append(row)
                    more = cursor.next()
                found.append(rows)
        return found

    def positions(self, group: str) -> dict[int, Stamp]:
        prefix = group_prefix(group)
        with self._begin(self._positions) as txn, txn.cursor() as cursor:
            found = dict[int, Stamp]()
            more = cursor.set_range(prefix)
            while more and cursor.key().startswith(prefix):
                found[parse_key(cursor.key()).partition] = stamp_of(cursor.value())
                more = cursor.next()
            return found

    def advance(self, group: str, partition: int, stamp: Stamp) -> None:
        key = row_key(group, "", partition)

        def note(txn: Any) -> None:
            if stamp > stamp_of(txn.get(key, db=self._positions)):
                txn.put(key, pack_stamp(stamp), db=self._positions)

        self._written(note)

    def scan(self, group: str) -> Iterator[tuple[RowKey, bytes]]:
        prefix = place = group_prefix(group)
        while True:  # a long read would keep the pages of every write meanwhile
            with self._begin() as txn, txn.cursor() as cursor:
                batch = list[tuple[bytes, bytes]]()
                more = cursor.set_range(place)
                while more and len(batch) < 1_000 and cursor.key().startswith(prefix):
                    batch.append(cursor.item())
                    more = cursor.next()
            yield from ((parse_key(key), row) for key, row in batch)
            if len(batch) < 1_000:
                return
            place = batch[-1][0] + b"\0"

    def delete(self, group: str, entity: str) -> int:
        prefix = entity_prefix(group, entity)

        def remove(txn: Any) -> int:
            keys = list[bytes]()
            with txn.cursor() as cursor:
                more = cursor.set_range(prefix)
                while more and cursor.key().startswith(prefix):
                    keys.append(cursor.key())
                    more = cursor.next()
            return sum(txn.delete(key) for key in keys)

        return int(self._written(remove))

    def close(self) -> None:
        del self._env, self._rows, self._positions, self._opened

    def _put(self, txn: Any, group: str, partition: int, rows: Mapping[str, bytes]) -> int:
        written = 0
        for entity, row in rows.items():
            key = row_key(group, entity, partition)
            before = txn.get(key)
            if before is None or stamp_of(row) > stamp_of(before):
                txn.put(key, row)
                written += 1
        return written

    @contextmanager
    def _begin(self, db: Any = None) -> Iterator[Any]:
        try:
            try:
                txn = self._env.begin(db=db or self._rows)
            except lmdb.MapResizedError:  # another process made it larger
                self._env.set_mapsize(0)
                txn = self._env.begin(db=db or self._rows)
            with txn:
                yield txn
        except lmdb.Error as error:
            raise JobError(f"{self._folder}: the feature store cannot be read: {error}") from error

    def _written(self, change: Any) -> Any:
        while True:
            try:
                with self._env.begin(write=True, db=self._rows) as txn:
                    return change(txn)
            except lmdb.MapFullError:
                self._env.set_mapsize(self._env.info()["map_size"] + _SIZE)
            except lmdb.MapResizedError:
                self._env.set_mapsize(0)
            except lmdb.Error as error:
                raise JobError(f"{self._folder}: the feature store cannot be written: {error}") from error


__all__ = ["FIRST", "LmdbStore"]
