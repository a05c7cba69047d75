"""Settle unknown events by a vendor's list of accepted events: those in it are accepted, the others reopened."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import duckdb
import msgspec
import pyarrow as pa

from pipelines.operations.ledger.names import check_names
from pipelines.operations.ledger.opened import opened_ledger, receipt_writers
from schemas.delivery import DeliveryLedger, Receipt, Settlement, ledger_steps
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


class Uncovered(msgspec.Struct):
    """Unknown events that stay so, as the list has no event of their retailer and campaign."""

    retailer: str
    campaign: str
    events: int


class Reconciled(msgspec.Struct):
    """The ids of the list, by their outcome in the ledger before (`none`: not ended); the unknown events that are
    accepted now, and those that may be sent again; those that stay unknown as they were settled `later` than the list
    was taken (`as_of`, epoch ms), or as the list does not cover them."""

    as_of: int
    listed: int
    known: Counter[str] = msgspec.field(default_factory=Counter)
    accepted: int = 0
    reopened: int = 0
    later: int = 0
    uncovered: list[Uncovered] = []


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
    """Settle the unknown events that are in the list as accepted, with a receipt (`reconciled`), and reopen the others
    if they were settled before `as_of` (epoch ms; the default is the time of the list's last change).

    Raises InputError for a list that cannot be read, one of which no id, or without `allow_foreign` less than half of
    the ids, are of this delivery, and for a campaign and retailers without a receipt: then no outcome is changed.
    """
    ids = sorted(set(read_event_ids(accepted)))
    taken_at = int(Path(accepted).stat().st_mtime * 1000) if as_of is None else as_of
    result, folder = Reconciled(taken_at, len(ids)), DeliveryFolder(output)
    with opened_ledger(output, uri) as ledger:
        record_unreported(ledger, *receipt_writers(folder), time.time(), time.time())
        con = open_receipts([folder.receipts, *receipts])
        check_names(con, campaign, retailers, "the receipts of this delivery")
        con.register("given", pa.table({"event_id": pa.array(ids, pa.string())}))
        con.execute("CREATE TABLE listed AS FROM given")
        con.execute(_UNKNOWN, [campaign, list(retailers)])
        con.execute(_COVERED)
        before = {event_id: outcome for step in ledger_steps(ids) for event_id, outcome in ledger.find(step).items()}
        own = before.keys() | {row[0] for row in con.execute(_OWN).fetchall()}
        _check_own(accepted, len(ids), len(own), allow_foreign)
        accepted_now = _accept(ledger, folder, con)
        result.accepted = len(accepted_now)
        result.known.update(before.get(name, "none") for name in ids if name not in accepted_now)
        _reopen(ledger, con, result)
    return result


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


def _accept(ledger: DeliveryLedger, folder: DeliveryFolder, con: duckdb.DuckDBPyConnection) -> set[str]:
    """Settle the unknown events that are in the list; their ids."""
    accepted: set[str] = set()
    now = int(time.time() * 1000)
    rows = con.execute(_TAKEN).fetchall()
    for step in ledger_steps(rows):
        receipts = [Receipt(*row)._replace(outcome="accepted", reason=REASON, settled_at=now) for row in step]
        settlements = [Settlement(receipt.event_id, "accepted", encode_receipt(receipt)) for receipt in receipts]
        settled = set(ledger.reconcile(settlements, now))
        if settled:
            new = [receipt for receipt in receipts if receipt.event_id in settled]
            record(ledger, *receipt_writers(folder), Receipts(new), time.time())
        accepted |= settled
    return accepted


def _reopen(ledger: DeliveryLedger, con: duckdb.DuckDBPyConnection, result: Reconciled) -> None:
    """Reopen the unknown events that the list would have, had the vendor accepted them."""
    rows = con.execute(_OTHERS, [result.as_of]).fetchall()
    uncovered: Counter[tuple[str, str]] = Counter()
    for chunk in ledger_steps(rows):
        outcomes = ledger.find([row[0] for row in chunk])
        unsent: list[str] = []
        for event_id, earlier, covered, retailer, campaign in chunk:
            if outcomes.get(event_id) != "unknown":
                continue
            if not covered:
                uncovered[retailer, campaign] += 1
            elif not earlier:
                result.later += 1
            else:
                unsent.append(event_id)
        result.reopened += reopen_events(ledger, unsent, int(time.time() * 1000))
    result.uncovered = [Uncovered(*group, events) for group, events in sorted(uncovered.items())]
