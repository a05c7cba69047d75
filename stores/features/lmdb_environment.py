"""LMDB's files in a folder: opened once a process, made larger when they are full, and errors that say what to do."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import RLock
from typing import Any, TypeVar

import lmdb

from schemas.problems import JobError

T = TypeVar("T")
_STEP = 4 << 30  # bytes: the map grows by this when it is full; the file takes what it needs
_READERS = 512
_REBUILD = "Move the folder away and start the features pipeline: it builds the store again from the event store"


class Environment:
    """A folder with two tables, `rows` and `positions`. Safe for several threads; not after a fork.

    LMDB forbids that a process opens a folder twice, so all stores of a folder in a process share one of these. It
    is read-only until one of them writes.
    """

    _opened: dict[tuple[int, Path], Environment] = {}  # noqa: RUF012
    _registry = RLock()

    def __init__(self, folder: Path, step: int) -> None:
        self.folder, self._step, self._users = folder, step, 0
        self._lock, self._writes = RLock(), False
        self._env: Any = None
        self._tables: dict[str, Any] = {}

    @classmethod
    def shared(cls, folder: Path, *, writes: bool, step: int = _STEP) -> Environment:
        """The environment of a folder; `leave` it in the end. Raises JobError for a folder that cannot be written, if
        it shall be; one that is read is opened when it is first used."""
        with cls._registry:
            key = os.getpid(), folder.resolve()  # a child process opens its own
            environment = cls._opened.get(key) or Environment(folder, step)
            if writes:
                environment._open_to_write()
            cls._opened[key] = environment
            environment._users += 1
            return environment

    def leave(self) -> None:
        """Closes the files when nobody in the process uses them any more."""
        with self._registry, self._lock:
            self._users -= 1
            if not self._users:
                self._close()
                self._opened.pop((os.getpid(), self.folder.resolve()), None)

    @contextmanager
    def reading(self, table: str) -> Iterator[Any]:
        """A transaction that sees the table as it is now. Raises JobError, also while the folder has no store yet."""
        with self._lock:
            if self._env is None:
                self._open(writes=False)
            try:
                with self._begin(table) as txn:
                    yield txn
            except lmdb.Error as error:
                raise JobError(f"{self.folder}: the feature store cannot be read: {error}", _REBUILD) from error

    def change(self, table: str, make: Callable[[Any], T]) -> T:
        """What a function of a write transaction gives, committed. It is called again after the map has grown."""
        with self._lock:
            if not self._writes:
                raise JobError(f"{self.folder}: the feature store was opened to be read")
            while True:
                try:
                    with self._env.begin(write=True, db=self._tables[table]) as txn:
                        return make(txn)
                except lmdb.MapFullError:
                    self._env.set_mapsize(self._env.info()["map_size"] + self._step)
                except lmdb.MapResizedError:  # another process made it larger
                    self._env.set_mapsize(0)
                except lmdb.Error as error:
                    todo = "Free space on the disk, or see whether the folder can be written"
                    raise JobError(f"{self.folder}: the feature store cannot be written: {error}", todo) from error

    def _begin(self, table: str) -> Any:
        try:
            return self._env.begin(db=self._tables[table])
        except lmdb.MapResizedError:
            self._env.set_mapsize(0)
        except lmdb.ReadersFullError:
            self._env.reader_check()  # frees the places of readers that were killed
        return self._env.begin(db=self._tables[table])

    def _open_to_write(self) -> None:
        with self._lock:
            if self._writes:
                return
            self._close()
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise JobError(f"{self.folder}: no folder can be made here: {error.strerror}") from error
            self._open(writes=True)

    def _open(self, *, writes: bool) -> None:
        file = self.folder / "data.mdb"
        size = file.stat().st_size if file.exists() else 0
        if not writes and not size:
            todo = "Start the features pipeline, which makes it, or name its folder"
            raise JobError(f"{self.folder}: there is no feature store here", todo)
        try:
            self._env = lmdb.open(
                str(self.folder), map_size=size + self._step, max_dbs=2, max_readers=_READERS, readonly=not writes,
                readahead=False, sync=False, metasync=False,
            )  # fmt: skip
            self._check_length(size)
            self._env.reader_check()
            self._tables = {name: self._env.open_db(name.encode(), create=writes) for name in ("rows", "positions")}
        except lmdb.Error as error:
            self._close()
            if isinstance(error, lmdb.NotFoundError):
                raise JobError(f"{self.folder}: these files of LMDB are not a feature store") from error
            raise JobError(f"{self.folder}: the feature store does not open: {error}", _REBUILD) from error
        self._writes = writes

    def _check_length(self, size: int) -> None:
        """Raises lmdb.CorruptedError for a file that was cut: reading behind its end would kill the process."""
        if size and (self._env.info()["last_pgno"] + 1) * self._env.stat()["psize"] > size:
            raise lmdb.CorruptedError(f"data.mdb was cut after {size:,} bytes")

    def _close(self) -> None:
        if self._env is not None:
            self._env.close()
        self._env, self._writes = None, False
