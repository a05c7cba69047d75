"""Recovery of calls: the journals of dead processes are settled in the ledger (stores/deliveries/call_journal.py)."""

from __future__ import annotations

import fcntl
import os
import time
import zlib
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec

from schemas.delivery import DeliveryLedger, ledger_steps
from schemas.problems import InputError, JobError
from stores.deliveries.call_journal import FLAGS, Record, boot_id, file_id, flag_place, flags_path
from stores.deliveries.delivery_folder import DeliveryFolder
from stores.ledger.identity import read_identity

OUTPUTS = "ledger/outputs"
"""The cell with the output folders of the deliveries that use the ledger: their journals have its calls."""
_OLD_S = 60.0
_decode = msgspec.msgpack.Decoder(Record).decode


def read_records(data: bytes) -> Iterator[Record]:
    """The whole records at the start of a file, up to one that a kill cut off or that is no record."""
    return (record for record, _ in _read(data))


def _read(data: bytes) -> Iterator[tuple[Record, int]]:
    """(record, place of its end) of each record."""
    at = 0
    while (frame := _frame(data, at)) is not None:
        body, at = frame
        try:
            yield _decode(body), at
        except msgspec.MsgspecError:  # of a later version
            return


def _frame(data: bytes, at: int) -> tuple[bytes, int] | None:
    """(bytes, end) of the record at a place; None if it is not whole."""
    size = int.from_bytes(data[at : at + 4], "big")
    body = data[at + 8 : at + 8 + size]
    is_whole = size and len(body) == size and zlib.crc32(body).to_bytes(4, "big") == data[at + 4 : at + 8]
    return (body, at + 8 + size) if is_whole else None


def _is_sound(data: bytes) -> bool:
    """Whether at most one cut-off record follows the records; otherwise the file is damaged."""
    end = max((end for _, end in _read(data)), default=0)
    size = int.from_bytes(data[end : end + 4], "big")
    return _frame(data, end) is None and not any(data[end + 8 + size :])


class Recovered(NamedTuple):
    """Counts of events: settled now, released because no call with them was sent (without those that others have
    settled meanwhile), and in doubt because their call was not answered."""

    settled: int = 0
    released: int = 0
    in_doubt: int = 0


def register_output(ledger: DeliveryLedger, output: Path, *, most: int = 200) -> None:
    """Records in an open ledger that the delivery in `output` uses it, so that every other delivery on this machine
    finds its journals. The newest outputs are kept."""
    path = str(output.absolute())

    def update(raw: bytes | None) -> tuple[bytes, None]:
        others = [other for other in _decode_outputs(raw) if other != path]
        return msgspec.json.encode([*others, path][-most:]), None

    if _read_outputs(ledger)[-1:] != [path]:
        ledger.change(OUTPUTS, update)


def recover(folder: Path, ledger: DeliveryLedger, now: int) -> Recovered:
    """Settles and releases in an open ledger what the journals of dead processes say, and deletes them: those in
    `folder`, and those of the other deliveries on this machine that use this ledger."""
    counts = list(_recover_folder(folder, ledger, now))
    others = [path for path in map(Path, _read_outputs(ledger)) if DeliveryFolder(path).journals != folder.absolute()]
    identity = read_identity(ledger) if others else None
    for output in others:
        if identity is not None and _uses(output, identity.id):
            counts += _recover_folder(DeliveryFolder(output).journals, ledger, now)
    return Recovered(*map(sum, zip(*counts, strict=True)))


def _read_outputs(ledger: DeliveryLedger) -> list[str]:
    return _decode_outputs(ledger.change(OUTPUTS, lambda raw: (raw or b"", raw or b"")))


def _decode_outputs(raw: bytes | None) -> list[str]:
    try:
        return msgspec.json.decode(raw, type=list[str]) if raw else []
    except msgspec.MsgspecError as error:
        raise JobError(f"The ledger's cell {OUTPUTS} is damaged ({error})", "Restore the ledger", True) from error


def _uses(output: Path, ledger_id: str) -> bool:
    """Whether a folder on this machine is a delivery with this ledger: a path may be another folder here."""
    try:
        copy = DeliveryFolder(output).read_ledger_copy()
    except InputError:
        return False
    return copy is not None and copy.id == ledger_id


def _recover_folder(folder: Path, ledger: DeliveryLedger, now: int) -> Iterator[Recovered]:
    """The counts of each owner."""
    for path in folder.glob("*.new"):  # of a process that was killed while it rewrote its journal
        if _read_dead(path, older_s=_OLD_S) is not None:
            path.unlink(missing_ok=True)
    for path in sorted(folder.glob("*.journal")):
        journal = _read_dead(path)
        if journal is None:
            continue
        flags, records = _read_flags(flags_path(path)), list(read_records(journal.data))
        first = Record("boot", boot_id(), journal.file_id, number=len(journal.data))
        is_whole = bool(first.owner) and records[:1] == [first] and _is_sound(journal.data)
        by_owner: dict[str, list[Record]] = defaultdict(list)
        for record in records:
            if record.kind != "boot":
                by_owner[record.owner].append(record)
        for owner, owned in by_owner.items():
            yield _recover_owner(ledger, owner, owned, flags, now, is_whole)
        path.unlink(missing_ok=True)
        flags_path(path).unlink(missing_ok=True)


def _read_flags(path: Path) -> bytes | None:
    """The sent flags; None when they are missing: then every call that started is in doubt."""
    try:
        flags = path.read_bytes()
    except FileNotFoundError:
        return None
    return flags if len(flags) == FLAGS else None


def _was_sent(record: Record, flags: bytes | None) -> bool:
    at, value = flag_place(record.number)
    return flags is None or flags[at] == value


class _DeadJournal(NamedTuple):
    """The bytes of a journal, and its file's id, which its first record has too unless the file is a copy."""

    data: bytes
    file_id: str


def _read_dead(path: Path, older_s: float = 0.0) -> _DeadJournal | None:
    """A journal whose process is dead; None if it is alive, or if the file is younger than `older_s`. Several processes
    may read one: each settles and releases the same."""
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            opened, current = os.fstat(file.fileno()), path.stat()
            if opened.st_ino != current.st_ino or time.time() - current.st_mtime < older_s:
                return None  # its owner has rewritten it, or it is young
            return _DeadJournal(file.read(), file_id(opened))
    except (BlockingIOError, FileNotFoundError, IsADirectoryError):
        return None


def _recover_owner(
    ledger: DeliveryLedger, owner: str, records: list[Record], flags: bytes | None, now: int, is_whole: bool
) -> Recovered:
    closed = {record.batch_id for record in records if record.kind == "closed"}
    if "" in closed:
        return Recovered()
    calls = {record.batch_id: record.event_ids for record in records if record.kind == "started"}
    claimed = {event_id for record in records if record.kind == "claiming" for event_id in record.event_ids}
    claimed -= {event_id for batch_id in closed for event_id in calls.pop(batch_id, ())}
    answered = [record for record in records if record.kind == "answered" and record.batch_id not in closed]
    answers = {record.batch_id: record.settlements for record in answered}
    sent = {record.batch_id for record in records if record.kind == "started" and _was_sent(record, flags)}
    in_call = {event_id for batch_id, ids in calls.items() if batch_id in sent - set(answers) for event_id in ids}
    if not is_whole:  # records and flags may be lost, or newer elsewhere: a call without an answer may have been sent
        in_call = claimed - {event_id for batch_id in answers for event_id in calls.get(batch_id, ())}
    ends = [end for settlements in answers.values() for end in settlements or ()]
    settled = [name for step in ledger_steps(ends) for name in ledger.settle(owner, step, now)]
    # The rest of the claim was not sent; events that the owner no longer holds are not changed.
    released = 0
    for step in ledger_steps(sorted(claimed - in_call - {end.event_id for end in ends})):
        released += len(step) - len(ledger.find(step))
        ledger.release(owner, step)
    return Recovered(len(settled), released, len(in_call))
