"""Explain why a customer was or was not sent a campaign: each step with the values it saw, and the receipts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
import pyarrow as pa

from connectors.inputs.lists import read_list
from pipelines.launch.inputs import LaunchJob, open_launch
from pipelines.operations.deliveries import receipt_folders
from pipelines.operations.why_suppressed import Fact, exhaustion_facts, suppression_facts
from schemas.campaigns.campaign import Experiment
from schemas.columns.ids import id_texts
from schemas.elements import CustomerBatch
from schemas.problems import InputError, Problem
from stores.deliveries.receipts import find_receipts
from stores.launches.launch_folder import LaunchFolder
from stores.launches.snapshot import find_customers
from transforms.audience.conditions import Checker
from transforms.audience.evaluate_audience import make_evaluator
from transforms.audience.tree import NodeCount, Tree
from transforms.experiments.assignment import bucket, bucket_ranges, choose, in_ranges, normalise, scheme_ranges
from transforms.launch_plan import CampaignPlan, single_campaign

_RECORDED = ("variant", "assigned_by", "suppression", "offers", "codes", "event_id", "deliver_after")


class Condition(msgspec.Struct):
    """A node of the audience: whether the customer passed (None: not reached), the values that it saw, and whether it
    raised an error."""

    label: str
    passed: bool | None
    saw: dict[str, Any] | None
    failed: bool
    children: list[Condition]


class EventReceipt(msgspec.Struct):
    """A receipt of an event (times in epoch milliseconds), and how many times it was written: it counts once."""

    outcome: str
    reason: str | None
    settled_at: int
    arrived_at: int
    workspace: str
    batch_id: str | None
    vendor_id: str | None
    attempt: int
    resent: bool
    written: int


class Explanation(msgspec.Struct):
    """Why a customer of a retailer was or was not sent a campaign.

    `audience` is None for a row that was refused; `recorded` has what the exposure holds; `receipts` is None unless an
    event was emitted and there are receipts to look at. Times are in `time_zone`.
    """

    customer: str
    retailer: str
    campaign: str
    verdict: str
    time_zone: str
    audience: Condition | None = None
    assignment: list[Fact] = []
    suppression: list[Fact] = []
    recorded: dict[str, Any] = {}
    receipts: list[EventReceipt] | None = None


def why(launch: str, customer: str, campaign: str, receipts: Sequence[str] = ()) -> list[Explanation]:
    """An explanation for each retailer that the customer belongs to, those of the campaign first.

    `receipts` are folders; the default is the launch's own delivery/receipts, if it exists. Raises InputError for a
    campaign or a customer that the launch does not have.
    """
    job = open_launch(LaunchFolder(launch))
    if campaign not in {entry.campaign.id for entry in job.plan.campaigns}:
        names = ", ".join(entry.campaign.id for entry in job.plan.campaigns)
        raise InputError([Problem("command line", "CAMPAIGN", campaign, f"this launch has: {names}")])
    rows = find_customers(job.snapshot, job.plan.engine.columns.customer, customer)
    if not rows.num_rows:
        fix = "the snapshot of this launch has no such customer; check the id, and dead_letters/"
        raise InputError([Problem(job.snapshot.source, job.plan.engine.columns.customer, customer, fix)])
    entry, retailers = job.plan.campaign_plan(campaign), id_texts(rows[job.plan.engine.columns.retailer]).to_pylist()
    places = sorted(range(rows.num_rows), key=lambda place: not entry.covers(retailers[place]))
    folders = receipt_folders(job, receipts)
    return [_explain(job, rows.slice(place, 1), entry, folders) for place in places]


def _explain(job: LaunchJob, row: pa.Table, entry: CampaignPlan, folders: Sequence[str]) -> Explanation:
    columns, campaign = job.plan.engine.columns, entry.campaign.id
    values = row.to_pylist()[0]
    customer, retailer = (str(id_texts(row[name])[0]) for name in (columns.customer, columns.retailer))
    exposure = _exposure(job, campaign, retailer, customer)
    time_zone = job.plan.engine.time_zone(retailer)
    counts = _evaluate(job, campaign, row)
    if not counts[0].entered:
        return Explanation(customer, retailer, campaign, "this row was refused: see dead_letters/", time_zone)
    emitted = exposure is not None and exposure["outcome"] == "emitted"
    return Explanation(
        customer,
        retailer,
        campaign,
        _verdict(exposure, counts[0]),
        time_zone,
        audience=_conditions(entry.tree, iter(counts), Checker(job.snapshot.schema), values),
        assignment=list(_buckets(job, entry, values, retailer)),
        suppression=[
            *suppression_facts(job, entry, values, exposure),
            *exhaustion_facts(job, entry, retailer, customer),
        ],
        recorded={name: exposure[name] for name in _RECORDED if exposure[name] not in (None, [])} if exposure else {},
        receipts=_event_receipts(folders, exposure["event_id"]) if exposure and emitted and folders else None,
    )


def _event_receipts(folders: Sequence[str], event_id: str) -> list[EventReceipt]:
    """The receipts of an event in the order of their times, each once."""
    counts = Counter(find_receipts(folders, event_id))
    return [msgspec.convert({**receipt._asdict(), "written": count}, EventReceipt) for receipt, count in counts.items()]


def _evaluate(job: LaunchJob, campaign: str, row: pa.Table) -> list[NodeCount]:
    """The counts of the campaign's audience for one customer."""
    plan = single_campaign(job.plan, campaign)
    evaluate = make_evaluator(plan, lambda file, column: read_list(job.config.campaigns / file, column, file))
    batch = row.select(list(plan.columns)).combine_chunks().to_batches()[0]
    counts: list[NodeCount] = evaluate(CustomerBatch("why", batch)).counts["nodes"][campaign]
    return counts


def _exposure(job: LaunchJob, campaign: str, retailer: str, customer: str) -> dict[str, Any] | None:
    if not job.folder.done():
        return None
    rows = (
        job.folder.open_exposures(job.folder.done())
        .sql(
            "SELECT * FROM exposures WHERE campaign_id = ? AND retailer_id = ? AND customer_id = ?",
            params=[campaign, retailer, customer],
        )
        .to_arrow_table()
    )
    return dict(rows.to_pylist()[0]) if rows.num_rows else None


def _verdict(exposure: dict[str, Any] | None, whole: NodeCount) -> str:
    if exposure is None:
        return "matches, but its batch is not done: resume the launch" if whole.passed else "not sent, does not match"
    verdict = str(exposure["outcome"]).replace("_", " ")
    return verdict + (f" ({exposure['reason']})" if exposure["reason"] else "")


def _conditions(tree: Tree, counts: Iterator[NodeCount], checker: Checker, values: dict[str, Any]) -> Condition:
    count, saw = next(counts), None
    if tree.leaf is not None:
        names = sorted(checker.columns(tree.leaf.sql)) if tree.leaf.sql else [tree.leaf.column]
        saw = {name: values.get(name) for name in names}
    passed = bool(count.passed) if count.entered else None
    children = [_conditions(child, counts, checker, values) for child in tree.children]
    return Condition(tree.label, passed, saw, bool(count.failed), children)


def _buckets(job: LaunchJob, entry: CampaignPlan, values: dict[str, Any], retailer: str) -> Iterator[Fact]:
    """Each hash of the assignment, as a bucket from 0 to 1, with the range that it is compared with."""
    rules = job.plan.engine.holdouts
    unit = values.get(rules.global_.unit)
    if rules.global_.share:
        number = bucket("growthbook/2", rules.global_.seed, unit)
        yield Fact("global holdout", _compare(number, rules.global_.share))
    share = rules.retailers.get(retailer, rules.retailers.get("*", 0.0))
    if share:
        number = bucket("growthbook/2", f"{rules.global_.seed}:{retailer}", unit)
        yield Fact("retailer holdout", _compare(number, share))
    experiment = entry.campaign.experiment
    if experiment is None:
        return
    unit = values.get(experiment.unit)
    if experiment.namespace:
        space = experiment.namespace
        value = values.get(space.unit) if space.unit else unit
        scheme, seed = space.hashing
        inside = in_ranges(scheme, seed, value, space.all_ranges)
        compared = f"bucket {bucket(scheme, seed, value)} in {list(map(list, space.all_ranges))}"
        yield Fact("namespace", f"{space.key}: {compared}: {'inside' if inside else 'outside'}")
    if experiment.holdout:
        number = bucket("growthbook/2", f"{experiment.key}:holdout", unit)
        yield Fact("campaign holdout", _compare(number, experiment.holdout))
    scheme, seed = experiment.hash, experiment.seed or experiment.key
    number = normalise(scheme, bucket(scheme, seed, unit))
    yield Fact("variant", f"bucket {number} of {scheme}, seed {seed!r}: {_range(experiment, unit)}")


def _range(experiment: Experiment, unit: object) -> str:
    """The variant whose range the hash of a unit is in, by the edges of the scheme's own product."""
    weights, scheme = experiment.weights, experiment.hash
    hashed = bucket(scheme, experiment.seed or experiment.key, unit)
    chosen = choose(scheme_ranges(scheme, len(weights), experiment.coverage, weights), hashed)
    if chosen < 0:
        return "in no variant's range"
    low, high = bucket_ranges(len(weights), experiment.coverage, weights)[chosen]
    return f"in that of {experiment.variants[chosen].key!r}, {low:g} to {high:g}"


def _compare(number: float | int | None, share: float) -> str:
    out = number is not None and number < share
    return f"bucket {number}, held out below {share}: {'held out' if out else 'not held out'}"
