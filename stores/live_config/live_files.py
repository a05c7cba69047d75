"""A value read from the files of a folder, again when one changes; a broken edit leaves the last good one in force."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Collection
from pathlib import Path
from threading import RLock, Thread
from typing import Generic, NamedTuple, TypeVar

from connectors.gcs import RemoteFolder, is_remote
from schemas.problems import InputError, JobError, Problem

LOOK_EVERY_S = 5.0
REFRESH_EVERY_S = 30.0
_log = logging.getLogger(__name__)
T = TypeVar("T")
_State = tuple[str, int, int]  # a file's name, time of change (ns) and size; 0 and -1 for one that is missing


class FolderCopy:
    """A folder, at `path` on this machine; a local one is its own copy."""

    def __init__(self, folder: str | Path) -> None:
        self._remote = RemoteFolder(str(folder)) if is_remote(folder) else None
        self.path = Path(folder) if self._remote is None else self._remote.path
        self._refreshed_at = float("-inf")
        self.refreshing: Thread | None = None

    def refresh(self, now: float, *, wait: bool) -> None:
        """Refreshes the copy of a gs:// folder: with `wait` before it returns, else in a thread. Does nothing for 30 s
        after a refresh. Raises JobError with `wait`; a thread logs it."""
        if self._remote is None or 0 <= now - self._refreshed_at < REFRESH_EVERY_S:
            return
        if wait:
            self._remote.pull()
        elif self.refreshing is None or not self.refreshing.is_alive():
            self.refreshing = Thread(target=_pull, args=(self._remote,), daemon=True)
            self.refreshing.start()
        self._refreshed_at = now


def _pull(remote: RemoteFolder) -> None:
    try:
        remote.pull()
    except JobError as error:
        _log.warning("%s The settings that were read stay in force.", error)


class Reading(NamedTuple, Generic[T]):
    """The value that was read (None if there is no sound one), the problems, and the names of the files that it depends
    on (None: those of the reading before)."""

    value: T | None
    problems: list[Problem]
    files: Collection[str] | None


class LiveFiles(Generic[T]):
    """Reads `file` of a folder and the files that it names, at most every 5 s and only when one has changed.
    `read(path, last)` gives the new value; `last` is the value in force, None at first. A reading with problems changes
    nothing: the last value stays, `problems` lists what is wrong, and it is logged once. The folder may be gs://. Safe
    to use from several threads. `clock` gives seconds."""

    def __init__(
        self, folder: str | Path, file: str, read: Callable[[Path, T | None], Reading[T]], clock: Callable[[], float]
    ) -> None:
        self.copy, self._file, self._read, self._clock = FolderCopy(folder), file, read, clock
        self.problems: list[Problem] = []
        self._value: T | None = None
        self._lock = RLock()
        self._looked_at = float("-inf")
        self._names: Collection[str] = (file,)
        self._states: tuple[_State, ...] = ()

    def current(self) -> T:
        """The value in force. Raises InputError when there was no sound one yet."""
        now = self._clock()
        with self._lock:
            if self._value is not None and 0 <= now - self._looked_at < LOOK_EVERY_S:
                return self._value
            self._looked_at = now
            self.copy.refresh(now, wait=self._value is None)
            if (states := self._look()) != self._states or self._value is None:
                self._read_again()
                # As of before the reading, so that what changes meanwhile is read next time.
                before = {state[0]: state for state in states}
                self._states = tuple(before.get(state[0], state) for state in self._look())
            if self._value is None:
                raise InputError(self.problems)
            return self._value

    def _look(self) -> tuple[_State, ...]:
        return tuple(_state(self.copy.path, name) for name in sorted(self._names))

    def _read_again(self) -> None:
        value, problems, files = self._read(self.copy.path, self._value)
        if files is not None:
            self._names = files
        if problems and problems != self.problems and self._value is not None:
            path, lines = self.copy.path / self._file, "\n".join(map(str, problems))
            _log.warning("%s has mistakes; the settings before them stay in force.\n%s", path, lines)
        if not problems:
            self._value = value
        self.problems = problems


def _state(folder: Path, name: str) -> _State:
    try:
        status = os.stat(folder / name)
    except OSError:
        return name, 0, -1
    return name, status.st_mtime_ns, status.st_size
