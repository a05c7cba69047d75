"""The results of `campaigns ledger` as text; times are UTC."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

from pipelines.operations.ledger.names import list_names
from pipelines.operations.ledger.operate import Cancelled, LedgerView, Pace
from pipelines.operations.ledger.rebuild import Rebuilt
from pipelines.operations.ledger.reconcile import Reconciled

_LISTED = {
    "accepted": "were accepted already",
    "rejected": "are rejected in the ledger and stay so, though the vendor accepted them",
    "expired": "are expired in the ledger and stay so, though the vendor accepted them",
    "dead": "are dead letters in the ledger and stay so",
    "unknown": "are unknown and stay so: of another campaign or retailer than you named, or their receipt is not here",
    "none": "have no outcome in the ledger: not sent yet, in a call now, or of another delivery",
}


def show_lines(view: LedgerView) -> Iterator[str]:
    """Entries by state, ended events by retailer, and the pace of retailers."""
    yield f"ledger {view.ledger}"
    yield from (f"{state:>16}  {count:>12,}" for state, count in view.entries.items())
    yield f"receipts {view.receipts}"
    for end in view.ended:
        reason, last = end.reason or "-", _clock(end.last)
        yield f"{end.retailer:>16}  {end.events:>12,}  {end.outcome:8}  {reason:16}  last {last}"
    for retailer, pace in view.paces.items():
        if pace is None:
            known = list_names(view.known) if view.known else "none"
            yield f"{retailer}: has no receipt and was never called. Retailers with receipts: {known}"
        else:
            yield f"pace of {retailer}: {'; '.join(_pace_parts(pace))}"


def _pace_parts(pace: Pace) -> Iterator[str]:
    yield f"{pace.sent:,} sent on the last day with calls, {pace.calls:,} calls this hour"
    if pace.blocked_until is not None:
        yield f"429: no call until {_clock(pace.blocked_until)}"
    if pace.stopped_until is not None:
        reason = f" ({pace.reason})" if pace.reason else ""
        yield f"stopped{reason}, next probe at {_clock(pace.stopped_until)}"


def cancel_lines(result: Cancelled) -> Iterator[str]:
    """What became of the events of the campaign."""
    yield f"{result.campaign}: {result.cancelled:,} events cancelled"
    for outcome, count in sorted(result.ended.items()):
        yield f"{count:,} were {outcome} before, and stay so"
    if result.unknown:
        yield f"{result.unknown:,} may have been sent by a run that was killed: they are unknown now"
    if result.in_flight:
        yield f"{result.in_flight:,} are in a call now: run this command again to cancel those that are not sent"


def reopen_lines(reopened: int) -> Iterator[str]:
    """How many events may be sent again, and by which command."""
    yield (
        f"{reopened:,} unknown events are reopened: the next run of rebatch sends them again if its source has them; "
        "`campaigns replay --from` publishes the events that the source no longer has"
    )


def reconcile_lines(result: Reconciled) -> Iterator[str]:
    """What the list changed, what it did not, and what to do about the rest."""
    yield f"{result.listed:,} ids in the list, taken {_clock(result.as_of)} UTC"
    yield f"{result.accepted:,} unknown events are in the list: they are accepted now"
    yield f"{result.reopened:,} unknown events are not in the list: the next run of rebatch sends them again"
    yield f"{result.later:,} unknown events became unknown after the list was taken: they stay unknown"
    for group in result.uncovered:
        yield (
            f"{group.events:,} unknown events of retailer {group.retailer} and campaign {group.campaign} stay unknown: "
            "the list has no event of that retailer and campaign. If the vendor accepted none of them: campaigns "
            f"ledger reopen OUTPUT --retailer {group.retailer} --campaign {group.campaign}"
        )
    for outcome, count in sorted(result.known.items()):
        yield f"{count:,} ids of the list {_LISTED[outcome]}"


def rebuild_lines(result: Rebuilt) -> Iterator[str]:
    """What was settled, and what receipts cannot know."""
    yield from (f"moved away: {path}" for path in result.moved)
    yield f"ledger {result.ledger}: {result.settled.total():,} events settled, as receipts and dead letters say"
    yield from (f"{outcome:>16}  {count:>12,}" for outcome, count in sorted(result.settled.items()))
    since = f" (the newest is of {_clock(result.newest)} UTC)" if result.newest is not None else ""
    yield (
        "not known: events that were in a call when the old ledger was lost, and events that it had settled before "
        f"their receipt was written{since}. The next run sends those of them that its source or spool has. If no "
        "customer may get a message twice, ask the vendor what it accepted since, before you start the run"
    )
    yield f"{result.in_spool:,} events of the spool have no receipt: the next run sends them"
    yield from (f"this file of the spool cannot be read, and is not counted: {path}" for path in result.unreadable)
    yield "events that a replay had reopened and that were not sent yet are settled again: replay them again"


def _clock(at: int) -> str:
    return f"{datetime.fromtimestamp(at / 1000, UTC):%Y-%m-%d %H:%M:%S}"
