"""What the journals of processes that are gone tell the ledger: stores/call_journal.py writes them."""

from __future__ import annotations

import fcntl
import os
import time
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

import msgspec

from schemas.delivery import DeliveryLedger
from stores.call_journal import MARKS, Record, boot_id, mark_place, marks_path

T = TypeVar("T")
_OLD_S = 60.0
_STEP = 1_000  # events that the ledger takes at once
_decode = msgspec.msgpack.Decoder(Record).decode


def read_records(data: bytes) -> Iterator[Record]:
    """The whole records at the beginning of a file; a record that a kill cut off, or that is none, ends it."""
    return (record for record, _ in _read(data))


def _read(data: bytes) -> Iterator[tuple[Record, int]]:
    """Each record, and where it ends."""
    at = 0
    while at + 8 <= len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        body = data[at + 8 : at + 8 + size]
        if not size or len(body) < size or zlib.crc32(body).to_bytes(4, "big") != data[at + 4 : at + 8]:
            return
        at += 8 + size
        try:
            yield _decode(body), at
        except msgspec.MsgspecError:  # of a later version
            return


def _is_sound(data: bytes) -> bool:
    """Whether nothing but one record that a kill cut off stands behind the records: else the file is damaged."""
    end = max((end for _, end in _read(data)), default=0)
    size = int.from_bytes(data[end : end + 4], "big")
    whole = size and zlib.crc32(data[end + 8 : end + 8 + size]).to_bytes(4, "big") == data[end + 4 : end + 8]
    return not whole and not any(data[end + 8 + size :])


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
        marks, all_records = _read_marks(marks_path(path)), list(read_records(data))
        first = Record("boot", boot_id(), number=len(data))
        same_boot = bool(first.owner) and all_records[:1] == [first] and _is_sound(data)
        for owner, records in _by_owner(one for one in all_records if one.kind != "boot").items():
            some = _recover_owner(ledger, owner, records, marks, now, same_boot)
            found = Recovered(*(a + b for a, b in zip(found, some, strict=True)))
        path.unlink(missing_ok=True)
        marks_path(path).unlink(missing_ok=True)
    return found


def _read_marks(path: Path) -> bytes | None:
    """The marks; None when they are not there, and every call that was about to leave is in doubt."""
    try:
        marks = path.read_bytes()
    except FileNotFoundError:
        return None
    return marks if len(marks) == MARKS else None


def _has_left(record: Record, marks: bytes | None) -> bool:
    at, value = mark_place(record.number)
    return marks is None or marks[at] == value


def _of_the_dead(path: Path, older_s: float = 0.0) -> bytes | None:
    """The bytes of a journal whose process is gone; None for one that is alive or younger, or that another recovers."""
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            own, there = os.fstat(file.fileno()), path.stat()
            same = own.st_ino == there.st_ino  # its owner may have written it anew
            return file.read() if same and time.time() - there.st_mtime >= older_s else None
    except (BlockingIOError, FileNotFoundError, IsADirectoryError):
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
