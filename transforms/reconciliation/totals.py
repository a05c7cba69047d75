"""Totals and summarise: adds up the counts of the batches into summary.json; check_ledger checks its equations."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

import numpy as np

from schemas.elements import OfferCount
from transforms.audience.tree import NodeCount, tree_summary
from transforms.launch_plan import CampaignPlan, Plan
from transforms.reconciliation.sample_ratio import ratio_summary, share_interval
from transforms.warnings.evidence import EarlierUses, Evidence, ListUses
from transforms.warnings.find import find_warnings

EMITTED = "emitted"
_NOT_EMITTED = ("held_out", "outside", "suppressed", "dead_lettered")
_OUTCOMES = (*_NOT_EMITTED, EMITTED)


class Totals:
    """The sums of the counts of batches. `ledger` counts the exposures by campaign, retailer, variant, assigned_by,
    outcome and reason, `units` the units by campaign and variant."""

    def __init__(self) -> None:
        self.read = 0
        self.evaluated: Counter[str] = Counter()
        self.dead_lettered: Counter[str] = Counter()
        self.nodes: dict[str, list[list[int]]] = {}
        self.offers: dict[str, dict[str, list[int]]] = {}
        self.outcomes: Counter[tuple[Any, ...]] = Counter()
        self.variants: Counter[tuple[str, int]] = Counter()
        self.evidence = Evidence()
        self.lists, self.suppression_lists = ListUses(), ListUses()
        self.history, self.sticky = EarlierUses(), EarlierUses()
        self.ledger: dict[tuple[Any, ...], int] = {}
        self.units: dict[tuple[str, str], tuple[int, int]] = {}
        self.seconds: Counter[str] = Counter()
        self.unknown_time_zones: dict[str, list[Any]] = {}

    def add(self, counts: dict[str, Any]) -> None:
        """Add the counts of one batch."""
        self.read += counts["read"]
        self.evaluated.update(counts["evaluated"])
        self.dead_lettered.update(counts["dead_lettered"])
        self.seconds.update(counts["seconds"])
        for value, (number, example) in counts["unknown_time_zones"].items():
            self.unknown_time_zones.setdefault(value, [0, example])[0] += number
        for *key, number in counts["outcomes"]:
            self.outcomes[tuple(key)] += number
        for campaign, variant, number in counts["variants"]:
            self.variants[campaign, variant] += number
        for name in ("evidence", "lists", "suppression_lists", "history", "sticky"):
            getattr(self, name).add_rows(counts[name])
        for campaign, nodes in counts["nodes"].items():
            self.nodes[campaign] = np.add(self.nodes.get(campaign, 0), nodes).tolist()
        for campaign, offers in counts["offers"].items():
            sums = self.offers.setdefault(campaign, {})
            for offer, numbers in offers.items():
                sums[offer] = np.add(sums.get(offer, 0), numbers).tolist()


def campaign_summary(entry: CampaignPlan, totals: Totals) -> dict[str, Any]:
    """The part of summary.json about one campaign."""
    campaign = entry.campaign
    rows = {key: n for key, n in totals.ledger.items() if key[0] == campaign.id}
    evaluated = sum(totals.evaluated.values())
    empty = [[0, 0, 0] for _ in entry.tree.nodes()]
    nodes = [NodeCount(*count) for count in totals.nodes.get(campaign.id, empty)]
    matched = nodes[0].passed
    return {
        "id": campaign.id,
        "description": campaign.description,
        "version": entry.version,
        "surface": campaign.surface,
        "channel": campaign.channel,
        "priority": campaign.priority,
        "evaluated": evaluated,
        "not_matched": evaluated - matched,
        "matched": matched,
        "audience": tree_summary(entry.tree, iter(nodes)),
        **{outcome: _by_reason(rows, outcome) for outcome in _NOT_EMITTED},
        "emitted": sum(n for key, n in rows.items() if key[4] == EMITTED),
        "experiment": _experiment(entry, rows, totals.units),
        "offers": _offers(entry, totals.offers.get(campaign.id, {})),
    }


def _by_reason(rows: dict[tuple[Any, ...], int], outcome: str) -> dict[str, int]:
    counts: Counter[str] = Counter()
    for key, number in rows.items():
        if key[4] == outcome:
            counts[key[5]] += number
    return dict(counts)


def _experiment(
    entry: CampaignPlan, rows: dict[tuple[Any, ...], int], units: dict[tuple[str, str], tuple[int, int]]
) -> dict[str, Any] | None:
    """The experiment's part of a campaign. The sample-ratio test counts units, such as households: the customers of one
    household are no independent draws."""
    experiment = entry.campaign.experiment
    if experiment is None:
        return None
    keys = [variant.key for variant in experiment.variants]
    assigned, emitted = Counter[str](), Counter[str]()
    sources: Counter[str | None] = Counter()
    for (_, _, variant, assigned_by, outcome, _), number in rows.items():
        sources[assigned_by] += number
        if variant is not None and assigned_by != "forced":
            assigned[variant] += number
            emitted[variant] += number if outcome == EMITTED else 0
    pairs = {key: units.get((entry.campaign.id, key), (0, 0)) for key in keys}
    by_customer = not any(number for number, _ in pairs.values())
    tested = assigned if by_customer else Counter({key: pair[0] for key, pair in pairs.items()})
    tested_emitted = emitted if by_customer else Counter({key: pair[1] for key, pair in pairs.items()})
    total = sum(tested.values())
    return {
        "key": experiment.key,
        "unit": experiment.unit,
        "scheme": experiment.hash,
        "forced": sources["forced"],
        "sticky": sources["sticky"],
        "without_variant": sum(n for key, n in rows.items() if key[2] is None and key[4] == EMITTED),
        "variants": [
            {
                "key": key,
                "weight": weight,
                "assigned": assigned[key],
                "emitted": emitted[key],
                "units": tested[key],
                **_share(tested[key], total),
            }
            for key, weight in zip(keys, experiment.weights, strict=True)
        ],
        "sample_ratio": {
            name: ratio_summary([counts[key] for key in keys], experiment.weights)
            for name, counts in (("assigned", tested), ("emitted", tested_emitted))
        },
    }


def _share(number: int, total: int) -> dict[str, float]:
    low, high = share_interval(number, total)
    return {"share": number / total if total else 0.0, "low": low, "high": high}


def _offers(entry: CampaignPlan, counts: dict[str, list[int]]) -> list[dict[str, Any]]:
    return [
        {
            "id": offer.id,
            "kind": offer.kind,
            "value": offer.amount,
            "currency": offer.currency,
            "budget": offer.budget,
            **vars(OfferCount(*counts.get(offer.id, ()))),
        }
        for offer in entry.campaign.offers
    ]


def retailer_summaries(totals: Totals) -> list[dict[str, Any]]:
    """For each retailer its customers and its exposures by outcome; most emitted first."""
    rows: dict[str, dict[str, Any]] = {
        retailer: {"id": retailer, "evaluated": n, **dict.fromkeys(("matched", *_OUTCOMES), 0)}
        for retailer, n in totals.evaluated.items()
    }
    for (_, retailer, _, _, outcome, _), number in totals.ledger.items():
        rows[retailer]["matched"] += number
        rows[retailer][outcome] += number
    return sorted(rows.values(), key=lambda row: (-int(row[EMITTED]), str(row["id"])))


def summarise(plan: Plan, totals: Totals, rejected: dict[str, int], finished: bool) -> dict[str, Any]:
    """The numbers of summary.json. `rejected` are the rows that the snapshot refused, by reason. Warnings about what
    nobody reaches need all batches to be `finished`."""
    dead = Counter(rejected) + totals.dead_lettered
    ledger = sorted(totals.ledger.items(), key=lambda item: tuple(str(part) for part in item[0]))
    return {
        "launch_id": plan.launch_id,
        "test": plan.test,
        "customers": {
            "rows": totals.read + sum(rejected.values()),
            "evaluated": sum(totals.evaluated.values()),
            "dead_lettered": dict(dead),
        },
        "campaigns": [campaign_summary(entry, totals) for entry in plan.campaigns],
        "retailers": retailer_summaries(totals),
        "ledger": [[*key, number] for key, number in ledger],
        "lists": list_summaries(totals),
        "history": totals.history.summaries("channel"),
        "sticky": totals.sticky.summaries("experiment"),
        "warnings": [vars(warning) for warning in find_warnings(plan, totals, finished)],
    }


def list_summaries(totals: Totals) -> list[dict[str, Any]]:
    """For each list and column: the number of its ids, of those that are customers, and of the customers on it."""
    uses = {**totals.lists, **totals.suppression_lists}
    return [
        {"file": file, "column": column, "ids": use.ids, "known": int(use.known.sum()), "customers": use.customers}
        for (file, column), use in sorted(uses.items())
    ]


def check_ledger(summary: dict[str, Any]) -> list[str]:
    """The equations of a summary that do not hold, with their numbers; empty when all hold."""
    problems: list[str] = []
    rows, dead = summary["customers"], summary["customers"]["dead_lettered"]
    _check_sum(problems, "rows read = evaluated + dead-lettered", rows["rows"], [rows["evaluated"], *dead.values()])
    by_campaign: Counter[str] = Counter()
    by_retailer: Counter[str] = Counter()
    for campaign_id, retailer_id, _, _, _, _, number in summary["ledger"]:
        by_campaign[campaign_id] += number
        by_retailer[retailer_id] += number
    for campaign in summary["campaigns"]:
        name, matched = campaign["id"], campaign["matched"]
        parts = [campaign["not_matched"], matched]
        _check_sum(problems, f"{name}: evaluated = not matched + matched", campaign["evaluated"], parts)
        parts = [n for outcome in _NOT_EMITTED for n in campaign[outcome].values()]
        text = f"{name}: matched = held out + outside + suppressed + dead-lettered + emitted"
        _check_sum(problems, text, matched, [*parts, campaign["emitted"]])
        _check_sum(problems, f"{name}: matched = the sum of its exposures", matched, [by_campaign[name]])
    for retailer in summary["retailers"]:
        name, matched = retailer["id"], retailer["matched"]
        _check_sum(problems, f"{name}: matched = its outcomes", matched, [retailer[outcome] for outcome in _OUTCOMES])
        _check_sum(problems, f"{name}: matched = the sum of its exposures", matched, [by_retailer[name]])
    return problems


def _check_sum(problems: list[str], name: str, left: int, right: Iterable[int]) -> None:
    numbers = list(right)
    if left != sum(numbers):
        problems.append(f"{name}: {left:,} is not {' + '.join(f'{n:,}' for n in numbers)} = {sum(numbers):,}")
