"""A launch in this process without Beam: any folder and customers, batch by batch through the steps."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
from support.factories import any_customers, any_folder

from pipelines.launch.worker_files import WorkerFiles
from schemas.campaigns.configuration import load_configuration
from schemas.elements import CampaignRows, CustomerBatch, LaunchBatch
from schemas.outcomes import OUTCOMES
from stores.launches.survey_results import (
    ALLOCATIONS,
    PLACES,
    SHARED_ADDRESSES,
    SUPERSEDED,
    write_decisions,
    write_duplicates,
)
from transforms.audience.evaluate_audience import make_evaluator
from transforms.experiments.assign_variants import make_assigner
from transforms.launch_plan import Plan, make_plan
from transforms.offers.generate_offers import OfferGenerator
from transforms.suppression.suppress import Suppressor

LAUNCHED_AT = 1_775_000_000_000


def any_plan(root: Path, *campaigns: dict[str, Any], customers: pa.Table | None = None, **folder: Any) -> Plan:
    """The plan of campaigns, which must be sound."""
    config, problems = load_configuration(any_folder(root, *campaigns, **folder))
    assert config is not None
    assert problems == []
    table = any_customers() if customers is None else customers
    plan, mistakes = make_plan(config, table.schema, "launch-1", LAUNCHED_AT)
    assert mistakes == []
    return plan


def batch_of(customers: pa.Table, name: str = "00000-000") -> CustomerBatch:
    """All customers as one batch."""
    return CustomerBatch(name, customers.combine_chunks().to_batches()[0])


def stepped(plan: Plan, customers: pa.Table, **inputs: Any) -> LaunchBatch:
    """The batch after the offers were generated, from the `inputs` of `steps`."""
    batch: Any = batch_of(customers.select([name for name in customers.column_names if name in plan.columns]))
    for step in steps(plan, **inputs):
        batch = step(batch)
    return batch


def steps(
    plan: Plan,
    *,
    duplicates: Mapping[str, Any] | None = None,
    sticky: str | None = None,
    history: tuple[str, ...] = (),
    superseded: Mapping[str, Any] | None = None,
    allocations: Mapping[tuple[str, str], Any] | None = None,
    offer_capacity: Mapping[tuple[str, str], int] | None = None,
) -> list[Callable[[Any], LaunchBatch]]:
    """The functions of the steps up to GenerateOffers, in their order."""
    output = Path(tempfile.mkdtemp())
    survey = output / "survey"
    survey.mkdir()
    places = [{"batch": batch, "row": row} for batch, rows in (duplicates or {}).items() for row in rows]
    write_duplicates(survey, pa.Table.from_pylist(places, PLACES), SHARED_ADDRESSES.empty_table())
    superseded_rows = [
        {"campaign": campaign, "batch": batch, "row": row}
        for batch, campaigns in (superseded or {}).items()
        for campaign, rows in campaigns.items()
        for row in rows
    ]
    granted = [{"campaign": c, "offer": o, "keys": keys.tolist()} for (c, o), keys in (allocations or {}).items()]
    write_decisions(
        survey, pa.Table.from_pylist(superseded_rows, SUPERSEDED), pa.Table.from_pylist(granted, ALLOCATIONS)
    )
    columns = plan.engine.columns
    worker = WorkerFiles(
        output=str(output),
        campaigns=Path(plan.root),
        ids=(columns.retailer, columns.customer),
        history=history,
        sticky=sticky,
        code_secret=plan.engine.code_secret,
    )
    return [
        make_evaluator(plan, worker.read_list, worker.read_duplicates),
        make_assigner(plan, worker.read_sticky),
        Suppressor(plan, worker.read_list, worker.read_sends, worker.read_superseded),
        OfferGenerator(plan, offer_capacity or {}, worker.read_allocations, worker.read_codes, worker.read_secret),
    ]


def outcomes(batch: LaunchBatch, rows: CampaignRows | None = None) -> dict[str, str]:
    """customer → 'emitted' or 'outcome/reason', of a campaign's matched customers (the first campaign's)."""
    rows = rows or batch.campaigns[0]
    names = ["/".join(filter(None, OUTCOMES[code])) for code in rows.outcome.tolist()]
    return dict(zip(rows.customer.to_pylist(), names, strict=True))


def variants(plan: Plan, batch: LaunchBatch) -> dict[str, str | None]:
    """customer → variant key of the first campaign."""
    rows = batch.campaigns[0]
    experiment = plan.campaigns[0].campaign.experiment
    keys: list[str | None] = [*(v.key for v in experiment.variants), None] if experiment else [None]
    return dict(zip(rows.customer.to_pylist(), (keys[v] for v in rows.variant.tolist()), strict=True))
