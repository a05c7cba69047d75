"""What a person does to a delivery's ledger: look at it, cancel a campaign, let unknown events be sent again."""

from __future__ import annotations

import sys
import time
import uuid
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any, NamedTuple

from pipelines.launch_inputs import launched_campaigns
from pipelines.ledger.opened import opened_ledger
from schemas.delivery import Claim, DeliveryLedger, Receipt, Settlement, Standing
from schemas.problems import InputError, Problem
from stores.call_recovery import recover
from stores.delivery_folder import DeliveryFolder
from stores.launch_folder import LaunchFolder
from stores.transports.dead_letters import write_dead_letters
from stores.transports.receipts import open_receipts, write_receipts
from transforms.ledger.exposures import SCHEMA
from transforms.pacing.limiter import Cell, cell_name, read_cell
from transforms.pacing.pace import HOUR_MS
from transforms.rebatch.elements import Receipts
from transforms.rebatch.outcomes import encode_receipt
from transforms.rebatch.records import record

_STEP = 1_000  # events that the ledger takes at once
_LEASE_MS = 60_000
_EMITTED = """
SELECT event_id, retailer_id, customer_id, channel, variant FROM exposures
WHERE campaign_id = $1 AND outcome = 'emitted' AND (len($2) = 0 OR list_contains($2, retailer_id)) ORDER BY retailer_id
"""
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
    how many are in a call that is out, and the ends that others had already."""

    campaign: str
    cancelled: int
    unknown: int
    out: int
    ended: Counter[str]

    def __str__(self) -> str:
        ends = ", ".join(f"{count:,} {outcome}" for outcome, count in sorted(self.ended.items()))
        told = (
            f"{self.campaign}: {self.cancelled:,} events cancelled, {self.ended.total():,} had an end ({ends or '-'})"
        )
        if self.unknown:
            told += f"; {self.unknown:,} were claimed by a run that died: they are unknown, for they may have been sent"
        if self.out:
            told += f"; {self.out:,} are in a call that is out: the same command again cancels those that come back"
        return told


def show(output: str, uri: str | None, retailers: Sequence[str]) -> Iterator[str]:
    """Entries by state; ends by retailer and reason; the pace of the retailers that are named, or of all with receipts
    whose workspace is stopped. UTC."""
    now = int(time.time() * 1000)
    with opened_ledger(output, uri) as ledger:
        yield f"ledger {uri or DeliveryFolder(output).ledger}"
        yield from (f"{state:>16}  {count:>12,}" for state, count in ledger.counts(now).items())
        folder = DeliveryFolder(output).receipts
        ends = open_receipts([folder]).execute(_ENDS, [list(retailers)]).fetchall()
        names = list(retailers) or sorted({retailer for retailer, *_ in ends})
        cells = {one: _read(ledger, one) for one in names}
    yield f"receipts {folder}"
    for retailer, outcome, reason, count, last in ends:
        yield f"{retailer:>16}  {count:>12,}  {outcome:8}  {reason or '-':16}  last {_clock(last)}"
    for retailer, cell in cells.items():
        pace, breaker = cell.pace, cell.breaker
        if not retailers and not breaker.opened:
            continue
        calls = pace.calls if pace.hour == now // HOUR_MS else 0
        told = [f"{pace.sent:,} sent on its last day, {calls:,} calls this hour"]
        told += [f"429: no call until {_clock(pace.blocked_until)}"] if pace.blocked_until > now else []
        why = f" ({breaker.reason})" if breaker.reason else ""
        told += [f"stopped{why}, next probe at {_clock(breaker.until)}"] if breaker.opened else []
        yield f"pace of {retailer}: {'; '.join(told)}"


class _Seen(Exception):
    """What a cell holds; raised so that nothing is written."""


def _read(ledger: DeliveryLedger, retailer: str) -> Cell:
    def look(raw: bytes | None) -> tuple[bytes, None]:
        raise _Seen(raw)

    try:
        ledger.change(cell_name(retailer), look)
    except _Seen as seen:
        return read_cell(seen.args[0])
    return read_cell(None)


def cancel(output: str, uri: str | None, launch: str, campaign: str, retailers: Sequence[str]) -> Cancelled:
    """Ends the events of a launch's campaign that were not sent: expired, with the reason `cancelled`, and a receipt
    each, so that `check` still closes. It may be done while the job runs; what it has waiting is then over too.

    Raises InputError when there is no such launch, campaign or ledger, and when a file of the launch is damaged.
    """
    folder = LaunchFolder(launch)
    if folder.remote is not None:
        folder.remote.pull()
    manifest, configuration = launched_campaigns(folder)
    names = [one.id for one in configuration.campaigns]
    if campaign not in names:
        fix = f"is none of the launch's campaigns: {', '.join(names)}"
        raise InputError([Problem("command line", "--campaign", campaign, fix)])
    folder.check_exposures(SCHEMA.names)
    done = folder.done()
    rows = folder.open_exposures(done).execute(_EMITTED, [campaign, list(retailers)]).fetchall() if done else []
    vendor, found = configuration.engine.delivery.vendor, Cancelled(campaign, 0, 0, 0, Counter())
    with opened_ledger(output, uri) as ledger:
        recover(DeliveryFolder(output).journals, ledger, int(time.time() * 1000))  # what a killed run left claimed
        for start in range(0, len(rows), _STEP):
            events = {row[0]: row for row in rows[start : start + _STEP]}
            found = _cancel_some(ledger, DeliveryFolder(output), events, found, manifest["launch_id"], vendor)
            if len(rows) > _STEP:
                print(f"{start + len(events):,} of {len(rows):,} events", end="\r", file=sys.stderr, flush=True)
    return found


def _cancel_some(
    ledger: DeliveryLedger,
    folder: DeliveryFolder,
    events: dict[str, tuple[Any, ...]],
    found: Cancelled,
    launch_id: str,
    vendor: str,
) -> Cancelled:
    """Claims the events as a sender would, so that nothing is ended that is being sent, and settles what it gets."""
    owner, now = f"cancel/{uuid.uuid4().hex}", int(time.time() * 1000)
    claims = [Claim(event_id, "cancel") for event_id in events]
    standings = ledger.claim(claims, owner, now, now + _LEASE_MS, "hold")
    ends = {
        one.event_id: _receipt(events[one.event_id], one, found.campaign, launch_id, vendor, now)
        for one in standings
        if one.state in ("granted", "regranted", "lapsed")
    }
    settlements = [Settlement(name, one.outcome, encode_receipt(one)) for name, one in ends.items()]  # type: ignore[arg-type]
    settled = [ends[name] for name in ledger.settle(owner, settlements, now)] if ends else []
    if settled:
        write, letters = partial(write_receipts, folder.receipts), partial(write_dead_letters, folder.dead_letters)
        record(ledger, write, letters, Receipts(settled))
    count = Counter(one.outcome for one in settled)
    return found._replace(
        cancelled=found.cancelled + count["expired"],
        unknown=found.unknown + count["unknown"],
        out=found.out + sum(one.state == "taken" for one in standings),
        ended=found.ended + Counter(one.outcome for one in standings if one.state == "settled" and one.outcome),
    )


def _receipt(row: tuple[Any, ...], standing: Standing, campaign: str, launch: str, vendor: str, now: int) -> Receipt:
    event_id, retailer, customer, channel, variant = row
    lapsed = standing.state == "lapsed"
    return Receipt(
        event_id=event_id,
        launch_id=launch,
        campaign_id=campaign,
        retailer_id=retailer,
        customer_id=customer,
        channel=channel,
        variant=variant,
        workspace=f"{vendor}:{retailer}",
        batch_id=None,
        outcome="unknown" if lapsed else "expired",
        reason="no_answer" if lapsed else "cancelled",
        vendor_id=None,
        attempt=0,
        resent=False,
        arrived_at=now,
        settled_at=now,
    )


def reopen(output: str, uri: str | None, campaign: str | None, retailers: Sequence[str]) -> int:
    """Lets the events whose receipts say unknown be sent again; how many the ledger had so.

    Raises InputError when there is no ledger or there are no receipts.
    """
    con = open_receipts([DeliveryFolder(output).receipts])
    names = [row[0] for row in con.execute(_UNKNOWN, [campaign, list(retailers)]).fetchall()]
    count = 0
    with opened_ledger(output, uri) as ledger:
        for start in range(0, len(names), _STEP):
            found = ledger.find(names[start : start + _STEP])
            count += ledger.reopen([name for name, outcome in found.items() if outcome == "unknown"])
    return count


def _clock(at: int) -> str:
    return f"{datetime.fromtimestamp(at / 1000, UTC):%Y-%m-%d %H:%M:%S}"
