"""Settles unknown events by a vendor's list of what it accepted: those in it are accepted, the others reopened."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from pipelines.operations.ledger.names import check_names
from pipelines.operations.ledger.opened import opened_ledger, receipt_writers
from schemas.delivery import LEDGER_STEP, DeliveryLedger, Receipt, Settlement
from schemas.problems import InputError, Problem
from stores.deliveries.delivery_folder import DeliveryFolder
from stores.deliveries.receipts import open_receipts
from stores.launches.event_ids import read_event_ids
from stores.ledger.identity import reopen_events
from transforms.delivery.elements import Receipts
from transforms.delivery.receipts import encode_receipt
from transforms.delivery.record_receipts import record, record_unreported

REASON = "reconciled"
_UNKNOWN = """
CREATE TABLE unknown AS FROM outcomes WHERE outcome = 'unknown'
AND ($1 IS NULL OR campaign_id = $1) AND (len($2) = 0 OR list_contains($2, retailer_id))
"""
_COVERED = """
CREATE TABLE covered AS SELECT DISTINCT retailer_id, campaign_id FROM outcomes SEMI JOIN listed USING (event_id)
"""
_OWN = "SELECT event_id FROM outcomes SEMI JOIN listed USING (event_id)"
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
        yield f"{self.accepted:,} unknown events are in the list: they are accepted now"
        yield f"{self.reopened:,} unknown events are not in the list: the next run of rebatch sends them again"
        yield f"{self.later:,} unknown events became unknown after the list was taken: they stay unknown"
        for (retailer, campaign), count in sorted(self.uncovered.items()):
            yield (
                f"{count:,} unknown events of retailer {retailer} and campaign {campaign} stay unknown: the list has "
                "no event of that retailer and campaign. If the vendor accepted none of them: campaigns ledger reopen "
                f"OUTPUT --retailer {retailer} --campaign {campaign}"
            )
        for outcome, count in sorted(self.known.items()):
            yield f"{count:,} ids of the list {_SAID[outcome]}"


_SAID = {
    "accepted": "were accepted already",
    "rejected": "are rejected in the ledger and stay so, though the vendor accepted them",
    "expired": "are expired in the ledger and stay so, though the vendor accepted them",
    "dead": "are dead letters in the ledger and stay so",
    "unknown": "are unknown and stay so: of another campaign or retailer than you named, or their receipt is not here",
    "none": "have no outcome in the ledger: not sent yet, in a call now, or of another delivery",
}


def reconcile(
    output: str,
    uri: str | None,
    accepted: str,
    as_of: int | None,
    campaign: str | None,
    retailers: Sequence[str],
    receipts: Sequence[str] = (),
    allow_foreign: bool = False,
) -> Reconciled:
    """Settles the unknown events that are in the list as accepted, with a receipt (`reconciled`), and reopens those
    that are not, if they were settled before `as_of` (epoch ms; when the list was last changed).

    Raises InputError for a list that cannot be read, one of which no id, or without `allow_foreign` less than half of
    the ids, are of this delivery, and for a campaign and retailers without a receipt: then no outcome is changed.
    """
    ids = sorted(set(read_event_ids(accepted)))
    taken_at = int(Path(accepted).stat().st_mtime * 1000) if as_of is None else as_of
    found, folder = Reconciled(taken_at, listed=len(ids)), DeliveryFolder(output)
    with opened_ledger(output, uri) as ledger:
        record_unreported(ledger, *receipt_writers(folder), time.time(), time.time())
        con = open_receipts([folder.receipts, *receipts])
        check_names(con, campaign, retailers, "the receipts of this delivery")
        con.register("given", pa.table({"event_id": pa.array(ids, pa.string())}))
        con.execute("CREATE TABLE listed AS FROM given")
        con.execute(_UNKNOWN, [campaign, list(retailers)])
        con.execute(_COVERED)
        before = _find(ledger, ids)
        own = before.keys() | {row[0] for row in con.execute(_OWN).fetchall()}
        _check_own(accepted, len(ids), len(own), allow_foreign)
        done = _accept(ledger, folder, con, found)
        found.known.update(before.get(name, "none") for name in ids if name not in done)
        _reopen(ledger, con, found)
    return found


def _check_own(path: str, listed: int, own: int, allow_foreign: bool) -> None:
    """Raises InputError for a list that seems to be of another delivery: all unknown events that it lacks would be sent
    again."""
    if own and (allow_foreign or own * 2 >= listed):
        return
    fix = "is the list of another delivery? The ledger and the receipts of this one have none of its ids"
    if own:
        fix = (
            "is the list of another delivery? Less than half of its ids are in the ledger and the receipts of this one."
            " If the vendor's list has the events of other deliveries too, and all of this one: --allow-foreign-ids"
        )
    raise InputError([Problem(path, "event_id", f"{own:,} of {listed:,} ids known", f"{fix}. Nothing was changed")])


def _accept(
    ledger: DeliveryLedger, folder: DeliveryFolder, con: duckdb.DuckDBPyConnection, found: Reconciled
) -> set[str]:
    """Settles the unknown events that are in the list; their ids."""
    done: set[str] = set()
    now = int(time.time() * 1000)
    rows = con.execute(_TAKEN).fetchall()
    for start in range(0, len(rows), LEDGER_STEP):
        ends = [
            Receipt(*row)._replace(outcome="accepted", reason=REASON, settled_at=now)
            for row in rows[start : start + LEDGER_STEP]
        ]
        settled = set(
            ledger.reconcile([Settlement(one.event_id, "accepted", encode_receipt(one)) for one in ends], now)
        )
        if settled:
            record(
                ledger,
                *receipt_writers(folder),
                Receipts([one for one in ends if one.event_id in settled]),
                time.time(),
            )
        done |= settled
    found.accepted = len(done)
    return done


def _reopen(ledger: DeliveryLedger, con: duckdb.DuckDBPyConnection, found: Reconciled) -> None:
    """Reopens the unknown events that the list would have, had the vendor accepted them."""
    rows = con.execute(_OTHERS, [found.as_of]).fetchall()
    for start in range(0, len(rows), LEDGER_STEP):
        some = rows[start : start + LEDGER_STEP]
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
        found.reopened += reopen_events(ledger, again, int(time.time() * 1000))


def _find(ledger: DeliveryLedger, ids: Sequence[str]) -> dict[str, Any]:
    found: dict[str, str] = {}
    for start in range(0, len(ids), LEDGER_STEP):
        found |= ledger.find(ids[start : start + LEDGER_STEP])
    return found


def _clock(at: int) -> str:
    return f"{datetime.fromtimestamp(at / 1000, UTC):%Y-%m-%d %H:%M:%S} UTC"
