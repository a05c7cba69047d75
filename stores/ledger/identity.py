"""The identity and version of a ledger, stored in the ledger and copied to the output folder of each delivery.

A ledger that was lost and created anew has no identity, or another one. A ledger that is older than the delivery (a
backup, a file without its -wal) has a beat below the copy's.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence

import msgspec

from schemas.delivery import DeliveryLedger, ledger_steps
from schemas.problems import JobError

CELL = "ledger/identity"
FORGOTTEN = "ledger/forgotten"
"""The cell with the time (epoch ms) before which settled entries were dropped."""
REOPENED = "ledger/reopened"
"""The cell with the time (epoch ms) until which rejected, unknown and dead entries may have been reopened."""


class Identity(msgspec.Struct, frozen=True):
    """`id`: random, given once. `beat`: epoch ms, greater each time that it is written. `rebuilding`: a rebuild of this
    ledger has not ended, so entries are missing."""

    id: str
    beat: int
    rebuilding: bool = False


def decode_identity(raw: bytes | None) -> Identity | None:
    """The identity in a cell; None where there is none. Raises JobError for bytes that hold something else."""
    if not raw:
        return None
    try:
        return msgspec.json.decode(raw, type=Identity)
    except msgspec.MsgspecError as error:
        raise JobError(f"The ledger's cell {CELL} is damaged ({error})", "Restore the ledger", True) from error


def read_identity(ledger: DeliveryLedger) -> Identity | None:
    """The identity of an open ledger. Raises JobError."""
    return decode_identity(_read(ledger, CELL))


def write_beat(
    ledger: DeliveryLedger, now: int, *, ledger_id: str | None = None, rebuilding: bool | None = None
) -> Identity:
    """Writes a new beat into an open ledger; returns its identity. A ledger without an identity gets `ledger_id` or a
    random one. `rebuilding` is not changed if it is None."""

    def update(raw: bytes | None) -> tuple[bytes, Identity]:
        before = decode_identity(raw) or Identity(ledger_id or fresh, 0)
        still = before.rebuilding if rebuilding is None else rebuilding
        after = Identity(before.id, max(before.beat + 1, now), still)
        return msgspec.json.encode(after), after

    fresh = uuid.uuid4().hex
    return ledger.change(CELL, update)


def read_forgotten(ledger: DeliveryLedger) -> int:
    """The time (epoch ms) before which entries may have been dropped by `forget`; 0 if none were."""
    return decode_forgotten(_read(ledger, FORGOTTEN))


def note_forgotten(raw: bytes | None, before: int) -> tuple[bytes, None]:
    """The cell FORGOTTEN after `forget(before)`, as an update for `change`."""
    return str(max(before, decode_forgotten(raw))).encode(), None


def decode_forgotten(raw: bytes | None) -> int:
    """The time in the cell FORGOTTEN. Raises JobError for bytes that hold something else."""
    return _decode_time(FORGOTTEN, raw)


def _decode_time(cell: str, raw: bytes | None) -> int:
    try:
        return int(raw or b"0")
    except ValueError as error:
        raise JobError(f"The ledger's cell {cell} is damaged", "Restore the ledger", True) from error


def read_reopened(ledger: DeliveryLedger) -> int | None:
    """The time (epoch ms) until which entries may have been reopened; None in a ledger without one."""
    raw = _read(ledger, REOPENED)
    return _decode_time(REOPENED, raw) if raw else None


def note_reopened(ledger: DeliveryLedger, now: int) -> None:
    """Notes that entries settled until now may be missing, because they were reopened."""
    ledger.change(REOPENED, lambda raw: (str(max(now, _decode_time(REOPENED, raw))).encode(), None))


def reopen_events(ledger: DeliveryLedger, event_ids: Sequence[str], now: int) -> int:
    """Reopens the rejected, unknown and dead among these; how many. The time is noted first, or a receipt without an
    entry would make the ledger look older than it is."""
    if not event_ids:
        return 0
    note_reopened(ledger, now)
    return sum(map(ledger.reopen, ledger_steps(event_ids)))


def _read(ledger: DeliveryLedger, cell: str) -> bytes:
    return ledger.change(cell, lambda raw: (raw or b"", raw or b""))
