"""What a person does to a delivery's ledger: look at it, cancel a campaign, let unknown events be sent again."""

from __future__ import annotations

import sys
import time
import uuid
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

from pipelines.launch.inputs import launched_campaigns
from pipelines.operations.ledger.names import check_names, find_unknown, list_names
from pipelines.operations.ledger.opened import opened_ledger, receipt_writers
from schemas.delivery import LEDGER_STEP, Claim, ClaimRequest, ClaimResult, DeliveryLedger, Message, Receipt, Settlement
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


class Cancelled(NamedTuple):
    """What became of a campaign's events: how many will not be sent, how many a call may have sent without an answer,
    how many are in a call now, and the outcomes that others had before."""

    campaign: str
    cancelled: int
    unknown: int
    out: int
    ended: Counter[str]

    def __str__(self) -> str:
        lines = [f"{self.campaign}: {self.cancelled:,} events cancelled"]
        lines += [f"{count:,} were {outcome} before, and stay so" for outcome, count in sorted(self.ended.items())]
        if self.unknown:
            lines.append(f"{self.unknown:,} may have been sent by a run that was killed: they are unknown now")
        if self.out:
            lines.append(f"{self.out:,} are in a call now: run this command again to cancel those that are not sent")
        return "\n".join(lines)


def show(output: str, uri: str | None, retailers: Sequence[str]) -> Iterator[str]:
    """Entries by state; ends by retailer and reason; the pace of the retailers that are named, or of all with receipts
    whose workspace is stopped; those named of which nothing is known. UTC."""
    now = int(time.time() * 1000)
    with opened_ledger(output, uri) as ledger:
        yield f"ledger {uri or DeliveryFolder(output).ledger}"
        yield from (f"{state:>16}  {count:>12,}" for state, count in ledger.counts(now).items())
        folder = DeliveryFolder(output).receipts
        con = open_receipts([folder])
        ends = con.execute(_ENDS, [list(retailers)]).fetchall()
        known = [row[0] for row in con.execute("SELECT DISTINCT retailer_id FROM receipts ORDER BY ALL").fetchall()]
        cells = {name: _read(ledger, name) for name in dict.fromkeys(retailers or known)}
    yield f"receipts {folder}"
    for retailer, outcome, reason, count, last in ends:
        yield f"{retailer:>16}  {count:>12,}  {outcome:8}  {reason or '-':16}  last {_clock(last)}"
    for retailer, cell in cells.items():
        if cell is None and retailer not in known:
            there = list_names(known) if known else "none"
            yield f"{retailer}: has no receipt and was never called. Retailers with receipts: {there}"
            continue
        pace, breaker = (cell or SharedState()).pace, (cell or SharedState()).breaker
        if not retailers and not breaker.opened:
            continue
        calls = pace.calls if pace.hour == now // HOUR_MS else 0
        told = [f"{pace.sent:,} sent on the last day with calls, {calls:,} calls this hour"]
        told += [f"429: no call until {_clock(pace.blocked_until)}"] if pace.blocked_until > now else []
        why = f" ({breaker.reason})" if breaker.reason else ""
        told += [f"stopped{why}, next probe at {_clock(breaker.until)}"] if breaker.opened else []
        yield f"pace of {retailer}: {'; '.join(told)}"


class _Seen(Exception):
    """What a cell holds; raised so that nothing is written."""


def _read(ledger: DeliveryLedger, retailer: str) -> SharedState | None:
    """The cell of a retailer's pace; None if no call to it was ever planned."""

    def look(raw: bytes | None) -> tuple[bytes, None]:
        raise _Seen(raw)

    try:
        ledger.change(cell_name(retailer), look)
    except _Seen as seen:
        return decode_state(seen.args[0]) if seen.args[0] else None
    return None


def cancel(output: str, uri: str | None, launch: str, campaign: str, retailers: Sequence[str]) -> Cancelled:
    """Ends the events of a launch's campaign that were not sent: expired, with the reason `cancelled`, and a receipt
    each, so that `check` still closes. It may be done while the job runs; what it has waiting is then over too.

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
    vendor, found = configuration.engine.delivery.vendor, Cancelled(campaign, 0, 0, 0, Counter())
    with opened_ledger(output, uri) as ledger:
        recover(DeliveryFolder(output).journals, ledger, int(time.time() * 1000))  # what a killed run left claimed
        record_unreported(
            ledger, *receipt_writers(DeliveryFolder(output)), time.time(), time.time()
        )  # what a killed cancel settled
        for start in range(0, len(rows), LEDGER_STEP):
            events = {row[0]: row for row in rows[start : start + LEDGER_STEP]}
            found = _cancel_some(ledger, DeliveryFolder(output), events, found, manifest["launch_id"], vendor)
            if len(rows) > LEDGER_STEP:
                print(f"{start + len(events):,} of {len(rows):,} events", end="\r", file=sys.stderr, flush=True)
    return found


def _emitted(folder: LaunchFolder, campaign: str, retailers: Sequence[str]) -> list[tuple[Any, ...]]:
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
    events: dict[str, tuple[Any, ...]],
    found: Cancelled,
    launch_id: str,
    vendor: str,
) -> Cancelled:
    """Claims the events as a sender would, so that nothing is ended that is being sent, and settles what it gets. When
    this is killed in between, the ledger knows by the owner's name that nothing was sent."""
    owner, now = f"{CANCEL}{uuid.uuid4().hex}", int(time.time() * 1000)
    claims = [Claim(event_id, "cancel") for event_id in events]
    claim_results = ledger.claim(ClaimRequest(claims, owner, now, now + _LEASE_MS, "hold"))
    ends = {
        one.event_id: _receipt(events[one.event_id], one, found.campaign, launch_id, vendor, now)
        for one in claim_results
        if one.state in ("granted", "regranted", "lapsed")
    }
    settlements = [Settlement(name, one.outcome, encode_receipt(one)) for name, one in ends.items()]  # type: ignore[arg-type]
    settled = [ends[name] for name in ledger.settle(owner, settlements, now)] if ends else []
    if settled:
        record(ledger, *receipt_writers(folder), Receipts(settled), time.time())
    count = Counter(one.outcome for one in settled)
    return found._replace(
        cancelled=found.cancelled + count["expired"],
        unknown=found.unknown + count["unknown"],
        out=found.out + sum(one.state == "taken" for one in claim_results),
        ended=found.ended + Counter(one.outcome for one in claim_results if one.state == "settled" and one.outcome),
    )


def _receipt(
    row: tuple[Any, ...], claim_result: ClaimResult, campaign: str, launch: str, vendor: str, now: int
) -> Receipt:
    event_id, retailer, customer, channel, variant = row
    outcome, reason = ("unknown", "no_answer") if claim_result.state == "lapsed" else ("expired", "cancelled")
    message = Message(event_id, retailer, "", customer, "", b"", arrived_at=now)
    event = {"launch_id": launch, "campaign_id": campaign, "channel": channel, "experiment": {"variant": variant}}
    return make_receipt(message, f"{vendor}:{retailer}", outcome, now, event=event, reason=reason)


def reopen(output: str, uri: str | None, campaign: str | None, retailers: Sequence[str]) -> int:
    """Lets the events whose receipts say unknown be sent again; how many the ledger had so.

    Raises InputError when there is no ledger, there are no receipts, or none of the campaign or of a retailer.
    """
    folder = DeliveryFolder(output).receipts
    con = open_receipts([folder])
    check_names(con, campaign, retailers, f"the receipts of {folder}")
    names = [row[0] for row in con.execute(_UNKNOWN, [campaign, list(retailers)]).fetchall()]
    count = 0
    with opened_ledger(output, uri) as ledger:
        for start in range(0, len(names), LEDGER_STEP):
            outcomes = ledger.find(names[start : start + LEDGER_STEP])
            unknown = [name for name, outcome in outcomes.items() if outcome == "unknown"]
            count += reopen_events(ledger, unknown, int(time.time() * 1000))
    return count


def _clock(at: int) -> str:
    return f"{datetime.fromtimestamp(at / 1000, UTC):%Y-%m-%d %H:%M:%S}"
