"""Why a customer was or was not sent a campaign: every step with the values it saw, and what the vendor said."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa

from connectors.inputs.lists import read_list
from pipelines.launch.inputs import LaunchJob
from pipelines.operations.deliveries import receipt_folders
from pipelines.operations.why_delivered import delivery_facts
from pipelines.operations.why_suppressed import exhaustion_facts, suppression_facts
from schemas.campaigns.campaign import Experiment
from schemas.columns.ids import id_texts
from schemas.elements import CustomerBatch
from schemas.problems import InputError, Problem
from stores.launches.snapshot import find_customers
from transforms.audience.conditions import Checker
from transforms.audience.evaluate_audience import make_evaluator
from transforms.audience.tree import NodeCount, Tree
from transforms.experiments.assignment import bucket, bucket_ranges, choose, in_ranges, normalise, scheme_ranges
from transforms.launch_plan import CampaignPlan, single_campaign


def why(job: LaunchJob, customer: str, campaign: str, receipts: Sequence[str] = ()) -> Iterator[str]:
    """Lines that tell it, for each retailer that the customer belongs to.

    `receipts` are folders; the launch's own delivery/receipts is looked at when none is given and it is there.
    """
    if campaign not in {entry.campaign.id for entry in job.plan.campaigns}:
        names = ", ".join(entry.campaign.id for entry in job.plan.campaigns)
        raise InputError([Problem("command line", "CAMPAIGN", campaign, f"this launch has: {names}")])
    rows = find_customers(job.snapshot, job.plan.engine.columns.customer, customer)
    if not rows.num_rows:
        fix = "the snapshot of this launch has no such customer; check the id, and dead_letters/"
        raise InputError([Problem(job.snapshot.source, job.plan.engine.columns.customer, customer, fix)])
    entry, retailers = job.plan.campaign_plan(campaign), id_texts(rows[job.plan.engine.columns.retailer]).to_pylist()
    for place in sorted(range(rows.num_rows), key=lambda place: not entry.covers(retailers[place])):
        yield from _one(job, rows.slice(place, 1), entry, receipt_folders(job, receipts))
        yield ""


def _one(job: LaunchJob, row: pa.Table, entry: CampaignPlan, receipts: Sequence[str]) -> Iterator[str]:
    columns = job.plan.engine.columns
    values = row.to_pylist()[0]
    customer, retailer = (str(id_texts(row[name])[0]) for name in (columns.customer, columns.retailer))
    exposure = _exposure(job, entry.campaign.id, retailer, customer)
    delivered: list[str] = []
    if receipts and exposure is not None and exposure["outcome"] == "emitted":
        delivered = list(delivery_facts(receipts, exposure["event_id"], job.plan.engine.time_zone(retailer)))
    plan = single_campaign(job.plan, entry.campaign.id)
    evaluate = make_evaluator(plan, lambda file, column: read_list(job.config.campaigns / file, column, file))
    batch = row.select(list(plan.columns)).combine_chunks().to_batches()[0]
    counts = evaluate(CustomerBatch("why", batch)).counts["nodes"][entry.campaign.id]
    verdict = "this row was refused: see dead_letters/" if not counts[0].entered else _verdict(exposure, counts[0])
    yield f"{customer} of {retailer}, campaign {entry.campaign.id}: {verdict}"
    if not counts[0].entered:
        return
    yield "  audience"
    yield from _tree(entry.tree, iter(counts), Checker(job.snapshot.schema), values, 2)
    yield "  assignment"
    yield from _buckets(job, entry, values, retailer)
    yield "  suppression"
    yield from suppression_facts(job, entry, values, exposure)
    yield from exhaustion_facts(job, entry, retailer, customer)
    if exposure is not None:
        yield from _told(exposure)
    yield from ["  delivery", *delivered] if delivered else []


def _exposure(job: LaunchJob, campaign: str, retailer: str, customer: str) -> dict[str, Any] | None:
    if not job.folder.done():
        return None
    found = (
        job.folder.open_exposures(job.folder.done())
        .sql(
            "SELECT * FROM exposures WHERE campaign_id = ? AND retailer_id = ? AND customer_id = ?",
            params=[campaign, retailer, customer],
        )
        .to_arrow_table()
    )
    return None if not found.num_rows else dict(found.to_pylist()[0])


def _verdict(exposure: dict[str, Any] | None, whole: NodeCount) -> str:
    if exposure is None:
        return "matches, but its batch is not done: resume the launch" if whole.passed else "not sent, does not match"
    verdict = str(exposure["outcome"]).replace("_", " ")
    return verdict + (f" ({exposure['reason']})" if exposure["reason"] else "")


def _tree(
    tree: Tree, counts: Iterator[NodeCount], checker: Checker, values: dict[str, Any], depth: int
) -> Iterator[str]:
    own = next(counts)
    mark = "-" if not own.entered else "yes" if own.passed else "no"
    seen = ""
    if tree.leaf is not None:
        names = sorted(checker.columns(tree.leaf.sql)) if tree.leaf.sql else [tree.leaf.column]
        seen = "   saw " + ", ".join(f"{name} = {values.get(name)!r}" for name in names)
        seen += "   (the condition raised an error)" if own.failed else ""
    yield f"{'  ' * depth}{mark:4}{tree.label}{seen}"
    for child in tree.children:
        yield from _tree(child, counts, checker, values, depth + 1)


def _buckets(job: LaunchJob, entry: CampaignPlan, values: dict[str, Any], retailer: str) -> Iterator[str]:
    """Each hash of the assignment, as a bucket from 0 to 1, with the range it is held against."""
    rules = job.plan.engine.holdouts
    unit = values.get(rules.global_.unit)
    if rules.global_.share:
        found = bucket("growthbook/2", rules.global_.seed, unit)
        yield f"    global holdout    {_held(found, rules.global_.share)}"
    share = rules.retailers.get(retailer, rules.retailers.get("*", 0.0))
    if share:
        found = bucket("growthbook/2", f"{rules.global_.seed}:{retailer}", unit)
        yield f"    retailer holdout  {_held(found, share)}"
    experiment = entry.campaign.experiment
    if experiment is None:
        return
    unit = values.get(experiment.unit)
    if experiment.namespace:
        space = experiment.namespace
        own = values.get(space.unit) if space.unit else unit
        scheme, seed = space.hashing
        inside = in_ranges(scheme, seed, own, space.all_ranges)
        held = f"bucket {bucket(scheme, seed, own)} in {list(map(list, space.all_ranges))}"
        yield f"    namespace         {space.key}: {held}: {'inside' if inside else 'outside'}"
    if experiment.holdout:
        found = bucket("growthbook/2", f"{experiment.key}:holdout", unit)
        yield f"    campaign holdout  {_held(found, experiment.holdout)}"
    scheme, seed = experiment.hash, experiment.seed or experiment.key
    found = normalise(scheme, bucket(scheme, seed, unit))
    yield f"    variant           bucket {found} of {scheme}, seed {seed!r}: {_range(experiment, unit)}"


def _range(experiment: Experiment, unit: object) -> str:
    """The variant whose range the hash of a unit is in, by the edges of the scheme's own product."""
    weights, scheme = experiment.weights, experiment.hash
    hashed = bucket(scheme, experiment.seed or experiment.key, unit)
    chosen = choose(scheme_ranges(scheme, len(weights), experiment.coverage, weights), hashed)
    if chosen < 0:
        return "in no variant's range"
    low, high = bucket_ranges(len(weights), experiment.coverage, weights)[chosen]
    return f"in that of {experiment.variants[chosen].key!r}, {low:g} to {high:g}"


def _held(found: float | int | None, share: float) -> str:
    out = found is not None and found < share
    return f"bucket {found}, held out below {share}: {'held out' if out else 'not held out'}"


def _told(exposure: dict[str, Any]) -> Iterator[str]:
    """What was written down for the customer."""
    yield "  recorded"
    for name in ("variant", "assigned_by", "suppression", "offers", "codes", "event_id", "deliver_after"):
        if exposure[name] not in (None, []):
            yield f"    {name:14}{exposure[name]}"
