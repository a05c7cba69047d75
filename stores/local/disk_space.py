"""Free space on the disks that a delivery writes to: checked before each call, with a reserve for calls in flight.

An answer that cannot be written is lost, and its event is unknown or sent twice. So calls stop while there is still
room for the answers of those in flight. A file without meaning, the reserve, is deleted when a write fails all the
same, because something else has filled the disk.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from threading import Lock
from typing import TypeVar

from schemas.problems import JobError

T = TypeVar("T")
KEEP_FREE = 64 << 20
"""Bytes that stay free: more than the receipts and ledger pages of all calls that can be in flight."""
RESERVE = 32 << 20
"""Bytes of the reserve file of a folder."""
NAME = "disk-reserve"
"""The reserve file's name; a file of this name is deleted when its disk is full."""
_LOOK_EVERY_S = 1.0
_MB = 1 << 20


class DiskSpace:
    """The file systems of some folders of this machine, each with a reserve file. Safe for several threads."""

    def __init__(
        self,
        folders: Iterable[Path],
        keep_free: int = KEEP_FREE,
        reserve: int = RESERVE,
        on_short: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._folders, self._keep_free, self._reserve = list(dict.fromkeys(folders)), keep_free, reserve
        self._clock, self._lock = clock, Lock()
        self._looked_at, self._free = float("-inf"), list[int]()
        self._on_short, self._notified, self._shortage = on_short, False, ""

    def prepare(self) -> None:
        """Allocate the missing reserves. Raises JobError when there is no room for them."""
        for folder in self._folders:
            folder.mkdir(parents=True, exist_ok=True)
            with suppress(OSError):
                _allocate(folder / NAME, self._reserve)
        self._looked_at, self._notified, self._shortage = float("-inf"), False, _describe(self._short())
        self.check()

    def enough(self) -> bool:
        """Whether calls may be made: every reserve exists, and `keep_free` bytes are free. Checks the free bytes at
        most once a second. If not, `on_short` is called once, and this stays False until `prepare`: the job ends."""
        if not self._shortage:
            self._shortage = _describe(self._short())
        if self._shortage and not self._notified:
            with suppress(OSError):
                self._on_short()
                self._notified = True
        return not self._shortage

    def check(self) -> None:
        """Raises JobError, which says how much to free, if space was short at any time since `prepare`."""
        if shortage := self._shortage or _describe(self._short()):
            raise JobError(
                f"the disk is nearly full: {shortage}. No more calls are made, so that the answers to calls in flight "
                "can still be written. Free the space, then run the same command again: it continues where it stopped"
            )

    def _short(self) -> list[tuple[Path, int, int]]:
        """(folder, bytes free, bytes to free) of the folders without enough room."""
        with self._lock:
            if self._clock() - self._looked_at >= _LOOK_EVERY_S:
                self._looked_at = self._clock()
                self._free = [_free(folder) for folder in self._folders]
            pairs = list(zip(self._folders, self._free, strict=True))
        short = []
        for folder, free in pairs:
            wanted = self._keep_free + (0 if (folder / NAME).exists() else self._reserve)
            if free < wanted or not (folder / NAME).exists():
                short.append((folder, free, max(0, wanted - free)))
        return short


def _describe(short: Iterable[tuple[Path, int, int]]) -> str:
    return "; ".join(
        f"{folder} is on a disk with {free // _MB} MB free, free at least {max(1, -(-missing // _MB))} MB more"
        for folder, free, missing in short
    )


def _free(folder: Path) -> int:
    """Bytes that this account may still write."""
    status = os.statvfs(folder)
    return status.f_bavail * status.f_frsize


def _allocate(path: Path, size: int) -> None:
    """Create a file of so many allocated bytes; an incomplete one is removed. Raises OSError."""
    if path.exists() and path.stat().st_size == size:
        return
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        os.posix_fallocate(handle, 0, size)
        os.ftruncate(handle, size)
    except OSError:
        path.unlink(missing_ok=True)
        raise
    finally:
        os.close(handle)


def release_reserve(folder: Path) -> bool:
    """Delete the reserve of a folder, or of one of the two above it; whether there was one."""
    for place in (folder, *folder.absolute().parents[:2]):
        try:
            (place / NAME).unlink()
        except OSError:
            continue
        return True
    return False


def with_reserve(folder: Path, write: Callable[[], T]) -> T:
    """The result of a write. If the disk is full, the folder's reserve is deleted and the write is tried once more."""
    try:
        return write()
    except Exception as error:
        if not (_is_full(error) and release_reserve(folder)):
            raise
        return write()


def _is_full(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        error = error.__cause__
    return False
