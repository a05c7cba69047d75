"""Show a delivery's ledger, cancel a campaign, reopen unknown events so that they are sent again."""

from __future__ import annotations

import time
import uuid
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from pipelines.launch.inputs import launched_campaigns
from pipelines.operations.ledger.names import check_names, find_unknown
from pipelines.operations.ledger.opened import opened_ledger, receipt_writers
from schemas.delivery import (
    Claim,
    ClaimRequest,
    ClaimResult,
    DeliveryLedger,
    Message,
    Receipt,
    Settlement,
    ledger_steps,
)
from schemas.problems import InputError, Problem
from stores.deliveries.call_recovery import recover
from stores.deliveries.delivery_folder import DeliveryFolder
from stores.deliveries.receipts import open_receipts
from stores.launches.launch_folder import LaunchFolder
from stores.ledger.identity import reopen_events
from stores.ledger.transitions import CANCEL
from transforms.delivery.elements import Receipts
from transforms.delivery.receipts import encode_receipt, make_receipt
from transforms.delivery.record_receipts import record, record_unreported
from transforms.pacing.limiter import SharedState, cell_name, decode_state
from transforms.pacing.pace import HOUR_MS
from transforms.reconciliation.record_exposures import SCHEMA

Progress = Callable[[int, int], None]
Row = tuple[Any, ...]
_LEASE_MS = 60_000
_EMITTED = """
SELECT event_id, retailer_id, customer_id, channel, variant FROM exposures
WHERE campaign_id = $1 AND outcome = 'emitted' AND (len($2) = 0 OR list_contains($2, retailer_id)) ORDER BY retailer_id
"""
_RETAILERS = "SELECT DISTINCT retailer_id FROM exposures WHERE campaign_id = $1 AND outcome = 'emitted'"
_ENDS = """
SELECT retailer_id, outcome, coalesce(reason, ''), count(*), max(settled_at) FROM outcomes
WHERE len($1) = 0 OR list_contains($1, retailer_id) GROUP BY ALL ORDER BY ALL
"""
_UNKNOWN = """
SELECT event_id FROM outcomes WHERE outcome = 'unknown'
AND ($1 IS NULL OR campaign_id = $1) AND (len($2) = 0 OR list_contains($2, retailer_id))
"""


class Cancelled(msgspec.Struct):
    """What became of a campaign's events: how many will not be sent, how many a call may have sent without an answer,
    how many are in a call now, and those that had ended before, by outcome."""

    campaign: str
    cancelled: int = 0
    unknown: int = 0
    in_flight: int = 0
    ended: Counter[str] = msgspec.field(default_factory=Counter)


class Ended(msgspec.Struct):
    """The events of a retailer by outcome and reason; `last` is when the last was settled (epoch ms)."""

    retailer: str
    outcome: str
    reason: str
    events: int
    last: int


class Pace(msgspec.Struct):
    """How fast a retailer is sent to: messages of the last day with calls, calls of this hour, until when a 429 or a
    stopped workspace blocks calls (epoch ms; None: does not), and why it is stopped."""

    retailer: str
    sent: int
    calls: int
    blocked_until: int | None
    stopped_until: int | None
    reason: str


class LedgerView(msgspec.Struct):
    """A ledger: entries by state; ended events by retailer, outcome and reason, by the receipts; the pace of retailers
    (None: nothing is known of it); and the `known` retailers, which have receipts."""

    ledger: str
    entries: dict[str, int]
    receipts: str
    ended: list[Ended]
    paces: dict[str, Pace | None]
    known: list[str]


def show(output: str, uri: str | None, retailers: Sequence[str]) -> LedgerView:
    """The ledger of the delivery in `output`. Paces are of `retailers`, or of all that are stopped."""
    now, folder = int(time.time() * 1000), DeliveryFolder(output)
    with opened_ledger(output, uri) as ledger:
        entries = {str(state): count for state, count in ledger.counts(now).items()}
        con = open_receipts([folder.receipts])
        ended = [Ended(*row) for row in con.execute(_ENDS, [list(retailers)]).fetchall()]
        known = [row[0] for row in con.execute("SELECT DISTINCT retailer_id FROM receipts ORDER BY ALL").fetchall()]
        states = {name: _read(ledger, name) for name in dict.fromkeys(retailers or known)}
    paces = {
        name: None if state is None and name not in known else _pace(name, state or SharedState(), now)
        for name, state in states.items()
        if retailers or (state and state.breaker.opened)
    }
    return LedgerView(uri or folder.ledger, entries, folder.receipts, ended, paces, known)


def _pace(retailer: str, state: SharedState, now: int) -> Pace:
    pace, breaker = state.pace, state.breaker
    return Pace(
        retailer,
        pace.sent,
        pace.calls if pace.hour == now // HOUR_MS else 0,
        pace.blocked_until if pace.blocked_until > now else None,
        breaker.until if breaker.opened else None,
        breaker.reason or "",
    )


class _Seen(Exception):
    """The content of a shared state; raised so that nothing is written."""


def _read(ledger: DeliveryLedger, retailer: str) -> SharedState | None:
    """The shared state of a retailer's pace; None if no call to it was ever planned."""

    def look(raw: bytes | None) -> tuple[bytes, None]:
        raise _Seen(raw)

    try:
        ledger.change(cell_name(retailer), look)
    except _Seen as seen:
        return decode_state(seen.args[0]) if seen.args[0] else None
    return None


def cancel(
    output: str, uri: str | None, launch: str, campaign: str, retailers: Sequence[str], progress: Progress
) -> Cancelled:
    """End the unsent events of a launch's campaign: expired, with the reason `cancelled`, and a receipt each, so that
    `check` still closes. A running job drops those that it holds. `progress` is called with (events done, of all).

    Raises InputError when there is no such launch, campaign or ledger, when a file of the launch is damaged, and for
    retailers without an event of it.
    """
    folder = LaunchFolder(launch)
    if folder.remote is not None:
        folder.remote.pull()
    if folder.read_manifest() is None:
        fix = "holds no launch (no manifest.json); give the --output of a launch"
        raise InputError([Problem("command line", "--launch", launch, fix)])
    manifest, configuration = launched_campaigns(folder)
    names = [one.id for one in configuration.campaigns]
    if problems := find_unknown("--campaign", [campaign], names, f"the launch {launch}"):
        raise InputError(problems)
    folder.check_exposures(SCHEMA.names)
    rows = _emitted(folder, campaign, retailers)
    vendor, result = configuration.engine.delivery.vendor, Cancelled(campaign)
    with opened_ledger(output, uri) as ledger:
        now, delivery = time.time(), DeliveryFolder(output)
        recover(delivery.journals, ledger, int(now * 1000))  # claims of a killed run
        record_unreported(ledger, *receipt_writers(delivery), now, now)  # receipts of a killed cancel
        done = 0
        for step in ledger_steps(rows):
            events = {row[0]: row for row in step}
            _cancel_some(ledger, delivery, events, result, manifest["launch_id"], vendor)
            done += len(step)
            if len(step) < len(rows):
                progress(done, len(rows))
    return result


def _emitted(folder: LaunchFolder, campaign: str, retailers: Sequence[str]) -> list[Row]:
    """The events of a campaign that the launch has emitted so far. Raises InputError for retailers that have none."""
    done = folder.done()
    con = folder.open_exposures(done) if done else None
    known = [row[0] for row in con.execute(_RETAILERS, [campaign]).fetchall()] if con else []
    where = f"the events of {campaign} that the launch {folder.root} has emitted"
    if problems := find_unknown("--retailer", retailers, known, where):
        raise InputError(problems)
    return con.execute(_EMITTED, [campaign, list(retailers)]).fetchall() if con else []


def _cancel_some(
    ledger: DeliveryLedger,
    folder: DeliveryFolder,
    events: dict[str, Row],
    result: Cancelled,
    launch_id: str,
    vendor: str,
) -> None:
    """Claim the events as a sender would, so that none ends that is being sent, and settle the granted ones. When this
    is killed in between, the owner's name says in the ledger that nothing was sent."""
    owner, now = f"{CANCEL}{uuid.uuid4().hex}", int(time.time() * 1000)
    claims = [Claim(event_id, "cancel") for event_id in events]
    claim_results = ledger.claim(ClaimRequest(claims, owner, now, now + _LEASE_MS, "hold"))
    ends = {
        one.event_id: _receipt(events[one.event_id], one, result.campaign, launch_id, vendor, now)
        for one in claim_results
        if one.state in ("granted", "regranted", "lapsed")
    }
    settlements = [Settlement(name, one.outcome, encode_receipt(one)) for name, one in ends.items()]  # type: ignore[arg-type]
    settled = [ends[name] for name in ledger.settle(owner, settlements, now)] if ends else []
    if settled:
        record(ledger, *receipt_writers(folder), Receipts(settled), time.time())
    count = Counter(one.outcome for one in settled)
    result.cancelled += count["expired"]
    result.unknown += count["unknown"]
    result.in_flight += sum(one.state == "taken" for one in claim_results)
    result.ended.update(one.outcome for one in claim_results if one.state == "settled" and one.outcome)


def _receipt(row: Row, claim: ClaimResult, campaign: str, launch: str, vendor: str, now: int) -> Receipt:
    event_id, retailer, customer, channel, variant = row
    outcome, reason = ("unknown", "no_answer") if claim.state == "lapsed" else ("expired", "cancelled")
    message = Message(event_id, retailer, "", customer, "", b"", arrived_at=now)
    event = {"launch_id": launch, "campaign_id": campaign, "channel": channel, "experiment": {"variant": variant}}
    return make_receipt(message, f"{vendor}:{retailer}", outcome, now, event=event, reason=reason)


def reopen(output: str, uri: str | None, campaign: str | None, retailers: Sequence[str]) -> int:
    """Let the events whose receipts say unknown be sent again; the number that were unknown in the ledger.

    Raises InputError when there is no ledger, there are no receipts, or none of the campaign or of a retailer.
    """
    folder = DeliveryFolder(output).receipts
    con = open_receipts([folder])
    check_names(con, campaign, retailers, f"the receipts of {folder}")
    names = [row[0] for row in con.execute(_UNKNOWN, [campaign, list(retailers)]).fetchall()]
    count = 0
    with opened_ledger(output, uri) as ledger:
        for step in ledger_steps(names):
            outcomes = ledger.find(step)
            unknown = [name for name, outcome in outcomes.items() if outcome == "unknown"]
            count += reopen_events(ledger, unknown, int(time.time() * 1000))
    return count
