"""Refuse a ledger that is older than its delivery or of another one: without its entries, sent events are sent again.

A ledger has an identity, a random id and a growing beat (stores/ledger/identity.py); ledger.json in the output folder
is a copy of it. A receipt is written only after its event was settled, so the ledger must hold the events of receipts:
the accepted and expired always, the rejected and unknown unless they were reopened since.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import NamedTuple, NoReturn

from schemas.delivery import LEDGER_STEP, DeliveryLedger
from schemas.problems import InputError, JobError, Problem, shown
from stores.deliveries.delivery_folder import DeliveryFolder, LedgerCopy
from stores.deliveries.receipts import sample_receipts
from stores.deliveries.spool import Spool
from stores.ledger.file_lock import LedgerLock
from stores.ledger.firestore import KEEP
from stores.ledger.identity import (
    CELL,
    Identity,
    decode_identity,
    note_reopened,
    read_forgotten,
    read_identity,
    read_reopened,
    write_beat,
)
from stores.ledger.open import connected_ledger
from stores.ledger.sqlite_file import Probe, probe

NEWEST, OLD_FILES, OF_EACH = 4_000, 8, 250
"""Receipts that are compared: the newest, and OF_EACH of each of OLD_FILES older files."""
_FINAL = ("accepted", "expired")  # never reopened; the others may be missing if they were reopened
_DAY_MS = 86_400_000


class Traces(NamedTuple):
    """The traces of earlier runs in an output folder: the copy of the ledger's identity, the numbers of files of
    receipts and of the spool."""

    copy: LedgerCopy | None
    receipts: int
    spool: int

    def __str__(self) -> str:
        parts = ["ledger.json, which names it"] if self.copy else []
        parts += [f"{self.receipts:,} files of receipts"] if self.receipts else []
        parts += [f"{self.spool:,} files in its spool"] if self.spool else []
        return " and ".join(parts)


def sqlite_path(uri: str) -> str | None:
    """The file of an SQLite ledger; None for another kind."""
    return uri.removeprefix("sqlite:") if uri.startswith("sqlite:") else None


@lru_cache(maxsize=1)
def hold_for_job(path: str) -> LedgerLock:
    """The shared lock of an SQLite ledger, held until this process ends or guards another ledger: a job's workers open
    the ledger only later, and until then it must not be renamed."""
    lock = LedgerLock(path)
    lock.share()
    return lock


def guard_ledger(output: str, uri: str) -> None:
    """Check that the ledger at `uri` may be used for the delivery in `output`; give a new ledger its identity, and keep
    `ledger rebuild` from renaming it while this process runs.

    Raises InputError that names the file, what is wrong and what to do: a ledger that is missing or empty beside traces
    of earlier runs, a damaged one, another one, one that is older than the traces, one whose rebuild has not ended.
    Raises JobError for a ledger that cannot be reached.
    """
    folder = DeliveryFolder(output)
    traces = find_traces(folder)
    check_identity(folder, uri, traces)
    if path := sqlite_path(uri):
        hold_for_job(path)
    try:
        with connected_ledger(uri) as ledger:
            identity = read_identity(ledger)
            _compare(folder, uri, traces.copy, identity)
            _check_receipts(folder, uri, ledger, known=identity is not None)
            if read_reopened(ledger) is None:
                note_reopened(ledger, int(time.time() * 1000))
            note_beat(folder, uri, ledger)
    except JobError as error:
        _raise_if_damaged(uri, error)
        raise


def note_beat(folder: DeliveryFolder, uri: str, ledger: DeliveryLedger) -> None:
    """Write a new beat into an open ledger, then its copy into the output folder: from now on an older ledger is
    recognised, also when the receipts were moved away."""
    after = write_beat(ledger, int(time.time() * 1000))
    folder.write_ledger_copy(LedgerCopy(uri, after.id, after.beat))


def find_traces(folder: DeliveryFolder) -> Traces:
    """The traces of earlier runs. Raises InputError for a damaged copy."""
    receipts = sum(1 for _ in Path(folder.receipts).glob("*.avro"))
    return Traces(folder.read_ledger_copy(), receipts, len(Spool(folder.spool).files()))


def check_identity(folder: DeliveryFolder, uri: str, traces: Traces) -> bool:
    """Whether there is a ledger at `uri`; changes nothing, and does not look into Firestore.

    Raises InputError as `guard_ledger` does, except for what only the receipts show.
    """
    found = find_ledger(uri)
    if found is None:
        return True
    if found.state != "ledger":
        if any(traces):
            value = "is not there" if found.state == "missing" else "is empty"
            _refuse(uri, value, f"{folder.root} has {traces} of earlier runs. {_what_to_do(folder, uri)}")
        return False
    _compare(folder, uri, traces.copy, decode_identity(found.cell))
    return True


def find_ledger(uri: str) -> Probe | None:
    """The state of a ledger's file, with its identity as the cell; changes nothing. None for a ledger in Firestore.
    Raises InputError for a damaged file."""
    path = sqlite_path(uri)
    if path is None:
        return None
    try:
        found = probe(path, CELL)
        decode_identity(found.cell)
    except JobError as error:
        _raise_if_damaged(uri, error)
        raise
    return found


def check_open(folder: DeliveryFolder, uri: str, ledger: DeliveryLedger) -> None:
    """Raises InputError when an open ledger is not the one that ledger.json names, or is older."""
    copy = folder.read_ledger_copy()  # first, for the ledger's beat grows
    _compare(folder, uri, copy, read_identity(ledger))


def _compare(folder: DeliveryFolder, uri: str, copy: LedgerCopy | None, identity: Identity | None) -> None:
    """Raises InputError unless the ledger is the one that the copy names, and not older."""
    if identity is not None and identity.rebuilding:
        fix = f"run `campaigns ledger rebuild {folder.root}` again: it continues"
        _refuse(uri, "is an unfinished rebuild", fix)
    if copy is None:
        return
    if identity is None or identity.id != copy.id:
        known = "a new one" if identity is None else f"the ledger {identity.id}"
        where = "" if copy.ledger == uri else f", which was {copy.ledger}"
        fix = f"{folder.ledger_copy} names the ledger {copy.id}{where}. {_what_to_do(folder, uri)}"
        _refuse(uri, f"is another ledger: {known}", fix)
    if identity.beat < copy.beat:
        fix = (
            f"{folder.ledger_copy} has it as of {_clock(copy.beat)}: it was restored from a backup, or copied "
            f"without its -wal file. {_what_to_do(folder, uri)}"
        )
        _refuse(uri, f"is older than the delivery: as of {_clock(identity.beat)}", fix)


def _check_receipts(folder: DeliveryFolder, uri: str, ledger: DeliveryLedger, known: bool) -> None:
    """Raises InputError when events that ended, as receipts say, are not settled. Entries that were dropped by
    `forget`, or by Firestore after 35 days, are not missed; nor, in a ledger without identity, which may have
    forgotten without saying so, those of older files. Rejected and unknown events are missed if they ended after the
    last reopening; in a ledger that never noted one, if it is empty."""
    since = read_forgotten(ledger)
    if sqlite_path(uri) is None:
        since = max(since, int(time.time() * 1000) - int(KEEP.total_seconds() * 1000) + _DAY_MS)
    rows = sample_receipts(Path(folder.receipts), NEWEST, OLD_FILES if known else 1, OF_EACH if known else 0)
    reopened = read_reopened(ledger)
    if reopened is None:
        now = int(time.time() * 1000)
        reopened = now if any(ledger.counts(now).values()) else 0
    ended = {
        row["event_id"]: row
        for row in rows
        if row["settled_at"] >= since and (row["outcome"] in _FINAL or row["settled_at"] > reopened)
    }
    names, missing = iter(ended), list[str]()
    while some := list(islice(names, LEDGER_STEP)):
        found = ledger.find(some)
        missing += [name for name in some if name not in found]
    if not missing:
        return
    example = max((ended[name] for name in missing), key=lambda row: row["settled_at"])
    value = f"does not know {len(missing):,} of {len(ended):,} events that ended, as receipts in {folder.receipts} say"
    fix = (
        f"such as {shown(example['event_id'])}, {example['outcome']} at {_clock(example['settled_at'])}: it is another "
        f"ledger or an older copy. {_what_to_do(folder, uri)}"
    )
    _refuse(uri, value, fix)


def _what_to_do(folder: DeliveryFolder, uri: str) -> str:
    path = sqlite_path(uri)
    restore = f"Restore {path} with its -wal file" if path else "Name the ledger that the delivery had"
    new = "--move-aside" if path else "--ledger and a new collection"
    return (
        f"Without its entries events that were sent are sent again. {restore}; or make one from the receipts, "
        f"`campaigns ledger rebuild {folder.root}` (with {new} if there is one already); or, to begin again and send "
        "everything again, give another --output, and another --ledger if one is given"
    )


def _raise_if_damaged(uri: str, error: JobError) -> None:
    if error.damaged:
        raise InputError([Problem(sqlite_path(uri) or uri, "ledger", error.happened, error.todo)]) from error


def _refuse(uri: str, value: str, fix: str) -> NoReturn:
    raise InputError([Problem(sqlite_path(uri) or uri, "ledger", value, fix)])


def _clock(at: int) -> str:
    return f"{datetime.fromtimestamp(at / 1000, UTC):%Y-%m-%d %H:%M:%S} UTC"
