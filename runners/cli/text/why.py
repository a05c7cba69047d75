"""Explanations of `campaigns why` as text."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from zoneinfo import ZoneInfo

from pipelines.operations.why import Condition, EventReceipt, Explanation

_MARKS = {True: "yes", False: "no", None: "-"}


def why_lines(explanations: list[Explanation]) -> Iterator[str]:
    """The lines of each explanation, and an empty one after it."""
    for answer in explanations:
        yield f"{answer.customer} of {answer.retailer}, campaign {answer.campaign}: {answer.verdict}"
        if answer.audience is not None:
            yield from _steps(answer, answer.audience)
        yield ""


def _steps(explanation: Explanation, audience: Condition) -> Iterator[str]:
    yield "  audience"
    yield from _condition(audience, 2)
    for title, facts in (("assignment", explanation.assignment), ("suppression", explanation.suppression)):
        yield f"  {title}"
        yield from (f"    {fact.name:18}{fact.text}" for fact in facts)
    if explanation.recorded:
        yield "  recorded"
        yield from (f"    {name:14}{value}" for name, value in explanation.recorded.items())
    if explanation.receipts is not None:
        yield "  delivery"
        yield from _receipts(explanation.receipts, ZoneInfo(explanation.time_zone))


def _condition(condition: Condition, depth: int) -> Iterator[str]:
    saw = ""
    if condition.saw is not None:
        saw = "   saw " + ", ".join(f"{name} = {value!r}" for name, value in condition.saw.items())
        saw += "   (the condition raised an error)" if condition.failed else ""
    yield f"{'  ' * depth}{_MARKS[condition.passed]:4}{condition.label}{saw}"
    for child in condition.children:
        yield from _condition(child, depth + 1)


def _receipts(receipts: list[EventReceipt], zone: ZoneInfo) -> Iterator[str]:
    if not receipts:
        yield "    pending: no receipt yet"
    for receipt in receipts:
        reason = f" ({receipt.reason})" if receipt.reason else ""
        yield f"    {_clock(receipt.settled_at, zone)}  {receipt.outcome}{reason}"
        waited_s = (receipt.settled_at - receipt.arrived_at) / 1000
        facts = {
            "arrived": f"{_clock(receipt.arrived_at, zone)}, {waited_s:,.1f} s before",
            "workspace": receipt.workspace,
            "batch": receipt.batch_id or "none: no call was made",
            "vendor id": receipt.vendor_id,
            "attempt": f"{receipt.attempt}{', sent again because no answer had come' if receipt.resent else ''}",
            "written": f"{receipt.written} times, it counts once" if receipt.written > 1 else None,
        }
        yield from (f"      {name:12}{value}" for name, value in facts.items() if value)


def _clock(milliseconds: int, zone: ZoneInfo) -> str:
    return f"{datetime.fromtimestamp(milliseconds / 1000, zone):%Y-%m-%d %H:%M:%S %Z}"
