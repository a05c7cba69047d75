"""What became of a launch's events, counted; the equation that closes its ledger; how good the delivery was."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

from transforms.reconciliation.sample_ratio import sample_ratio_test

ENDS = ("accepted", "rejected", "expired", "unknown", "pending")
"""Where an emitted event is: the outcome of its receipts, best first, or pending without one."""
TARGET = 0.999
"""The share of what was tried that a workspace should accept."""
Group: TypeAlias = tuple[str, str, str | None]
"""Campaign, retailer, variant."""


class Counted(NamedTuple):
    """Emitted events alike in all of this."""

    campaign: str
    retailer: str
    variant: str | None
    outcome: str
    reason: str | None
    events: int


def ends(rows: Iterable[Counted]) -> dict[str, int]:
    """Events by outcome, every outcome named."""
    found = dict.fromkeys(ENDS, 0)
    for row in rows:
        found[row.outcome] += row.events
    return found


def ends_by(rows: Iterable[Counted], *fields: str) -> dict[tuple[Any, ...], dict[str, int]]:
    """Events by outcome for each combination of some fields of a row, the largest first."""
    groups: dict[tuple[Any, ...], list[Counted]] = {}
    for row in rows:
        groups.setdefault(tuple(getattr(row, field) for field in fields), []).append(row)
    found = {key: ends(group) for key, group in groups.items()}
    return dict(sorted(found.items(), key=lambda item: (-sum(item[1].values()), tuple(map(str, item[0])))))


def reasons(rows: Iterable[Counted], outcome: str) -> dict[str, int]:
    """Events of an outcome by reason, the most frequent first; no reason given is `unnamed`."""
    found = Counter[str]()
    for row in rows:
        if row.outcome == outcome:
            found[row.reason or "unnamed"] += row.events
    return dict(sorted(found.items(), key=lambda item: (-item[1], item[0])))


def success(counts: Mapping[str, int]) -> float | None:
    """The share accepted of accepted + rejected + unknown; None while nothing was tried.

    Expired events are the schedule's doing, and pending ones are not over: neither says anything of the delivery.
    """
    tried = counts["accepted"] + counts["rejected"] + counts["unknown"]
    return counts["accepted"] / tried if tried else None


def on_target(counts: Mapping[str, int]) -> bool:
    """Whether the success is not below TARGET, or there is none to judge."""
    share = success(counts)
    return share is None or share >= TARGET


def open_groups(rows: Iterable[Counted], emitted: Mapping[Group, int]) -> dict[Group, str]:
    """The groups for which emitted = accepted + rejected + expired + unknown + pending does not hold, in numbers.

    `rows` are counted by what the receipts say of themselves, `emitted` by the exposures: a receipt with another
    campaign, retailer or variant than its event's opens two groups.
    """
    counted = ends_by(rows, "campaign", "retailer", "variant")
    found = {}
    for group in sorted({*emitted, *counted}, key=lambda group: tuple(map(str, group))):
        counts = counted.get(group, dict.fromkeys(ENDS, 0))
        if emitted.get(group, 0) != sum(counts.values()):
            terms = " + ".join(f"{number:,} {end}" for end, number in counts.items() if number) or "nothing"
            found[group] = f"{emitted.get(group, 0):,} emitted is not {terms}"
    return found


def accepted_ratio(accepted: Sequence[int], weights: Sequence[float]) -> dict[str, Any]:
    """The sample-ratio test over the accepted, one more stage after assigned and emitted, as summary.json has it."""
    test = sample_ratio_test(accepted, weights)
    return {"p_value": test.p_value, "mismatch": test.mismatch}
