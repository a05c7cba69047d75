"""The delivery in the report: tables, notices, and the funnel's last steps, from a summary's `delivery`."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from pipelines.operations.report.charts import number
from transforms.reconciliation.deliveries import EVENT_OUTCOMES, TARGET, on_target, success

SHOWN = 20
NAMES = {end: end.capitalize() for end in EVENT_OUTCOMES}
_LOST = {
    "rejected": "The vendor refused it",
    "expired": "Too late to be sent",
    "unknown": "No answer came",
    "pending": "No receipt yet",
}


class Line(NamedTuple):
    """A row of a table: a name, its events by outcome and in all, and the share accepted of what was tried."""

    name: str
    of: str
    counts: Mapping[str, int]
    events: int
    success: float | None
    on_target: bool


class View(NamedTuple):
    """The section: `rest` sums the retailers beyond the first 20, over `others` of them."""

    whole: Line
    retailers: list[Line]
    rest: Line | None
    others: int
    variants: list[Line]
    reasons: list[tuple[str, str, int]]
    waits: Sequence[Mapping[str, Any]]
    facts: list[str]


def delivery_view(delivery: Mapping[str, Any]) -> View:
    """The delivery as the page shows it."""
    retailers, rest = delivery["retailers"][:SHOWN], delivery["retailers"][SHOWN:]
    summed = {end: sum(one[end] for one in rest) for end in EVENT_OUTCOMES}
    return View(
        whole=_line("All events", "", delivery["ends"]),
        retailers=[_line(one["id"], "", one) for one in retailers],
        rest=_line(f"The other {number(len(rest))}", "", summed) if rest else None,
        others=len(rest),
        variants=[_line(one["variant"] or "without a variant", one["campaign"], one) for one in delivery["variants"]],
        reasons=[(end, reason, count) for end, by in delivery["reasons"].items() for reason, count in by.items()],
        waits=delivery["waits"],
        facts=list(_facts(delivery)),
    )


def _line(name: str, of: str, counts: Mapping[str, Any]) -> Line:
    own = {end: counts[end] for end in EVENT_OUTCOMES}
    return Line(name, of, own, sum(own.values()), success(own), on_target(own))


def _facts(delivery: Mapping[str, Any]) -> Iterator[str]:
    read = _some(delivery["receipts"], "receipt")
    yield f"{read} of this launch read; an event counts once: accepted if a receipt says so, else as its last one says."
    if delivery["others"]:
        left = _some(sum(delivery["others"].values()), "receipt")
        yield f"{left} of {_some(len(delivery['others']), 'other launch', 'other launches')} left out."
    if delivery["resent"]:
        yield f"{_some(delivery['resent'], 'event')} accepted in two calls: sent again because no answer had come."


def _some(count: int, singular: str, plural: str = "") -> str:
    return f"{number(count)} {singular if count == 1 else plural or singular + 's'}"


def complaints(delivery: Mapping[str, Any], finished: bool) -> Iterator[str]:
    """Sentences about receipts that contradict the launch: its delivery figures cannot be trusted then."""
    if delivery["strays"] and finished:
        yield f"{_some(delivery['strays'], 'event')} with receipts that this launch did not emit."
    if delivery["twice"]:
        yield f"{_some(delivery['twice'], 'event')} accepted in two calls: ask the vendor what it sent."
    for campaign, retailer, variant, gap in delivery["open"]:
        yield f"{campaign}, {retailer}, {variant or 'no variant'}: {gap}."


def shortfall(delivery: Mapping[str, Any]) -> str | None:
    """The sentence about a success below the target, once nothing is pending; None otherwise."""
    counts = delivery["ends"]
    if counts["pending"] or on_target(counts):
        return None
    tried = counts["accepted"] + counts["rejected"] + counts["unknown"]
    lost = number(tried - counts["accepted"])
    return f"{lost} of {number(tried)} events that were tried are not accepted; {target()} should be."


def success_share(share: float) -> str:
    """A success with two decimals, rounded down so that what is below the target also looks so."""
    return f"{math.floor(share * 1e4 + 1e-9) / 100:.2f}%"


def target() -> str:
    """The target as the page writes it."""
    return f"{100 * TARGET:g}%"


def last_steps(counts: Mapping[str, int]) -> Iterator[tuple[str, str, int]]:
    """Kind, label and events of the losses between emitted and accepted that are not zero."""
    for end in reversed(EVENT_OUTCOMES[1:]):
        if counts[end]:
            yield end, _LOST[end], counts[end]
