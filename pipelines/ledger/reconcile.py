"""Settles unknown events by a vendor's list of what it accepted: those in it are accepted, the others reopened."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from pipelines.ledger.opened import opened_ledger
from schemas.delivery import DeliveryLedger, Receipt, Settlement
from schemas.problems import InputError, Problem
from stores.delivery_folder import DeliveryFolder
from stores.event_ids import read_event_ids
from stores.transports.dead_letters import write_dead_letters
from stores.transports.receipts import open_receipts, write_receipts
from transforms.rebatch.elements import Receipts
from transforms.rebatch.outcomes import encode_receipt
from transforms.rebatch.records import record, record_left

REASON = "reconciled"
_STEP = 1_000  # events that the ledger takes at once
_UNKNOWN = """
CREATE TABLE unknown AS FROM outcomes WHERE outcome = 'unknown'
AND ($1 IS NULL OR campaign_id = $1) AND (len($2) = 0 OR list_contains($2, retailer_id))
"""
_COVERED = """
CREATE TABLE covered AS SELECT DISTINCT retailer_id, campaign_id FROM outcomes SEMI JOIN listed USING (event_id)
"""
_TAKEN = "SELECT * FROM unknown SEMI JOIN listed USING (event_id) ORDER BY event_id"
_OTHERS = """
SELECT event_id, settled_at < $1, c.retailer_id IS NOT NULL, u.retailer_id, u.campaign_id
FROM unknown u ANTI JOIN listed USING (event_id) LEFT JOIN covered c USING (retailer_id, campaign_id) ORDER BY event_id
"""


@dataclass
class Reconciled:
    """How many ids the list had, and what the ledger said to them (`unlisted`: it knows no end of them); how many
    unknown events were accepted by this and how many may be sent again; how many stay unknown because they were settled
    after the list was taken, or because the list has no event of their retailer and campaign."""

    as_of: int
    listed: int = 0
    known: Counter[str] = field(default_factory=Counter)
    accepted: int = 0
    reopened: int = 0
    later: int = 0
    uncovered: Counter[tuple[str, str]] = field(default_factory=Counter)

    def lines(self) -> Iterator[str]:
        """What a person is told."""
        yield f"{self.listed:,} ids in the list, taken {_clock(self.as_of)}"
        yield f"{self.accepted:,} unknown events are accepted now"
        yield f"{self.reopened:,} unknown events are not in the list and may be sent again: start rebatch again"
        yield f"{self.later:,} unknown events were settled after the list was taken, and stay unknown"
        for (retailer, campaign), count in sorted(self.uncovered.items()):
            yield (
                f"{count:,} unknown events of {retailer}, campaign {campaign}, stay unknown: the list has no event of "
                "both. If the vendor accepted none of them: campaigns ledger reopen"
            )
        for outcome, count in sorted(self.known.items()):
            yield f"{count:,} ids of the list {_SAID[outcome]}"


_SAID = {
    "accepted": "were accepted already",
    "rejected": "are rejected, says the ledger: the vendor says otherwise; nothing is changed",
    "expired": "have expired, says the ledger: the vendor says otherwise; nothing is changed",
    "dead": "are dead letters, says the ledger; nothing is changed",
    "unknown": "are unknown and stay so: of a campaign or retailer that was not asked for, or without a receipt",
    "none": "have no end in the ledger: still to be sent, in a call that is out, or of another delivery",
}


def reconcile(
    output: str,
    uri: str | None,
    accepted: str,
    as_of: int | None,
    campaign: str | None,
    retailers: Sequence[str],
    receipts: Sequence[str] = (),
) -> Reconciled:
    """Settles the unknown events that are in the list as accepted, with a receipt (`reconciled`), and reopens those
    that are not, if they were settled before `as_of` (epoch ms; when the list was last changed).

    Raises InputError for a list that cannot be read or that has no event of this delivery: then nothing is changed.
    """
    ids = sorted(set(read_event_ids(accepted)))
    taken_at = int(Path(accepted).stat().st_mtime * 1000) if as_of is None else as_of
    found, folder = Reconciled(taken_at, listed=len(ids)), DeliveryFolder(output)
    with opened_ledger(output, uri) as ledger:
        write, letters = partial(write_receipts, folder.receipts), partial(write_dead_letters, folder.dead_letters)
        record_left(ledger, write, letters, time.time())
        con = open_receipts([folder.receipts, *receipts])
        con.register("given", pa.table({"event_id": pa.array(ids, pa.string())}))
        con.execute("CREATE TABLE listed AS FROM given")
        con.execute(_UNKNOWN, [campaign, list(retailers)])
        con.execute(_COVERED)
        before = _find(ledger, ids)
        if not before and not con.execute("SELECT count(*) FROM covered").fetchall()[0][0]:
            fix = "has no id that this delivery knows: it is another list, or another delivery; nothing was changed"
            raise InputError([Problem(accepted, "event_id", f"{len(ids):,} ids", fix)])
        done = _accept(ledger, folder, con, found)
        found.known.update(before.get(name, "none") for name in ids if name not in done)
        _reopen(ledger, con, found)
    return found


def _accept(
    ledger: DeliveryLedger, folder: DeliveryFolder, con: duckdb.DuckDBPyConnection, found: Reconciled
) -> set[str]:
    """Settles the unknown events that are in the list; their ids."""
    done: set[str] = set()
    now = int(time.time() * 1000)
    rows = con.execute(_TAKEN).fetchall()
    for start in range(0, len(rows), _STEP):
        ends = [
            Receipt(*row)._replace(outcome="accepted", reason=REASON, settled_at=now)
            for row in rows[start : start + _STEP]
        ]
        settled = set(
            ledger.reconcile([Settlement(one.event_id, "accepted", encode_receipt(one)) for one in ends], now)
        )
        if settled:
            write, letters = partial(write_receipts, folder.receipts), partial(write_dead_letters, folder.dead_letters)
            record(ledger, write, letters, Receipts([one for one in ends if one.event_id in settled]))
        done |= settled
    found.accepted = len(done)
    return done


def _reopen(ledger: DeliveryLedger, con: duckdb.DuckDBPyConnection, found: Reconciled) -> None:
    """Reopens the unknown events that the list would have, had the vendor accepted them."""
    rows = con.execute(_OTHERS, [found.as_of]).fetchall()
    for start in range(0, len(rows), _STEP):
        some = rows[start : start + _STEP]
        outcomes = ledger.find([row[0] for row in some])
        again: list[str] = []
        for event_id, earlier, covered, retailer, campaign in some:
            if outcomes.get(event_id) != "unknown":
                continue
            if not covered:
                found.uncovered[retailer, campaign] += 1
            elif not earlier:
                found.later += 1
            else:
                again.append(event_id)
        found.reopened += ledger.reopen(again) if again else 0


def _find(ledger: DeliveryLedger, ids: Sequence[str]) -> dict[str, Any]:
    found: dict[str, str] = {}
    for start in range(0, len(ids), _STEP):
        found |= ledger.find(ids[start : start + _STEP])
    return found


def _clock(at: int) -> str:
    return f"{datetime.fromtimestamp(at / 1000, UTC):%Y-%m-%d %H:%M:%S} UTC"
