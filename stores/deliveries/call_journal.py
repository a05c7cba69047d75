"""The journal of calls on the local disk: what was claimed, which calls started, how they were answered.

After a kill -9 the ledger has claims without an outcome. Without a journal each of them may have been sent. With it
only the calls that were sent and not answered are in doubt: a record is in shared memory before the step that it
announces, so it survives the process. It may not survive a restart of the machine: a journal of an earlier boot
settles what was answered and releases nothing else, so every other claim is in doubt, as without a journal. A second
file has the sent flags, a byte per call, set right before the last byte of a request. To write to shared memory costs
no system call, in which the interpreter would let all other threads run first while this one holds the journal's lock
(it cost seconds of latency at 1,000 events a second). A journal belongs to one process, which holds a lock on it. The
lock ends with the process: then the file may be recovered.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import uuid
import zlib
from collections.abc import Sequence
from contextlib import suppress
from itertools import count
from pathlib import Path
from threading import Lock
from typing import Literal

import msgspec

from schemas.call_journal import CallJournal
from schemas.delivery import SentFlag, Settlement
from schemas.problems import JobError

FLAGS = 1 << 16  # sent flags of a journal: far more than calls are open at a time, so that none is used twice at once
_BOOT = Path("/proc/sys/kernel/random/boot_id")
SIZE = 16 << 20  # of a file; a full one is rewritten with the records that are still open


class Record(msgspec.Struct, frozen=True, array_like=True):
    """One record: the events of `claiming` and `started`, the settlements of `answered` (None: nothing was sent);
    `closed` without a batch is the whole owner. `number` is the call's: the place of its sent flag. `boot` is the first
    of a file; its owner is the machine's boot, its batch the file's id, its number the file's size."""

    kind: Literal["boot", "claiming", "started", "answered", "closed"]
    owner: str
    batch_id: str = ""
    event_ids: list[str] = []
    settlements: list[Settlement] | None = None
    number: int = 0


_encode = msgspec.msgpack.Encoder().encode


class FileJournal(CallJournal):
    """A CallJournal in FOLDER/PROCESS.journal. The first record creates it; `close` deletes it if nothing is open."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / f"{uuid.uuid4().hex}.journal"
        self._lock = Lock()
        self._pages: mmap.mmap | None = None  # of the file, and where its records end
        self._end = 0
        self._flags: mmap.mmap | None = None
        self._numbers = count()
        self._open: dict[str, list[bytes]] = {}  # owner to the records of what is open
        self._calls: dict[str, int] = {}  # owner to its open calls

    def claiming(self, owner: str, event_ids: Sequence[str]) -> None:
        self._note(Record("claiming", owner, event_ids=list(event_ids)))

    def granted(self, owner: str, calls: int) -> None:
        self._calls[owner] = calls
        if not calls:
            self.closed(owner, "")

    def started(self, owner: str, batch_id: str, event_ids: Sequence[str]) -> SentFlag:
        number = next(self._numbers)
        self._note(Record("started", owner, batch_id, list(event_ids), number=number))
        assert self._flags is not None
        return SentFlag(self._flags, *flag_place(number))

    def answered(self, owner: str, batch_id: str, settlements: Sequence[Settlement] | None) -> None:
        with suppress(JobError):  # a full disk: the ledger has it next
            ends = None if settlements is None else list(settlements)
            self._note(Record("answered", owner, batch_id, settlements=ends))

    def closed(self, owner: str, batch_id: str) -> None:
        with self._lock:
            open_calls = self._calls[owner] = self._calls.get(owner, 0) - 1
            if open_calls <= 0:
                del self._calls[owner]
        with suppress(JobError):
            self._note(Record("closed", owner, batch_id if open_calls > 0 else ""))

    def close(self) -> None:
        """Delete the file, unless something is still open."""
        with self._lock:
            if self._pages is None:
                return
            if not self._open:
                self._path.unlink(missing_ok=True)
                flags_path(self._path).unlink(missing_ok=True)
            self._pages.close()  # and with it the lock
            self._pages = None

    def _note(self, record: Record) -> None:
        data = _framed(record)
        with self._lock:
            self._keep(record, data)
            try:
                if self._pages is None or self._end + len(data) > len(self._pages):
                    self._rewrite()
                else:
                    self._pages[self._end : self._end + len(data)] = data
                    self._end += len(data)
            except OSError as error:
                happened = f"{self._path} could not be written ({error.strerror or error})"
                todo = "Free some space, then run the same command again: nothing that was sent is forgotten"
                raise JobError(happened, todo) from error

    def _keep(self, record: Record, data: bytes) -> None:
        """Keeps the records of open owners in memory, for a rewrite."""
        if record.kind == "closed" and not record.batch_id:
            self._open.pop(record.owner, None)
        else:
            self._open.setdefault(record.owner, []).append(data)

    def _rewrite(self) -> None:
        """Writes a file with the records of open owners in place of the old one; it is locked before it has its name.
        After a kill in between there is the old file or the new one."""
        new = self._path.with_suffix(".new")
        if self._flags is None:
            new.parent.mkdir(parents=True, exist_ok=True)
            self._flags = _create(flags_path(self._path), FLAGS)
        records = [record for records in self._open.values() for record in records]
        size = max(SIZE, 2 * sum(map(len, records)) + SIZE // 2)
        new.unlink(missing_ok=True)
        pages = _create(new, size)
        data = b"".join([_framed(Record("boot", boot_id(), file_id(new.stat()), number=size)), *records])
        pages[: len(data)] = data
        new.replace(self._path)
        if self._pages is not None:
            self._pages.close()
        self._pages, self._end = pages, len(data)


def _create(path: Path, size: int) -> mmap.mmap:
    """A file of zeros in shared memory, locked until it is closed. Its blocks are allocated: to write into a hole on a
    full disk would kill the process."""
    file = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(file, fcntl.LOCK_EX)
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file, 0, size)
        else:
            os.write(file, bytes(size))
        return mmap.mmap(file, size)  # it has a descriptor of its own, which keeps the lock
    finally:
        os.close(file)


def file_id(status: os.stat_result) -> str:
    """The id of a file, which no copy of it has: a copy has no lock although its process may live, and may be old."""
    return str(status.st_ino)


def flags_path(path: Path) -> Path:
    """The path of a journal's sent flags."""
    return path.with_suffix(".marks")


def flag_place(number: int) -> tuple[int, int]:
    """(place, value) of the sent flag of a call; an earlier call at this place had another value."""
    return number % FLAGS, 1 + number // FLAGS % 255


def boot_id() -> str:
    """The id of the machine's boot; empty if unknown: then every journal counts as one of an earlier boot."""
    try:
        return _BOOT.read_text().strip()
    except OSError:
        return ""


def _framed(record: Record) -> bytes:
    data = _encode(record)
    return len(data).to_bytes(4, "big") + zlib.crc32(data).to_bytes(4, "big") + data
