"""The ledger of a launch as equations, each with its gap: every customer ends in one place."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from pipelines.operations.report.charts import number

ENDS = {
    "held_out": "held out",
    "outside": "outside",
    "suppressed": "suppressed",
    "dead_lettered": "dead-lettered",
    "emitted": "emitted",
}


class Equation(NamedTuple):
    """One line: `left`, a count with its name, and the terms that must sum to it."""

    left: tuple[int, str]
    terms: tuple[tuple[int, str], ...]

    @property
    def gap(self) -> int:
        """What the terms lack; negative where they have too much; 0 where the line closes."""
        return self.left[0] - sum(count for count, _ in self.terms)

    @property
    def said(self) -> str:
        """The line in words, with what is wrong about it."""
        terms = " + ".join(f"{number(count)} {name}" for count, name in self.terms)
        if not self.gap:
            return f"{number(self.left[0])} {self.left[1]} = {terms}"
        wrong = f"{number(abs(self.gap))} {'missing' if self.gap > 0 else 'too many'}"
        return f"{number(self.left[0])} {self.left[1]} ≠ {terms}: {wrong}"


def outcomes(campaign: Mapping[str, Any]) -> dict[str, int]:
    """Where the matched customers of a campaign ended, by kind."""
    return {kind: _total(campaign[kind]) for kind in ENDS}


def campaign_ledger(campaign: Mapping[str, Any], delivered: Mapping[str, int] | None = None) -> list[Equation]:
    """evaluated = not matched + matched; matched = held out + outside + suppressed + dead-lettered + emitted.

    With the events by the outcome of their delivery, emitted = accepted + rejected + expired + unknown + pending.
    """
    matched = campaign["matched"]
    first = Equation(
        (campaign["evaluated"], "evaluated"), ((campaign["not_matched"], "not matched"), (matched, "matched"))
    )
    last = []
    if delivered is not None:
        last.append(Equation((campaign["emitted"], "emitted"), tuple((n, name) for name, n in delivered.items())))
    return [first, _ends(matched, outcomes(campaign)), *last]


def launch_ledger(summary: Mapping[str, Any]) -> list[Equation]:
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
    lines = [(r["id"], _ends(r["matched"], {kind: r[kind] for kind in ENDS})) for r in summary["retailers"]]
    return [(name, line) for name, line in lines if line.gap]


def _ends(matched: int, counts: Mapping[str, int]) -> Equation:
    return Equation((matched, "matched"), tuple((counts[kind], name) for kind, name in ENDS.items()))


def _total(counts: Mapping[str, int] | int) -> int:
    return counts if isinstance(counts, int) else sum(counts.values())
