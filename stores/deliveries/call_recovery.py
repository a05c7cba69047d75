"""What the journals of processes that are gone tell the ledger: stores/deliveries/call_journal.py writes them."""

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
from schemas.problems import InputError, JobError
from stores.deliveries.call_journal import MARKS, Record, boot_id, file_id, mark_place, marks_path
from stores.deliveries.delivery_folder import DeliveryFolder
from stores.ledger.identity import read_identity

T = TypeVar("T")
OUTPUTS = "ledger/outputs"
"""The cell with the output folders of the deliveries that use the ledger: their journals know of its claims."""
_OLD_S = 60.0
_STEP = 1_000  # events that the ledger takes at once
_decode = msgspec.msgpack.Decoder(Record).decode


def read_records(data: bytes) -> Iterator[Record]:
    """The whole records at the beginning of a file; a record that a kill cut off, or that is none, ends it."""
    return (record for record, _ in _read(data))


def _read(data: bytes) -> Iterator[tuple[Record, int]]:
    """Each record, and where it ends."""
    at = 0
    while (frame := _frame(data, at)) is not None:
        body, at = frame
        try:
            yield _decode(body), at
        except msgspec.MsgspecError:  # of a later version
            return


def _frame(data: bytes, at: int) -> tuple[bytes, int] | None:
    """The bytes of the record that begins at a place, and where it ends; None if it is not whole."""
    size = int.from_bytes(data[at : at + 4], "big")
    body = data[at + 8 : at + 8 + size]
    is_whole = size and len(body) == size and zlib.crc32(body).to_bytes(4, "big") == data[at + 4 : at + 8]
    return (body, at + 8 + size) if is_whole else None


def _is_sound(data: bytes) -> bool:
    """Whether nothing but one record that a kill cut off stands behind the records: else the file is damaged."""
    end = max((end for _, end in _read(data)), default=0)
    size = int.from_bytes(data[end : end + 4], "big")
    return _frame(data, end) is None and not any(data[end + 8 + size :])


class Recovered(NamedTuple):
    """Counts of events: settled by this, released since no call had left with them (what others have settled meanwhile
    is not counted), and of calls that were not answered."""

    settled: int = 0
    released: int = 0
    in_doubt: int = 0


def register_output(ledger: DeliveryLedger, output: Path, *, most: int = 200) -> None:
    """Notes in an open ledger that the delivery in `output` uses it, so that every other delivery on this machine finds
    its journals. The newest outputs are kept."""
    path = str(output.absolute())

    def update(raw: bytes | None) -> tuple[bytes, None]:
        others = [one for one in _decode_outputs(raw) if one != path]
        return msgspec.json.encode([*others, path][-most:]), None

    if _read_outputs(ledger)[-1:] != [path]:
        ledger.change(OUTPUTS, update)


def recover(folder: Path, ledger: DeliveryLedger, now: int) -> Recovered:
    """Tells an open ledger what the journals of processes that are gone know, and deletes them: those in `folder`, and
    those of the other deliveries on this machine that use this ledger."""
    found = _recover_folder(folder, ledger, now)
    others = [path for path in map(Path, _read_outputs(ledger)) if DeliveryFolder(path).journals != folder.absolute()]
    identity = read_identity(ledger) if others else None
    for output in others:
        if identity is not None and _uses(output, identity.id):
            found = _sum(found, _recover_folder(DeliveryFolder(output).journals, ledger, now))
    return found


def _read_outputs(ledger: DeliveryLedger) -> list[str]:
    return _decode_outputs(ledger.change(OUTPUTS, lambda raw: (raw or b"", raw or b"")))


def _decode_outputs(raw: bytes | None) -> list[str]:
    try:
        return msgspec.json.decode(raw, type=list[str]) if raw else []
    except msgspec.MsgspecError as error:
        raise JobError(f"The ledger's cell {OUTPUTS} is damaged ({error})", "Restore the ledger", True) from error


def _uses(output: Path, ledger_id: str) -> bool:
    """Whether a folder of this machine is of a delivery with this ledger: a path may mean another folder here."""
    try:
        copy = DeliveryFolder(output).read_ledger_copy()
    except InputError:
        return False
    return copy is not None and copy.id == ledger_id


def _recover_folder(folder: Path, ledger: DeliveryLedger, now: int) -> Recovered:
    found = Recovered()
    for path in folder.glob("*.new"):  # of a process that was killed while it wrote its journal anew
        if _read_dead(path, older_s=_OLD_S) is not None:
            path.unlink(missing_ok=True)
    for path in sorted(folder.glob("*.journal")):
        journal = _read_dead(path)
        if journal is None:
            continue
        marks, records = _read_marks(marks_path(path)), list(read_records(journal.data))
        first = Record("boot", boot_id(), journal.file_id, number=len(journal.data))
        is_whole = bool(first.owner) and records[:1] == [first] and _is_sound(journal.data)
        for owner, own in _by_owner(one for one in records if one.kind != "boot").items():
            found = _sum(found, _recover_owner(ledger, owner, own, marks, now, is_whole))
        path.unlink(missing_ok=True)
        marks_path(path).unlink(missing_ok=True)
    return found


def _sum(one: Recovered, other: Recovered) -> Recovered:
    return Recovered(*(a + b for a, b in zip(one, other, strict=True)))


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


class _DeadJournal(NamedTuple):
    """The bytes of a journal, and its file's id as its first record has it unless it was copied."""

    data: bytes
    file_id: str


def _read_dead(path: Path, older_s: float = 0.0) -> _DeadJournal | None:
    """A journal whose process is gone; None for one whose process is alive, or that is younger. Several may read one:
    each settles and releases the same, and whoever has read it last has not gone on before that is done."""
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            own, there = os.fstat(file.fileno()), path.stat()
            if own.st_ino != there.st_ino or time.time() - there.st_mtime < older_s:  # its owner has written it anew
                return None
            return _DeadJournal(file.read(), file_id(own))
    except (BlockingIOError, FileNotFoundError, IsADirectoryError):
        return None


def _by_owner(records: Iterable[Record]) -> dict[str, list[Record]]:
    owners: dict[str, list[Record]] = {}
    for record in records:
        owners.setdefault(record.owner, []).append(record)
    return owners


def _recover_owner(
    ledger: DeliveryLedger, owner: str, records: list[Record], marks: bytes | None, now: int, is_whole: bool
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
    if not is_whole:  # records and marks may be lost, or newer elsewhere: what was not answered may have left
        in_call = claimed - {event_id for batch_id in answers for event_id in calls.get(batch_id, ())}
    ends = [end for some in answers.values() for end in some or ()]
    settled = [name for part in _parts(ends) for name in ledger.settle(owner, part, now)]
    # Whatever is left of the claim sent nothing; what the owner no longer holds stays as it is.
    released = 0
    for part in _parts(sorted(claimed - in_call - {end.event_id for end in ends})):
        released += len(part) - len(ledger.find(part))
        ledger.release(owner, part)
    return Recovered(len(settled), released, len(in_call))


def _parts(items: Sequence[T]) -> Iterator[Sequence[T]]:
    for start in range(0, len(items), _STEP):
        yield items[start : start + _STEP]
