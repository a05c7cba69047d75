"""The lock of an SQLite ledger: open ledgers share it, a rebuild that renames the ledger holds it exclusively.

It is a flock on the file PATH.lock, so it ends with its process, also after kill -9. It is not on the ledger's own
file: closing a second descriptor of that would drop SQLite's locks. The lock file is never deleted, or two processes
could lock two different files.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import BinaryIO

from schemas.problems import JobError


class LedgerLock:
    """The lock of the ledger at a path, not acquired yet. `release` and the end of the object release it."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._file: BinaryIO | None = None

    def share(self) -> None:
        """Acquire it shared. Raises JobError while a rebuild holds it exclusively."""
        if not self._take(fcntl.LOCK_SH):
            happened = f"The ledger {self._path} is being renamed by `campaigns ledger rebuild --move-aside`"
            raise JobError(happened, "Wait until the rebuild has ended, then run the same command again")

    def take_alone(self) -> bool:
        """Acquire it exclusively; False if another process has it."""
        return self._take(fcntl.LOCK_EX)

    def release(self) -> None:
        """Release it; may be called twice."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _take(self, kind: int) -> bool:
        path = Path(os.path.realpath(self._path) + ".lock")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise JobError(f"The ledger's folder cannot be made ({error})", "Choose another path") from error
        try:
            file = path.open("ab")
        except OSError as error:
            happened = f"The ledger's lock file {path} cannot be opened ({error.strerror or error})"
            raise JobError(happened, "Give this account the right to write the ledger's folder") from error
        try:
            fcntl.flock(file, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            return False
        self.release()
        self._file = file
        return True
