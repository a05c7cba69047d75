"""The accounting of a launch as equations, each with its gap: every customer has exactly one outcome."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from pipelines.operations.report.charts import number

OUTCOMES = {
    "held_out": "held out",
    "outside": "outside",
    "suppressed": "suppressed",
    "dead_lettered": "dead-lettered",
    "emitted": "emitted",
}


class Equation(NamedTuple):
    """An equation: `left`, a count with its name, and the terms that must sum to it."""

    left: tuple[int, str]
    terms: tuple[tuple[int, str], ...]

    @property
    def gap(self) -> int:
        """The difference of the left side and the sum of the terms; 0 if the equation holds."""
        return self.left[0] - sum(count for count, _ in self.terms)

    @property
    def text(self) -> str:
        """The equation as text, with what is wrong about it."""
        terms = " + ".join(f"{number(count)} {name}" for count, name in self.terms)
        if not self.gap:
            return f"{number(self.left[0])} {self.left[1]} = {terms}"
        wrong = f"{number(abs(self.gap))} {'missing' if self.gap > 0 else 'too many'}"
        return f"{number(self.left[0])} {self.left[1]} ≠ {terms}: {wrong}"


def outcomes(campaign: Mapping[str, Any]) -> dict[str, int]:
    """The matched customers of a campaign by kind of outcome."""
    return {kind: _total(campaign[kind]) for kind in OUTCOMES}


def campaign_equations(campaign: Mapping[str, Any], delivered: Mapping[str, int] | None = None) -> list[Equation]:
    """evaluated = not matched + matched; matched = held out + outside + suppressed + dead-lettered + emitted.

    With the events by the outcome of their delivery, emitted = accepted + rejected + expired + unknown + pending.
    """
    matched = campaign["matched"]
    parts = (campaign["not_matched"], "not matched"), (matched, "matched")
    first = Equation((campaign["evaluated"], "evaluated"), parts)
    last = []
    if delivered is not None:
        last.append(Equation((campaign["emitted"], "emitted"), tuple((n, name) for name, n in delivered.items())))
    return [first, _outcome_equation(matched, outcomes(campaign)), *last]


def launch_equations(summary: Mapping[str, Any]) -> list[Equation]:
    """Rows read against customers, and the retailers' and the ledger's rows against the campaigns.

    The rows are compared when the launch has finished; before that some are not read yet.
    """
    customers, campaigns, retailers = summary["customers"], summary["campaigns"], summary["retailers"]
    lines = []
    if summary["state"] == "finished":
        refused = _total(customers["dead_lettered"])
        terms = ((customers["evaluated"], "customers evaluated"), (refused, "rows dead-lettered"))
        lines.append(Equation((customers["rows"], "rows read"), terms))
    counted = {
        "evaluated": customers["evaluated"],
        "matched": sum(campaign["matched"] for campaign in campaigns),
        "emitted": sum(campaign["emitted"] for campaign in campaigns),
    }
    for name, count in counted.items():
        over = sum(retailer[name] for retailer in retailers)
        lines.append(Equation((count, f"{name} in all"), ((over, f"{name} over the retailers"),)))
    rows = sum(count for *_, outcome, _, count in summary["ledger"] if outcome == "emitted")
    lines.append(Equation((counted["emitted"], "emitted in all"), ((rows, "emitted in the ledger’s rows"),)))
    return lines


def open_retailers(summary: Mapping[str, Any]) -> list[tuple[str, Equation]]:
    """The retailers whose matched customers do not all end in one place."""
    lines = [(retailer["id"], _outcome_equation(retailer["matched"], retailer)) for retailer in summary["retailers"]]
    return [(name, line) for name, line in lines if line.gap]


def _outcome_equation(matched: int, counts: Mapping[str, int]) -> Equation:
    return Equation((matched, "matched"), tuple((counts[kind], name) for kind, name in OUTCOMES.items()))


def _total(counts: Mapping[str, int] | int) -> int:
    return counts if isinstance(counts, int) else sum(counts.values())
