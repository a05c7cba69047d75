"""Makes a delivery's ledger from what receipts say, when the ledger itself is lost; says what it cannot know."""

from __future__ import annotations

import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from pipelines.operations.ledger.guard import hold_for_job, sqlite_path
from pipelines.operations.ledger.opened import read_ledger_uri
from schemas.contracts import DeadLetter
from schemas.delivery import LEDGER_STEP, DeliveryLedger, Settlement
from schemas.problems import InputError, JobError, Problem
from stores.dead_letters import read_dead_letters
from stores.deliveries.delivery_folder import DeliveryFolder, LedgerCopy
from stores.deliveries.receipt_ends import ReceiptEnds
from stores.deliveries.receipts import receipt_chunks
from stores.deliveries.spool import Spool
from stores.ledger.file_lock import LedgerLock
from stores.ledger.identity import CELL, decode_identity, read_identity, write_beat
from stores.ledger.open import open_ledger
from stores.ledger.sqlite_file import probe
from transforms.delivery.decode_events import STEP as DECODE
from transforms.delivery.decode_events import dead_id, read_envelopes

_FILES = ("", "-wal", "-shm", "-journal")  # of an SQLite ledger
Show = Callable[[str], None]


@dataclass
class Rebuilt:
    """What a rebuild settled, by outcome, and what it cannot know: when the newest receipt was settled (epoch ms, None
    without receipts), the events of the spool without an end, its files that cannot be read, and the files that were
    moved away."""

    uri: str
    settled: Counter[str] = field(default_factory=Counter)
    newest: int | None = None
    in_spool: int = 0
    unreadable: list[str] = field(default_factory=list)
    moved: list[str] = field(default_factory=list)

    def lines(self) -> Iterator[str]:
        """What a person is told."""
        yield from (f"moved away: {path}" for path in self.moved)
        yield f"ledger {self.uri}: {self.settled.total():,} events settled, as receipts and dead letters say"
        yield from (f"{outcome:>16}  {count:>12,}" for outcome, count in sorted(self.settled.items()))
        since = f" (the newest is of {_clock(self.newest)})" if self.newest is not None else ""
        yield (
            "not known: events that were in a call when the old ledger was lost, and events that it had settled before "
            f"their receipt was written{since}. The next run sends those of them that its source or spool has. If no "
            "customer may get a message twice, ask the vendor what it accepted since, before you start the run"
        )
        yield f"{self.in_spool:,} events of the spool have no receipt: the next run sends them"
        yield from (f"this file of the spool cannot be read, and is not counted: {one}" for one in self.unreadable)
        yield "events that a replay had reopened and that were not sent yet are settled again: replay them again"


def rebuild(output: str, receipts: Sequence[str], uri: str | None, move_aside: bool, show: Show) -> Rebuilt:
    """Settles in a new ledger what receipts in these folders and in OUTPUT/receipts say, and the dead letters in
    OUTPUT/dead_letters of what could not be decoded. A rebuild that was interrupted goes on.

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
        found, count = Rebuilt(uri), 0
        with _in_no_use(uri):  # from before the receipts are read: what others settle later would not be among them
            for chunk in receipt_chunks(folders):  # before the old ledger is touched: they may be unusable
                ends.add(chunk)
                count += len(chunk)
                show(f"{count:,} receipts read")
            total = ends.gather()
            found.moved = _make_room(uri, move_aside)
        ledger = open_ledger(uri)
        ledger.open()
        try:
            _begin(folder, uri, ledger)
            _settle_ends(ledger, ends, total, found, show)
            _settle_dead(ledger, folder, found)
            _look_into_spool(ledger, folder, found)
            identity = write_beat(ledger, int(time.time() * 1000), rebuilding=False)
            folder.write_ledger_copy(LedgerCopy(uri, identity.id, identity.beat))
        finally:
            ledger.close()
    return found


@contextmanager
def _in_no_use(uri: str) -> Iterator[None]:
    """Nobody opens the ledger meanwhile. Raises JobError while somebody has it open, such as the job of another
    output folder that shares it: events that it sends would be missing in the new ledger."""
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
    """Renames the files of an SQLite ledger, if that is wanted; their new paths. Raises InputError for a ledger that is
    there and stays, unless it is the beginning of a rebuild."""
    path = sqlite_path(uri)
    if path is None or _is_begun(path):
        return []
    there = {suffix: Path(path + suffix) for suffix in _FILES if Path(path + suffix).exists()}
    if there and not move_aside:
        fix = "a ledger is never overwritten; if it is damaged or too old, --move-aside renames it and its -wal file"
        raise InputError([Problem(path, "ledger", f"{', '.join(one.name for one in there.values())} is there", fix)])
    moved, aside = [], f"{path}.{time.time_ns()}.old"  # a -wal belongs to the file that has its name without it
    for suffix, one in there.items():
        target = Path(aside + suffix)
        try:
            one.rename(target)
        except OSError as error:
            raise JobError(f"{one} cannot be renamed ({error.strerror or error}). Move it away yourself") from error
        moved.append(str(target))
    return moved


def _is_begun(path: str) -> bool:
    try:
        identity = decode_identity(probe(path, CELL).cell)
    except JobError:
        return False
    return identity is not None and identity.rebuilding


def _begin(folder: DeliveryFolder, uri: str, ledger: DeliveryLedger) -> None:
    """Gives the ledger the id that the delivery's had, so that other output folders that share it take it too."""
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


def _settle_ends(ledger: DeliveryLedger, ends: ReceiptEnds, total: int, found: Rebuilt, show: Show) -> None:
    owner, count = f"rebuild/{uuid.uuid4().hex}", 0
    for some in ends.each(LEDGER_STEP):
        settlements = [Settlement(one.event_id, one.outcome) for one in some]  # type: ignore[arg-type]
        ledger.settle(owner, settlements, some[-1].settled_at)
        found.settled.update(one.outcome for one in some)
        found.newest = some[-1].settled_at
        count += len(some)
        show(f"{count:,} of {total:,} events settled")


def _settle_dead(ledger: DeliveryLedger, folder: DeliveryFolder, found: Rebuilt) -> None:
    """Dead letters of messages that could not be decoded, so that one that comes again leaves no second letter."""
    owner, now = f"rebuild/{uuid.uuid4().hex}", int(time.time() * 1000)
    for path in sorted(Path(folder.dead_letters).glob("*.avro")):
        try:
            letters = read_dead_letters(str(path))
        except Exception as error:  # fastavro has no common base
            raise InputError(
                [Problem(str(path), "", "dead letters", f"cannot be read ({error}); move it away")]
            ) from error
        names = sorted({dead_id(one) for one in letters if one.step == DECODE})
        for start in range(0, len(names), LEDGER_STEP):
            settled = ledger.settle(owner, [Settlement(one, "dead") for one in names[start : start + LEDGER_STEP]], now)
            found.settled["dead"] += len(settled)


def _look_into_spool(ledger: DeliveryLedger, folder: DeliveryFolder, found: Rebuilt) -> None:
    """Counts the events of the spool that the ledger has no end of."""
    spool = Spool(folder.spool)
    for path in spool.files():
        try:
            made = read_envelopes(spool.read(path), 0)
        except (JobError, OSError):
            found.unreadable.append(str(path))
            continue
        names = sorted({dead_id(one) if isinstance(one, DeadLetter) else one.event_id for one in made})
        for start in range(0, len(names), LEDGER_STEP):
            some = names[start : start + LEDGER_STEP]
            found.in_spool += len(some) - len(ledger.find(some))


def _clock(at: int) -> str:
    return f"{datetime.fromtimestamp(at / 1000, UTC):%Y-%m-%d %H:%M:%S} UTC"
