"""Counts of a launch's events by outcome, their equation, and the success rate of the delivery."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, TypeAlias

EVENT_OUTCOMES = ("accepted", "rejected", "expired", "unknown", "pending")
"""The outcomes of an emitted event: the best of its receipts in this order, or pending without one."""
TARGET = 0.999
"""The share of the tried events that a workspace should accept."""
Group: TypeAlias = tuple[str, str, str | None]
"""Campaign, retailer, variant."""


class EventCount(NamedTuple):
    """The number of emitted events with the same fields."""

    campaign: str
    retailer: str
    variant: str | None
    outcome: str
    reason: str | None
    events: int


def count_outcomes(rows: Iterable[EventCount]) -> dict[str, int]:
    """Events by outcome, with 0 for an outcome without events."""
    counts = dict.fromkeys(EVENT_OUTCOMES, 0)
    for row in rows:
        counts[row.outcome] += row.events
    return counts


def count_outcomes_by(rows: Iterable[EventCount], *fields: str) -> dict[tuple[Any, ...], dict[str, int]]:
    """Events by outcome for each combination of the given fields, most events first."""
    groups: dict[tuple[Any, ...], list[EventCount]] = {}
    for row in rows:
        groups.setdefault(tuple(getattr(row, field) for field in fields), []).append(row)
    counts = {key: count_outcomes(group) for key, group in groups.items()}
    return dict(sorted(counts.items(), key=lambda item: (-sum(item[1].values()), tuple(map(str, item[0])))))


def reasons(rows: Iterable[EventCount], outcome: str) -> dict[str, int]:
    """Events of an outcome by reason, the most frequent first; `unnamed` for events without a reason."""
    counts = Counter[str]()
    for row in rows:
        if row.outcome == outcome:
            counts[row.reason or "unnamed"] += row.events
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def success(counts: Mapping[str, int]) -> float | None:
    """accepted / (accepted + rejected + unknown); None while nothing was tried.

    Expired events are due to the schedule and pending ones are not over, so neither counts.
    """
    tried = counts["accepted"] + counts["rejected"] + counts["unknown"]
    return counts["accepted"] / tried if tried else None


def on_target(counts: Mapping[str, int]) -> bool:
    """Whether the success is TARGET or more, or nothing was tried."""
    share = success(counts)
    return share is None or share >= TARGET


def open_groups(rows: Iterable[EventCount], emitted: Mapping[Group, int]) -> dict[Group, str]:
    """The groups for which emitted = accepted + rejected + expired + unknown + pending does not hold, with the numbers.

    `rows` are grouped by the fields of the receipts, `emitted` by those of the exposures: a receipt with another
    campaign, retailer or variant than its event's leaves two groups open.
    """
    counted = count_outcomes_by(rows, "campaign", "retailer", "variant")
    problems = {}
    for group in sorted({*emitted, *counted}, key=lambda group: tuple(map(str, group))):
        counts = counted.get(group, dict.fromkeys(EVENT_OUTCOMES, 0))
        if emitted.get(group, 0) != sum(counts.values()):
            terms = " + ".join(f"{number:,} {outcome}" for outcome, number in counts.items() if number) or "nothing"
            problems[group] = f"{emitted.get(group, 0):,} emitted is not {terms}"
    return problems
