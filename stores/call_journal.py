"""A journal of calls on the local disk: what was claimed, which calls started, how they were answered.

After a kill -9 the ledger has claims without an outcome. Without a journal each of them may have been sent. With it
only the calls that had left and were not answered are in doubt: a record is in the operating system's hands before
the step that it announces, so it survives the process. It may not survive a restart of the machine: a journal of an
earlier boot settles what was answered and frees nothing else, so every other claim is in doubt, as without a journal.
Next to the journal lies a file of marks, a byte a call, set right before the last byte of a request. Both files are
shared memory: to write them costs no system call, in which the interpreter would let all other threads go first while
this one holds the journal's lock (it cost seconds of latency at 1,000 events a second). A journal belongs to one
process, which holds a lock on it; the lock ends with the process, and tells others that the file may be recovered.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import time
import uuid
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import count
from pathlib import Path
from threading import Lock
from typing import Literal, NamedTuple, TypeVar

import msgspec

from schemas.delivery import DeliveryLedger, Mark, Settlement
from stores.transports import TransportError

T = TypeVar("T")
MARKS = 1 << 16  # bytes of marks: far more than calls are open at one time, so that none is used twice at once
_BOOT = Path("/proc/sys/kernel/random/boot_id")
_OLD_S = 60.0
SIZE = 16 << 20  # of a file; one that is full is written anew, with what is still open
_STEP = 1_000  # events that the ledger takes at once


class Record(msgspec.Struct, frozen=True, array_like=True):
    """One note: events of `claiming` and `started`, ends of `answered` (None: nothing was sent); `closed` without a
    batch is the whole owner. `number` is the call's, which says where its mark is. `boot`: the first of a file; its
    owner is the machine's boot."""

    kind: Literal["boot", "claiming", "started", "answered", "closed"]
    owner: str
    batch_id: str = ""
    event_ids: list[str] = []
    ends: list[Settlement] | None = None
    number: int = 0


_encode, _decode = msgspec.msgpack.Encoder().encode, msgspec.msgpack.Decoder(Record).decode


class FileJournal:
    """A CallJournal in FOLDER/PROCESS.journal. The first note makes the file; it goes when everything is closed."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / f"{uuid.uuid4().hex}.journal"
        self._lock = Lock()
        self._pages: mmap.mmap | None = None  # of the file, and where its records end
        self._end = 0
        self._marks: mmap.mmap | None = None
        self._numbers = count()
        self._open: dict[str, list[bytes]] = {}  # owner to the records of what is open
        self._calls: dict[str, int] = {}  # owner to its open calls

    def claiming(self, owner: str, event_ids: Sequence[str]) -> None:
        """The owner is about to claim these events."""
        self._note(Record("claiming", owner, event_ids=list(event_ids)))

    def granted(self, owner: str, calls: int) -> None:
        """So many calls are made of what the owner claimed; none closes the owner."""
        self._calls[owner] = calls
        if not calls:
            self.closed(owner, "")

    def started(self, owner: str, batch_id: str, event_ids: Sequence[str]) -> Mark:
        """The first byte of a call is about to go out; the mark is to be set when its last one does."""
        number = next(self._numbers)
        self._note(Record("started", owner, batch_id, list(event_ids), number=number))
        assert self._marks is not None
        return Mark(self._marks, *_mark(number))

    def answered(self, owner: str, batch_id: str, ends: Sequence[Settlement] | None) -> None:
        """A call is over, and so the events end (None: nothing was sent). On a disk that is full it is not kept: the
        ledger is told next."""
        with suppress(TransportError):
            self._note(Record("answered", owner, batch_id, ends=None if ends is None else list(ends)))

    def closed(self, owner: str, batch_id: str) -> None:
        """The ledger knows what became of the call."""
        with self._lock:
            left = self._calls[owner] = self._calls.get(owner, 0) - 1
            if left <= 0:
                del self._calls[owner]
        with suppress(TransportError):
            self._note(Record("closed", owner, batch_id if left > 0 else ""))

    def close(self) -> None:
        """Deletes the file, unless something is still open."""
        with self._lock:
            if self._pages is None:
                return
            if not self._open:
                self._path.unlink(missing_ok=True)
                _marks_of(self._path).unlink(missing_ok=True)
            self._pages.close()  # and with it the lock
            self._pages = None

    def _note(self, record: Record) -> None:
        data = _framed(record)
        with self._lock:
            self._keep(record, data)
            try:
                if self._pages is None or self._end + len(data) > len(self._pages):
                    self._write_anew()
                else:
                    self._pages[self._end : self._end + len(data)] = data
                    self._end += len(data)
            except OSError as error:
                happened = f"{self._path} could not be written ({error.strerror or error})"
                todo = "Free some space, then run the same command again: nothing that was sent is forgotten"
                raise TransportError(happened, todo) from error

    def _keep(self, record: Record, data: bytes) -> None:
        """Keeps the records of what is open at hand."""
        if record.kind == "closed" and not record.batch_id:
            self._open.pop(record.owner, None)
        else:
            self._open.setdefault(record.owner, []).append(data)

    def _write_anew(self) -> None:
        """A file with the records of what is open, in place of the old one, if there was one; locked before anybody can
        see it. A kill in between leaves the old file or the new one."""
        new = self._path.with_suffix(".new")
        if self._marks is None:
            new.parent.mkdir(parents=True, exist_ok=True)
            self._marks = _create(_marks_of(self._path), MARKS)
        records = [record for records in self._open.values() for record in records]
        data = b"".join([_framed(Record("boot", _boot_id())), *records])
        new.unlink(missing_ok=True)
        pages = _create(new, max(SIZE, 2 * len(data)))
        pages[: len(data)] = data
        new.replace(self._path)
        if self._pages is not None:
            self._pages.close()
        self._pages, self._end = pages, len(data)


def _create(path: Path, size: int) -> mmap.mmap:
    """A file of zeros in shared memory, locked until it is closed. Its blocks are reserved: to write into a hole on a
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


def _marks_of(path: Path) -> Path:
    return path.with_suffix(".marks")


def _mark(number: int) -> tuple[int, int]:
    """Where the mark of a call is, and the value that says that it has left; an earlier call there had another."""
    return number % MARKS, 1 + number // MARKS % 255


def _boot_id() -> str:
    """The machine's boot; empty where it is not known, and every journal counts as one of an earlier boot."""
    try:
        return _BOOT.read_text().strip()
    except OSError:
        return ""


def _framed(record: Record) -> bytes:
    data = _encode(record)
    return len(data).to_bytes(4, "big") + zlib.crc32(data).to_bytes(4, "big") + data


def read_records(data: bytes) -> Iterator[Record]:
    """The whole records at the beginning of a file; a record that a kill cut off ends it."""
    at = 0
    while at + 8 <= len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        body = data[at + 8 : at + 8 + size]
        if not size or len(body) < size or zlib.crc32(body).to_bytes(4, "big") != data[at + 4 : at + 8]:
            return
        yield _decode(body)
        at += 8 + size


class Recovered(NamedTuple):
    """Counts of events: settled, released since no call had left with them, and of calls that were not answered."""

    settled: int = 0
    released: int = 0
    in_doubt: int = 0


def recover(folder: Path, ledger: DeliveryLedger, now: int) -> Recovered:
    """Tells the ledger what the journals of processes that are gone know, and deletes them."""
    found = Recovered()
    for path in folder.glob("*.new"):  # of a process that was killed while it wrote its journal anew
        if _of_the_dead(path, older_s=_OLD_S) is not None:
            path.unlink(missing_ok=True)
    for path in sorted(folder.glob("*.journal")):
        data = _of_the_dead(path)
        if data is None:
            continue
        marks, all_records = _read_marks(_marks_of(path)), list(read_records(data))
        same_boot = bool(_boot_id()) and all_records[:1] == [Record("boot", _boot_id())]
        for owner, records in _by_owner(one for one in all_records if one.kind != "boot").items():
            some = _recover_owner(ledger, owner, records, marks, now, same_boot)
            found = Recovered(*(a + b for a, b in zip(found, some, strict=True)))
        path.unlink(missing_ok=True)
        _marks_of(path).unlink(missing_ok=True)
    return found


def _read_marks(path: Path) -> bytes | None:
    """The marks; None when they are not there, and every call that was about to leave is in doubt."""
    try:
        marks = path.read_bytes()
    except FileNotFoundError:
        return None
    return marks if len(marks) == MARKS else None


def _has_left(record: Record, marks: bytes | None) -> bool:
    at, value = _mark(record.number)
    return marks is None or marks[at] == value


def _of_the_dead(path: Path, older_s: float = 0.0) -> bytes | None:
    """The bytes of a journal whose process is gone; None for one that is alive or younger, or that another recovers."""
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            own, there = os.fstat(file.fileno()), path.stat()
            same = own.st_ino == there.st_ino  # its owner may have written it anew
            return file.read() if same and time.time() - there.st_mtime >= older_s else None
    except (BlockingIOError, FileNotFoundError):
        return None


def _by_owner(records: Iterable[Record]) -> dict[str, list[Record]]:
    owners: dict[str, list[Record]] = {}
    for record in records:
        owners.setdefault(record.owner, []).append(record)
    return owners


def _recover_owner(
    ledger: DeliveryLedger, owner: str, records: list[Record], marks: bytes | None, now: int, same_boot: bool
) -> Recovered:
    closed = {record.batch_id for record in records if record.kind == "closed"}
    if "" in closed:
        return Recovered()
    calls = {record.batch_id: record.event_ids for record in records if record.kind == "started"}
    claimed = {event_id for record in records if record.kind == "claiming" for event_id in record.event_ids}
    claimed -= {event_id for batch_id in closed for event_id in calls.pop(batch_id, ())}
    answers = {one.batch_id: one.ends for one in records if one.kind == "answered" and one.batch_id not in closed}
    left = {one.batch_id for one in records if one.kind == "started" and _has_left(one, marks)} - set(answers)
    in_call = {event_id for batch_id, ids in calls.items() if batch_id in left for event_id in ids}
    if not same_boot:  # records and marks may be lost: what was not answered may have left
        in_call = claimed - {event_id for batch_id in answers for event_id in calls.get(batch_id, ())}
    ends = [end for some in answers.values() for end in some or ()]
    settled = [name for part in _parts(ends) for name in ledger.settle(owner, part, now)]
    # Whatever is left of the claim sent nothing; what the owner no longer holds stays as it is.
    released = sorted(claimed - in_call - {end.event_id for end in ends})
    for part in _parts(released):
        ledger.release(owner, part)
    return Recovered(len(settled), len(released), len(in_call))


def _parts(items: Sequence[T]) -> Iterator[Sequence[T]]:
    for start in range(0, len(items), _STEP):
        yield items[start : start + _STEP]
