"""The embedded ledger: one SQLite file that the threads and processes of one machine share.

Every commit is on the disk before a method returns (synchronous=FULL): with less, a power failure could take back
a claim whose event was sent, and the event would be sent twice (docs/decisions/006).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path
from threading import Lock, RLock
from typing import Any, TypeVar

from schemas.delivery import ClaimRequest, ClaimResult, DeliveryLedger, Settlement
from stores.ledger import transitions
from stores.ledger.identity import FORGOTTEN, note_forgotten
from stores.ledger.sqlite_bulk import claim_new, find_all, report_all, settle_own
from stores.ledger.sqlite_file import as_job_errors, connect, means_full, sound_cell, sound_rows
from stores.ledger.sqlite_steps import Step, run_all
from stores.ledger.transitions import Entry, digest
from stores.local.disk_space import release_reserve

T = TypeVar("T")
_OUTCOMES = (None, "accepted", "rejected", "expired", "unknown", "dead")  # stored by place: append only
_READ = """SELECT id, owner, batch, lease_until, again, 0, 0, first_claimed FROM asked CROSS JOIN claims USING (id)
    UNION ALL SELECT id, owner, '', 0, 0, outcome, settled_at, 0 FROM asked CROSS JOIN settled USING (id)"""
_DROP = (
    "DELETE FROM receipts WHERE (settled_at, id) IN (SELECT settled_at, id FROM asked CROSS JOIN settled USING (id))"
)
_FORGET = """DELETE FROM settled WHERE settled_at < ?
    AND (settled_at, id) NOT IN (SELECT settled_at, id FROM receipts)"""
_COUNT = """SELECT 0, lease_until <= ?, count(*) FROM claims GROUP BY 2
    UNION ALL SELECT outcome, 0, count(*) FROM settled GROUP BY 1"""


class SqliteLedger(DeliveryLedger):
    """A DeliveryLedger in one file, created when it is first opened. Safe for several threads; each process opens its
    own. A method waits up to `wait_s` seconds for other writers, then raises JobError."""

    def __init__(self, path: str, wait_s: float = 60.0) -> None:
        self._path, self._wait_s = path, wait_s
        self._lock, self._queue_lock = RLock(), Lock()
        self._queue: list[Step] = []
        self._gathered: list[Step] | None = None
        self._opened: sqlite3.Connection | None = None

    def __reduce__(self) -> tuple[type[SqliteLedger], tuple[str, float]]:
        return SqliteLedger, (self._path, self._wait_s)

    def open(self) -> None:
        """Connect. Raises JobError for a file that is no ledger, or one of a newer version."""
        with self._lock:
            self._opened = self._opened or connect(self._path, self._wait_s)

    def close(self) -> None:
        with self._lock:
            if self._opened is not None:
                self._opened.close()
                self._opened = None

    def claim(self, request: ClaimRequest) -> list[ClaimResult]:
        def step(con: sqlite3.Connection) -> list[ClaimResult]:
            if request.now < request.lease_until and claim_new(con, request, _packed(request.owner)):
                return [ClaimResult(claim.event_id, "granted") for claim in request.claims]
            entries = _read(con, [claim.event_id for claim in request.claims])
            claim_results, changes = transitions.grant(entries, request)
            _write_claims(con, changes)
            return claim_results

        return self._commit(step)

    def settle(self, owner: str, settlements: Sequence[Settlement], now: int) -> list[str]:
        def step(con: sqlite3.Connection) -> list[str]:
            if settle_own(con, _packed(owner), settlements, now, _OUTCOMES):
                return [end.event_id for end in settlements]
            entries = _read(con, [end.event_id for end in settlements])
            changes = transitions.settle(entries, owner, settlements, now)
            before = {event_id: entries[event_id] for event_id in changes if event_id in entries}
            _drop_receipts(con, [event_id for event_id, entry in before.items() if entry.outcome])
            _drop_claims(con, [event_id for event_id, entry in before.items() if not entry.outcome])
            _write_settled(con, changes)
            return list(changes)

        return self._commit(step)

    def reconcile(self, settlements: Sequence[Settlement], now: int) -> list[str]:
        def step(con: sqlite3.Connection) -> list[str]:
            entries = _read(con, [end.event_id for end in settlements])
            changes = transitions.reconcile(entries, settlements, now)
            _drop_receipts(con, list(changes))
            _write_settled(con, changes)
            return list(changes)

        return self._commit(step)

    def release(self, owner: str, event_ids: Sequence[str]) -> None:
        def step(con: sqlite3.Connection) -> None:
            changes = transitions.release(_read(con, event_ids), owner, event_ids)
            _drop_claims(con, changes)
            _write_claims(con, {event_id: entry for event_id, entry in changes.items() if entry})

        self._commit(step)

    def find(self, event_ids: Sequence[str]) -> dict[str, str]:
        with self._reading() as con, sound_rows():
            if (rows := find_all(con, event_ids)) is not None:
                return {key.hex(): _OUTCOMES[place] or "" for key, place in rows}
            entries = _read(con, event_ids).items()
            return {event_id: entry.outcome for event_id, entry in entries if entry.outcome}

    def reopen(self, event_ids: Sequence[str]) -> int:
        def step(con: sqlite3.Connection) -> int:
            entries = _read(con, event_ids).items()
            reopened = [event_id for event_id, entry in entries if entry.outcome in transitions.REOPENED]
            _drop_receipts(con, reopened)
            con.executemany("DELETE FROM settled WHERE id = ?", ((_packed(event_id),) for event_id in reopened))
            return len(reopened)

        return self._commit(step)

    def unreported(self, limit: int) -> list[tuple[str, bytes]]:
        with self._reading() as con:
            rows = con.execute("SELECT id, body FROM receipts ORDER BY settled_at, id LIMIT ?", (limit,)).fetchall()
            with sound_rows():
                return [(_unpacked(row[0]), memoryview(row[1]).tobytes()) for row in rows]

    def report(self, event_ids: Sequence[str]) -> None:
        self._commit(lambda con: None if report_all(con, event_ids) else _drop_receipts(con, event_ids))

    def forget(self, before: int) -> int:
        def step(con: sqlite3.Connection) -> int:
            _change(con, FORGOTTEN, partial(note_forgotten, before=before))
            return con.execute(_FORGET, (before,)).rowcount

        return self._commit(step)

    def counts(self, now: int) -> dict[str, int]:
        """Entries by state; reads them all."""
        with self._reading() as con:
            rows = con.execute(_COUNT, (now,)).fetchall()
            with sound_rows():
                counts = {"lapsed" if lapsed else _OUTCOMES[place] or "claimed": count for place, lapsed, count in rows}
        return {state: counts.get(state, 0) for state in ("claimed", "lapsed", *filter(None, _OUTCOMES))}

    def change(self, cell: str, update: Callable[[bytes | None], tuple[bytes, T]]) -> T:
        """Read, update and write a small named value while no other worker can write."""
        return self._commit(lambda con: _change(con, cell, update))

    def batch(self, calls: Sequence[Callable[[], Any]]) -> list[Any]:
        """The results of calls of this ledger's methods, or the exceptions that they raised; all their writes are one
        transaction. Not for several threads."""
        steps: list[Step] = []
        self._gathered = steps
        try:
            results = [call() for call in calls]
        finally:
            self._gathered = None
        if steps:
            self._write_all(steps)
        return [(result.error or result.result) if isinstance(result, Step) else result for result in results]

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        with self._lock, as_job_errors(self._path):
            if self._opened is None:
                raise RuntimeError("the ledger is not open")
            yield self._opened

    def _commit(self, step: Callable[[sqlite3.Connection], T]) -> T:
        """The result of a step, committed to disk. Steps that arrive during a commit wait; the first of them then
        commits them all in one transaction: a commit costs the same for one as for twenty."""
        mine = Step(step)
        if self._gathered is not None:
            self._gathered.append(mine)
            return mine  # type: ignore[return-value]
        with self._queue_lock:
            self._queue.append(mine)
        with self._lock:
            if not mine.done:
                with self._queue_lock:
                    steps, self._queue = self._queue, []
                self._write_all(steps)
        if mine.error is not None:
            raise mine.error
        return mine.result

    def _write_all(self, steps: list[Step]) -> None:
        """Commits the steps in one transaction; a step that fails is rolled back alone. On a full disk the reserve file
        is deleted and the transaction is tried once more: an answer that was received is not lost."""
        try:
            with self._reading() as con:
                try:
                    run_all(con, steps)
                except sqlite3.Error as error:
                    if not (means_full(error, self._path) and release_reserve(Path(self._path).parent)):
                        raise
                    run_all(con, steps)
        except BaseException as error:
            for step in steps:
                step.error = step.error or error
        for step in steps:
            step.done = True


def _change(con: sqlite3.Connection, cell: str, update: Callable[[bytes | None], tuple[bytes, T]]) -> T:
    row = con.execute("SELECT value FROM cells WHERE name = ?", (cell,)).fetchone()
    with sound_cell(cell):
        value, result = update(row and memoryview(row[0]).tobytes())
    con.execute("INSERT OR REPLACE INTO cells VALUES (?, ?)", (cell, value))
    return result


def _ask(con: sqlite3.Connection, event_ids: Iterable[str]) -> None:
    con.execute("DELETE FROM asked")
    con.executemany("INSERT OR IGNORE INTO asked VALUES (?)", [(_packed(event_id),) for event_id in event_ids])


@sound_rows()
def _read(con: sqlite3.Connection, event_ids: Iterable[str]) -> dict[str, Entry]:
    """The entries of these events, without receipts."""
    _ask(con, event_ids)
    return {
        _unpacked(key): Entry(
            _unpacked(owner),
            _unpacked(batch),
            int(lease),
            int(resends),
            _OUTCOMES[outcome],
            int(settled_at),
            b"",
            int(first),
        )
        for key, owner, batch, lease, resends, outcome, settled_at, first in con.execute(_READ)
    }


def _write_claims(con: sqlite3.Connection, changes: Mapping[str, Entry]) -> None:
    """Writes claims in the order of their ids: neighbouring ids share a page."""
    pack = cache(_packed)  # owners and batches repeat
    rows = [
        (_packed(name), pack(entry.owner), pack(entry.batch_id), entry.lease_until, entry.resends, entry.first_claimed)
        for name, entry in sorted(changes.items())
    ]
    con.executemany("INSERT OR REPLACE INTO claims VALUES (?, ?, ?, ?, ?, ?)", rows)


def _write_settled(con: sqlite3.Connection, changes: Mapping[str, Entry]) -> None:
    rows = [
        (_packed(event_id), _OUTCOMES.index(entry.outcome), entry.settled_at, _packed(entry.owner))
        for event_id, entry in sorted(changes.items())
    ]
    con.executemany("INSERT OR REPLACE INTO settled VALUES (?, ?, ?, ?)", rows)
    kept = sorted((event_id, entry) for event_id, entry in changes.items() if entry.receipt)
    receipts = [(entry.settled_at, _packed(event_id), entry.receipt) for event_id, entry in kept]
    con.executemany("INSERT INTO receipts VALUES (?, ?, ?)", receipts)


def _drop_claims(con: sqlite3.Connection, event_ids: Iterable[str]) -> None:
    con.executemany("DELETE FROM claims WHERE id = ?", [(_packed(event_id),) for event_id in sorted(event_ids)])


def _drop_receipts(con: sqlite3.Connection, event_ids: Iterable[str]) -> None:
    _ask(con, event_ids)
    con.execute(_DROP)


def _packed(text: str) -> bytes | str:
    """A digest as 16 bytes; other text as its key, which never equals a digest."""
    return digest(text) or (transitions.key_of(text) if text else "")


def _unpacked(stored: bytes | str) -> str:
    return stored.hex() if isinstance(stored, bytes) else transitions.id_of(stored)
