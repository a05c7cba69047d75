"""Rebuild a lost ledger of a delivery from its receipts; the result says what receipts cannot know."""

from __future__ import annotations

import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec

from pipelines.operations.ledger.guard import hold_for_job, sqlite_path
from pipelines.operations.ledger.opened import read_ledger_uri
from schemas.contracts import DeadLetter
from schemas.delivery import LEDGER_STEP, DeliveryLedger, Settlement, ledger_steps
from schemas.problems import InputError, JobError, Problem
from stores.dead_letters import read_dead_letters
from stores.deliveries.delivery_folder import DeliveryFolder, LedgerCopy
from stores.deliveries.receipt_ends import ReceiptEnds
from stores.deliveries.receipts import receipt_chunks
from stores.deliveries.spool import Spool
from stores.ledger.file_lock import LedgerLock
from stores.ledger.identity import CELL, decode_identity, read_identity, write_beat
from stores.ledger.open import connected_ledger
from stores.ledger.sqlite_file import probe
from transforms.delivery.decode_events import STEP as DECODE
from transforms.delivery.decode_events import dead_id, read_envelopes

_FILES = ("", "-wal", "-shm", "-journal")  # of an SQLite ledger
Progress = Callable[[str], None]


class Rebuilt(msgspec.Struct):
    """The settled events by outcome; when the newest receipt was settled (epoch ms, None without receipts); the events
    of the spool that have not ended, and the files of it that cannot be read; and the files that were moved away."""

    ledger: str
    settled: Counter[str] = msgspec.field(default_factory=Counter)
    newest: int | None = None
    in_spool: int = 0
    unreadable: list[str] = []
    moved: list[str] = []


def rebuild(output: str, receipts: Sequence[str], uri: str | None, move_aside: bool, progress: Progress) -> Rebuilt:
    """Settle in a new ledger the events of the receipts in these folders and in OUTPUT/receipts, and the messages in
    OUTPUT/dead_letters that could not be decoded. An interrupted rebuild continues. `progress` gets a text.

    Raises InputError for a ledger that is there already (unless `move_aside`, which renames the files of an SQLite
    one), and for receipts that cannot be used; JobError while a job runs in the output folder, and while any
    process has an SQLite ledger open.
    """
    folder, uri = DeliveryFolder(output), read_ledger_uri(output, uri)
    own = [folder.receipts] if Path(folder.receipts).is_dir() else []
    folders = list(dict.fromkeys([*own, *receipts]))
    if not folders:
        fix = f"there is no folder {folder.receipts}; name the folders that hold the delivery's receipts"
        raise InputError([Problem("command line", "--receipts", "missing", fix)])
    folder.prepare()
    with folder.locked(), ReceiptEnds(folder.root) as ends:
        result, count = Rebuilt(uri), 0
        with _exclusive(uri):  # from before the receipts are read: what others settle later would not be among them
            for chunk in receipt_chunks(folders):  # before the old ledger is touched: they may be unusable
                ends.add(chunk)
                count += len(chunk)
                progress(f"{count:,} receipts read")
            total = ends.gather()
            result.moved = _make_room(uri, move_aside)
        with connected_ledger(uri) as ledger:
            _begin(folder, uri, ledger)
            _settle_ends(ledger, ends, total, result, progress)
            _settle_dead(ledger, folder, result)
            _count_spool(ledger, folder, result)
            identity = write_beat(ledger, int(time.time() * 1000), rebuilding=False)
            folder.write_ledger_copy(LedgerCopy(uri, identity.id, identity.beat))
    return result


@contextmanager
def _exclusive(uri: str) -> Iterator[None]:
    """Keep every other process from opening the ledger. Raises JobError while one has it open, such as the job of
    another output folder that shares it: events that it sends would be missing in the new ledger."""
    path = sqlite_path(uri)
    if path is None:  # a Firestore ledger is never renamed
        yield
        return
    hold_for_job.cache_clear()  # a job that ran in this process has ended
    lock = LedgerLock(path)
    if not lock.take_alone():
        happened = f"{path} is in use: a running job, maybe of another --output, or another command has it open"
        raise JobError(f"{happened}. Nothing was changed. Stop that first, then give the same command again")
    try:
        yield
    finally:
        lock.release()


def _make_room(uri: str, move_aside: bool) -> list[str]:
    """Rename the files of an SQLite ledger with `move_aside`; their new paths. Raises InputError for a ledger that
    exists and stays, unless it is the beginning of a rebuild."""
    path = sqlite_path(uri)
    if path is None or _is_begun(path):
        return []
    files = {suffix: Path(path + suffix) for suffix in _FILES if Path(path + suffix).exists()}
    if files and not move_aside:
        fix = "a ledger is never overwritten; if it is damaged or too old, --move-aside renames it and its -wal file"
        raise InputError([Problem(path, "ledger", f"{', '.join(file.name for file in files.values())} is there", fix)])
    moved, aside = [], f"{path}.{time.time_ns()}.old"  # a -wal belongs to the file that has its name without it
    for suffix, file in files.items():
        target = Path(aside + suffix)
        try:
            file.rename(target)
        except OSError as error:
            raise JobError(f"{file} cannot be renamed ({error.strerror or error}). Move it away yourself") from error
        moved.append(str(target))
    return moved


def _is_begun(path: str) -> bool:
    try:
        identity = decode_identity(probe(path, CELL).cell)
    except JobError:
        return False
    return identity is not None and identity.rebuilding


def _begin(folder: DeliveryFolder, uri: str, ledger: DeliveryLedger) -> None:
    """Give the ledger the id of the lost one, so that other output folders that share it accept it too."""
    identity, now = read_identity(ledger), int(time.time() * 1000)
    if (identity is None or not identity.rebuilding) and any(ledger.counts(now).values()):
        fix = "a ledger is never overwritten; name a collection that is not there yet, and use it from now on"
        raise InputError([Problem(uri, "ledger", "has entries", fix)])
    try:
        copy = folder.read_ledger_copy()
    except InputError:
        copy = None  # it is written anew at the end
    ledger_id = copy.id if copy else uuid.uuid4().hex
    write_beat(ledger, max(now, copy.beat + 1 if copy else 0), ledger_id=ledger_id, rebuilding=True)


def _settle_ends(ledger: DeliveryLedger, ends: ReceiptEnds, total: int, result: Rebuilt, progress: Progress) -> None:
    owner, count = f"rebuild/{uuid.uuid4().hex}", 0
    for chunk in ends.each(LEDGER_STEP):
        settlements = [Settlement(end.event_id, end.outcome) for end in chunk]  # type: ignore[arg-type]
        ledger.settle(owner, settlements, chunk[-1].settled_at)
        result.settled.update(end.outcome for end in chunk)
        result.newest = chunk[-1].settled_at
        count += len(chunk)
        progress(f"{count:,} of {total:,} events settled")


def _settle_dead(ledger: DeliveryLedger, folder: DeliveryFolder, result: Rebuilt) -> None:
    """Settle the messages that could not be decoded, so that a redelivered one makes no second dead letter."""
    owner, now = f"rebuild/{uuid.uuid4().hex}", int(time.time() * 1000)
    for path in sorted(Path(folder.dead_letters).glob("*.avro")):
        try:
            letters = read_dead_letters(str(path))
        except Exception as error:  # fastavro has no common base
            fix = f"cannot be read ({error}); move it away"
            raise InputError([Problem(str(path), "", "dead letters", fix)]) from error
        ids = sorted({dead_id(letter) for letter in letters if letter.step == DECODE})
        for step in ledger_steps(ids):
            settlements = [Settlement(event_id, "dead") for event_id in step]
            result.settled["dead"] += len(ledger.settle(owner, settlements, now))


def _count_spool(ledger: DeliveryLedger, folder: DeliveryFolder, result: Rebuilt) -> None:
    """Count the events of the spool that have not ended by the ledger."""
    spool = Spool(folder.spool)
    for path in spool.files():
        try:
            decoded = read_envelopes(spool.read(path), 0)
        except (JobError, OSError):
            result.unreadable.append(str(path))
            continue
        ids = sorted({dead_id(item) if isinstance(item, DeadLetter) else item.event_id for item in decoded})
        for chunk in ledger_steps(ids):
            result.in_spool += len(chunk) - len(ledger.find(chunk))
