"""Warnings about inputs: the launch's own steps up to Suppress are counted, and nothing is published."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import apache_beam as beam
import pyarrow as pa
from apache_beam.options.pipeline_options import PipelineOptions

from connectors.files.whole_file import write_whole
from connectors.inputs.lists import read_list
from pipelines.launch.inputs import LaunchJob
from pipelines.launch.pipeline import run_to_suppress
from schemas.campaigns.configuration import Configuration
from schemas.elements import CustomerBatch, LaunchBatch
from schemas.problems import plural
from stores.launches.snapshot import parts, read_part, take_snapshot
from transforms.audience.evaluate_audience import make_evaluator
from transforms.customers.read_customers import batch_name
from transforms.experiments.assign_variants import make_assigner
from transforms.launch_plan import Plan, id_columns, make_plan
from transforms.offers.generate_offers import demand
from transforms.reconciliation.record_exposures import batch_counts
from transforms.reconciliation.totals import Totals, list_summaries
from transforms.suppression.suppress import Suppressor
from transforms.warnings.configuration import ended_campaigns, unused_audiences
from transforms.warnings.find import find_warnings
from transforms.warnings.warning import refusal


def input_warnings(config: Configuration, customers: str | None) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The warnings, and how many ids of each list are customers; without customers only warnings that need none.

    The configuration and the columns must be sound. Raises InputError for a source that cannot be read.
    """
    if customers is None:
        found = [*unused_audiences(config), *ended_campaigns(config, _now())]
        return [vars(warning) for warning in found], []
    plan, totals = _count(config, customers)
    return [vars(warning) for warning in find_warnings(plan, totals)], list_summaries(totals)


def _now() -> int:
    return int(time.time() * 1000)


def _count(config: Configuration, customers: str) -> tuple[Plan, Totals]:
    """The sums over all customers as of now, without histories, sticky assignments and a search for duplicates."""
    with tempfile.TemporaryDirectory(prefix="campaigns-validate-") as folder:
        snapshot = take_snapshot(customers, Path(folder), id_columns(config))
        plan, _ = make_plan(config, snapshot.schema, "validate", _now())
        read = partial(_read_list, Path(plan.root))
        evaluate, assign, suppress = make_evaluator(plan, read), make_assigner(plan), Suppressor(plan, read)
        totals = Totals()
        for part in parts(snapshot):
            for ordinal, rows in enumerate(read_part(part, plan.columns)):
                batch = CustomerBatch(batch_name(part.number, ordinal), rows)
                totals.add(_counts(plan, suppress(assign(evaluate(batch)))))
        return plan, totals


def _read_list(root: Path, file: str, column: str) -> pa.Array:
    return read_list(root / file, column, file)


def refuse_warnings(job: LaunchJob, options: PipelineOptions) -> None:
    """Raises InputError with every warning that can be known before an event is published.

    A launch that this call started is withdrawn then: its folder is free for the corrected inputs. The batches are
    counted once; the warnings are kept in the survey folder.
    """
    kept = job.folder.survey / "warnings.json"
    if not kept.exists():
        for old in job.folder.survey.glob("counts-*.json"):
            old.unlink()
        keep = partial(_keep_counts, job.plan, job.folder.survey)
        with beam.Pipeline(options=options) as p:
            _ = run_to_suppress(p, job, surveyed=True) | "CountBeforehand" >> beam.Map(keep)
        totals = Totals()
        for path in sorted(job.folder.survey.glob("counts-*.json")):
            totals.add(json.loads(path.read_text()))
        job.folder.write_json(kept, [vars(warning) for warning in find_warnings(job.plan, totals)])
    if warnings := json.loads(kept.read_text()):
        if job.is_new:
            job.folder.withdraw()
        raise refusal(warnings)


def _keep_counts(plan: Plan, folder: Path, batch: LaunchBatch) -> None:
    write_whole(folder / f"counts-{batch.name}.json", [json.dumps(_counts(plan, batch)).encode()])


def _counts(plan: Plan, batch: LaunchBatch) -> dict[str, Any]:
    return batch_counts(batch.with_counts(offers=demand(plan, batch)))


def list_lines(lists: list[dict[str, Any]]) -> Iterator[str]:
    """How many ids of each list are customers, as lines for a terminal."""
    for use in lists:
        known = f"{use['known']:,} of {plural(use['ids'], 'id')}"
        yield f"list {use['file']}: {known} found among the customers (by {use['column']})"
