"""find_warnings: the warnings of a launch, from the sums over its batches."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from schemas.campaigns.engine import EngineConfig
from schemas.elements import OfferCount
from schemas.problems import plural
from transforms.audience.tree import NodeCount, Tree
from transforms.launch_plan import MARKETPLACE, CampaignPlan, Plan
from transforms.warnings.evidence import FORCED
from transforms.warnings.history_and_sticky import unmatched_entries
from transforms.warnings.warning import ENGINE, LaunchWarning, join_names

if TYPE_CHECKING:
    from transforms.reconciliation.totals import Totals

_TEXTS = {
    "condition_failed": "{n} customers make this condition raise an error, such as {who} ({why}). They do not match. "
    "Correct the column, or write what they mean (TRY_CAST, CASE).",
    "property_failed": "{n} of {matched} matched customers make this property raise an error, such as {who} ({why}). "
    "Their events have no such property. Correct the column, or write what they mean (TRY_CAST, CASE).",
    "property_null": "{n} of {matched} matched customers have no value here, such as {who}. Their events have no such "
    "property. Give a default: coalesce(…, 'friend').",
    "when_failed": "{n} of {matched} matched customers make this condition raise an error, such as {who} ({why}). They "
    "do not get the offer. Correct the column, or write what they mean (TRY_CAST, CASE).",
    "when_null": "{n} of {matched} matched customers have no value here, such as {who}. They do not get the offer. Say "
    "what no value means: coalesce(…, 0).",
}  # fmt: skip


def find_warnings(plan: Plan, totals: Totals, finished: bool = True) -> list[LaunchWarning]:
    """All warnings: of the launch, its lists, retailers and columns, then campaign by campaign.

    A launch that is not `finished` has only the warnings that its other customers cannot disprove.
    """
    warnings = [*plan.warnings, *_time_zones(plan, totals)]
    if finished:
        warnings += _launch(plan, totals)
        warnings += _lists(plan, totals)
        warnings += unmatched_entries(totals.history, totals.sticky) if totals.evaluated else ()
        warnings += _retailers(plan.engine, totals.evaluated) if totals.evaluated else ()
    for entry in plan.campaigns:
        if entry.campaign.id in totals.nodes:
            counts = [NodeCount(*count) for count in totals.nodes[entry.campaign.id]]
            warnings += _expressions(entry, counts[0].passed, totals)
            warnings += _campaign(entry, counts, totals) if finished and counts[0].entered else ()
    return warnings


def _time_zones(plan: Plan, totals: Totals) -> Iterator[LaunchWarning]:
    """The texts of the matched customers that name no time zone, the most frequent first."""
    values = sorted(totals.unknown_time_zones.items(), key=lambda item: (-item[1][0], item[0]))
    if values:
        customers = sum(number for _, (number, _) in values)
        counts = join_names([f"{value} {number:,} (such as {example})" for value, (number, example) in values])
        text = f"{customers:,} customers have no known time zone here: {counts}. Their retailer's was used. Correct it."
        column, example = plan.engine.columns.time_zone or "", values[0][1][1]
        yield LaunchWarning("unknown_time_zone", "", ENGINE, "columns.time_zone", column, customers, example, text)


def _launch(plan: Plan, totals: Totals) -> Iterator[LaunchWarning]:
    evaluated = sum(totals.evaluated.values())
    emitted = sum(n for (_, outcome, _), n in totals.outcomes.items() if outcome == "emitted")
    if not evaluated:
        text = "No row became a customer, so nobody is sent anything. See the dead letters, and correct the source."
        yield LaunchWarning("no_customers", "", "--customers", "rows", f"{totals.read:,} rows", totals.read, "", text)
    elif not emitted:
        names = join_names([entry.campaign.id for entry in plan.campaigns])
        text = f"Nobody is sent anything by {names}. Look at each campaign's numbers."
        yield LaunchWarning("no_events", "", "--campaigns", "", names, evaluated, "", text)


def _lists(plan: Plan, totals: Totals) -> Iterator[LaunchWarning]:
    """The lists of which no id is a customer."""
    first: dict[tuple[str, str], tuple[str, str, str]] = {}
    for entry in plan.campaigns:
        for node in entry.tree.nodes():
            if node.leaf is not None and node.leaf.file:
                file, _, field = node.place.rpartition(": ")
                first.setdefault((node.leaf.file, node.leaf.column), (entry.campaign.id, file or entry.file, field))
    for index, listing in enumerate(plan.engine.suppression_lists):
        first[listing.file, listing.column] = ("", ENGINE, f"suppression_lists.{index}.file")
    for key, use in {**totals.lists, **totals.suppression_lists}.items():
        if not use.customers and totals.evaluated:
            text = f"None of its {use.ids:,} ids, such as {use.first!r}, is in the customers' column {key[1]}: nobody "
            text += "is on this list. Check the file, and the column that it is looked up by."
            yield LaunchWarning("list_matches_nobody", *first[key], key[0], use.ids, use.first, text)


def _retailers(engine: EngineConfig, known: Collection[str]) -> Iterator[LaunchWarning]:
    """The retailers of engine.yaml that have no customers."""
    named: dict[str, Iterable[str]] = {
        "retailers": engine.retailers,
        "holdouts.retailers": engine.holdouts.retailers,
        "workspaces": engine.workspaces,
    }
    for field, configured in named.items():
        unknown = [name for name in configured if name != "*" and name not in known]
        if unknown:
            names, count = join_names(unknown), len(unknown)
            text = f"No customer is of {names}, so this has no effect. {_spelling(unknown, known)}"
            yield LaunchWarning("unknown_retailer", "", ENGINE, field, names, count, unknown[0], text)


def _spelling(unknown: Sequence[str], known: Iterable[str]) -> str:
    near = difflib.get_close_matches(unknown[0], list(known), n=1)
    return f"Did you mean {near[0]}?" if near else "Check the spelling, or remove it."


def _expressions(entry: CampaignPlan, matched: int, totals: Totals) -> Iterator[LaunchWarning]:
    """The conditions and properties that were NULL or raised an error."""
    for (kind, campaign, place, value), (number, example, why) in totals.evidence.entries.items():
        if campaign == entry.campaign.id and kind != FORCED:
            text = _TEXTS[kind].format(n=f"{number:,}", matched=f"{matched:,}", who=example, why=why)
            yield entry.warning(kind, place, value, number, example, text)


def _campaign(entry: CampaignPlan, counts: list[NodeCount], totals: Totals) -> Iterator[LaunchWarning]:
    """The parts of a campaign that nobody reaches."""
    campaign = entry.campaign
    yield from _scope(entry, counts[1].passed, totals.evaluated)
    yield from _forced(entry, totals)
    unused_lists = {f"{column} in {file}" for (file, column), use in totals.lists.items() if not use.customers}
    yield from (warning for warning in _nodes(entry, counts) if warning.value not in unused_lists)
    outcomes = {(outcome, reason): n for (of, outcome, reason), n in totals.outcomes.items() if of == campaign.id}
    if any(outcome == "emitted" for outcome, _ in outcomes):
        yield from _variants(entry, totals)
        yield from _offers(entry, totals)
    elif counts[0].passed:
        reasons = join_names([f"{reason} {n:,}" for (_, reason), n in outcomes.items()])
        text = f"None of the {counts[0].passed:,} matched customers is sent anything ({reasons}). Look at the reasons."
        yield entry.warning("campaign_sends_nothing", "id", campaign.id, counts[0].passed, "", text)


def _scope(entry: CampaignPlan, customers: int, known: Collection[str]) -> Iterator[LaunchWarning]:
    """A campaign that is for nobody, or for a retailer without customers."""
    campaign = entry.campaign
    retailers = [name for name in campaign.retailers if name != "*"]
    if not customers:
        if campaign.surface == MARKETPLACE:
            why = f"a marketplace campaign is for the retailer {MARKETPLACE}: write no retailers:, and see --customers"
        elif MARKETPLACE in retailers:
            why = f"customers of {MARKETPLACE} are reached by surface: marketplace alone"
        else:
            why = _spelling(retailers or [campaign.surface], known)
        text = f"The campaign is for nobody: no customer is of these retailers on the surface {campaign.surface}. {why}"
        yield entry.warning("empty_scope", "retailers", join_names(campaign.retailers), 0, "", text)
        return
    unknown = [name for name in retailers if name not in known or not entry.covers(name)]
    if unknown:
        text = f"No customer of {join_names(unknown)} is on the surface {campaign.surface}. {_spelling(unknown, known)}"
        yield entry.warning("unknown_retailer", "retailers", join_names(unknown), len(unknown), unknown[0], text)


def _nodes(entry: CampaignPlan, counts: list[NodeCount]) -> Iterator[LaunchWarning]:
    """The outermost nodes of the audience that nobody passes or reaches; none of the nodes that follow from them."""
    by_node = {id(node): count for node, count in zip(entry.tree.nodes(), counts, strict=True)}
    ending = "" if counts[0].passed else " So the campaign matches nobody."
    scope, *nodes = entry.tree.children
    for tree in nodes if by_node[id(scope)].passed else ():
        for kind, node, count, text in _nodes_below(tree, by_node):
            yield entry.warning(kind, node.place, node.label, count, "", text + ending)


def _nodes_below(node: Tree, counts: dict[int, NodeCount]) -> Iterator[tuple[str, Tree, int, str]]:
    """The kind, node, number of customers and text of each warning about a node and those below it."""
    count = counts[id(node)]
    if not count.entered:
        return
    entered = plural(count.entered, "customer")
    if node.kind == "audience" and not count.passed:
        text = f"None of the {entered} that come here is in the audience {node.label}. Check its conditions."
        yield "audience_matches_nobody", node, count.entered, text
        return
    if node.leaf is not None and not count.passed:
        what = "is on this list" if node.kind == "list" else "meets this condition"
        text = f"None of the {entered} that come here {what}. Check it against the column's values, or remove it."
        yield "node_matches_nobody", node, count.entered, text
    if node.kind == "not" and not count.passed:
        text = f"This excludes all of the {entered} that come here. Check what is below it."
        yield "node_matches_nobody", node, count.entered, text
        return
    for child in node.children:
        if node.kind == "any" and not counts[id(child)].entered:
            text = f"Nobody comes here: all {entered} pass one of the nodes before it. Remove it, or those."
            yield "node_not_reached", child, count.entered, text
            return
        yield from _nodes_below(child, counts)


def _forced(entry: CampaignPlan, totals: Totals) -> Iterator[LaunchWarning]:
    """The forced units that no customer has."""
    experiment = entry.campaign.experiment
    forced = (FORCED, entry.campaign.id)
    known = {unit for kind, campaign, _, unit in totals.evidence.entries if (kind, campaign) == forced}
    if experiment and (unknown := [unit for unit in experiment.force if unit not in known]):
        names = join_names(unknown)
        text = f"No customer's {experiment.unit} is {names}, so this forces nobody. Check the spelling, or remove it."
        yield entry.warning("forced_nobody", "experiment.force", names, len(unknown), unknown[0], text)


def _variants(entry: CampaignPlan, totals: Totals) -> Iterator[LaunchWarning]:
    """The variants with a weight that nobody was assigned."""
    experiment = entry.campaign.experiment
    weights = experiment.weights if experiment else []
    empty = [n for n, weight in enumerate(weights) if weight and not totals.variants[entry.campaign.id, n]]
    if experiment and empty:
        names = join_names([experiment.variants[n].key for n in empty])
        text = f"Nobody is assigned {names}. Check the namespace, the coverage and the weights, and how many match."
        yield entry.warning("variant_reaches_nobody", "experiment.variants", names, len(empty), "", text)


def _offers(entry: CampaignPlan, totals: Totals) -> Iterator[LaunchWarning]:
    """The offers that nobody is granted, without those that are only a fallback."""
    campaign = entry.campaign
    variants = campaign.experiment.variants if campaign.experiment else ()
    used = {*campaign.content.offers, *(offer for variant in variants for offer in variant.offers)}
    counts = totals.offers.get(campaign.id, {})
    for index, offer in enumerate(campaign.offers):
        count = OfferCount(*counts.get(offer.id, ()))
        unmet = count.condition_not_met
        only_fallback = offer.id not in used and any(other.fallback == offer.id for other in campaign.offers)
        if count.granted or count.fallback_granted or only_fallback:
            continue
        if offer.id not in used:
            why = "No variant and no content names it"
        elif unmet:
            why = f"None of {unmet:,} customers meets its condition"
        else:
            why = "Nobody is sent the variant or the content that has it, or its budget is 0"
        text = f"Nobody is given this offer. {why}. Correct that, or remove the offer."
        yield entry.warning("offer_reaches_nobody", f"offers.{index}", offer.id, unmet, "", text)
