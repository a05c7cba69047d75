"""Bulk statements for the common cases: all events of a claim are new, or all of a settlement are claimed by its owner.

A statement that loops over the rows inside SQLite costs a tenth of one per row, and does not pass Python's lock back
and forth with the threads that make the calls.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence

from schemas.delivery import ClaimRequest, Settlement
from stores.ledger.transitions import digest

# ruff: noqa: S608 - the statements are put together from constants alone
# Python counts the rows only of statements that begin with their verb, so WITH stands inside.
_N = "WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < :n)"
_ID = "substr(:ids, 1 + 16 * i, 16)"
_KNOWN = f"{_N} SELECT EXISTS (SELECT 1 FROM n CROSS JOIN settled ON id = {_ID})"
_CLAIM = f"""INSERT OR IGNORE INTO claims {_N}
    SELECT {_ID}, :owner, substr(:batches, 1 + 16 * i, 16), :until, 0, :now FROM n"""
_UNCLAIM = f"DELETE FROM claims WHERE owner = :owner AND id IN ({_N} SELECT {_ID} FROM n)"
_PLACE = "substr(:ids, 1 + 16 * key, 16)"
_SETTLE = f"""INSERT INTO settled SELECT {_PLACE}, value ->> 2, :now, '' FROM json_each(:parts)"""
_RECEIPTS = f"""INSERT INTO receipts SELECT :now, {_PLACE}, substr(:bodies, value ->> 0, value ->> 1)
    FROM json_each(:parts) WHERE value ->> 1 > 0"""
_REPORT = f"""{_N} DELETE FROM receipts WHERE (settled_at, id) IN
    (SELECT settled_at, id FROM n CROSS JOIN settled ON id = {_ID})"""

_FIND = f"{_N} SELECT id, outcome FROM n CROSS JOIN settled ON id = {_ID}"


def _joined(texts: Sequence[str]) -> bytes | None:
    """The digests concatenated; None if some text is no digest."""
    packed = [digest(text) for text in texts]
    return None if None in packed else b"".join(packed)  # type: ignore[arg-type]


def claim_new(con: sqlite3.Connection, request: ClaimRequest, owner: bytes | str) -> bool:
    """Claims the events if every one is new; otherwise changes nothing and returns False."""
    claims = request.claims
    ids, batches = _joined([claim.event_id for claim in claims]), _joined([claim.batch_id for claim in claims])
    if not ids or batches is None:
        return False
    values = {"n": len(claims), "ids": ids, "batches": batches, "owner": owner}
    if con.execute(_KNOWN, values).fetchone()[0]:
        return False
    return _all_or_none(con, _CLAIM, {**values, "now": request.now, "until": request.lease_until})


def settle_own(
    con: sqlite3.Connection,
    owner: bytes | str,
    settlements: Sequence[Settlement],
    now: int,
    outcomes: Sequence[str | None],
) -> bool:
    """Settles the events if every one is claimed by the owner; otherwise changes nothing and returns False. Not for
    unknown, which stores its owner."""
    ids = _joined([end.event_id for end in settlements])
    if not ids or any(end.outcome == "unknown" for end in settlements):
        return False
    if not _all_or_none(con, _UNCLAIM, {"n": len(settlements), "ids": ids, "owner": owner}):
        return False
    parts, at = [], 1
    for end in settlements:
        parts.append((at, len(end.receipt), outcomes.index(end.outcome)))
        at += len(end.receipt)
    bodies = b"".join(end.receipt for end in settlements)
    values = {"ids": ids, "now": now, "parts": json.dumps(parts), "bodies": bodies}
    con.execute(_SETTLE, values)
    if bodies:
        con.execute(_RECEIPTS, values)
    return True


def find_all(con: sqlite3.Connection, event_ids: Sequence[str]) -> list[tuple[bytes, int]] | None:
    """(id, place of its outcome) of the events that are settled; None if some id is no digest."""
    ids = _joined(event_ids)
    return con.execute(_FIND, {"n": len(event_ids), "ids": ids}).fetchall() if ids else None


def report_all(con: sqlite3.Connection, event_ids: Sequence[str]) -> bool:
    """Drops the stored receipts of events; False, and no change, if some id is no digest."""
    ids = _joined(event_ids)
    if ids:
        con.execute(_REPORT, {"n": len(event_ids), "ids": ids})
    return ids is not None


def _all_or_none(con: sqlite3.Connection, statement: str, values: dict[str, object]) -> bool:
    con.execute("SAVEPOINT fast")
    done = con.execute(statement, values).rowcount == values["n"]
    if not done:
        con.execute("ROLLBACK TO fast")
    con.execute("RELEASE fast")
    return done
