"""The survey: results that need all customers, written before the first event is published.

Duplicate customers, shared addresses and the allocation of limited offers are exact over all workers. A limited offer
goes only to customers who would be sent it, so the survey runs the launch's own steps up to Suppress over the same
batches, writes the candidates to files, and DuckDB decides among them on disk.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from apache_beam.options.pipeline_options import PipelineOptions

from pipelines.launch.inputs import LaunchJob
from pipelines.launch.pipeline import run_to_suppress
from schemas.columns.ids import id_texts, normal_addresses
from schemas.elements import LaunchBatch
from schemas.problems import InputError, JobError, Problem
from stores.launches import survey_results
from stores.launches.launch_folder import write_parquet
from stores.launches.snapshot import read_part
from transforms.columnar.duplicate_keys import Keys, codes_of, find_duplicate_keys
from transforms.columnar.id_index import IdIndex
from transforms.customers.read_customers import batch_name
from transforms.launch_plan import Plan
from transforms.offers.candidates import SHARING, WANTING, CandidateFinder

Capacity = dict[tuple[str, str], int]
"""How many customers each limited offer can serve, by (campaign, offer)."""


def survey(job: LaunchJob, options: PipelineOptions) -> None:
    """Write the results into the launch's survey folder, unless they are there."""
    folder, capacity = job.folder.survey, job.offer_capacity
    if survey_results.is_complete(folder):
        return
    duplicates, shared_addresses = _find_duplicates(job)
    survey_results.write_duplicates(folder, duplicates, shared_addresses)
    superseded, allocations = survey_results.SUPERSEDED.empty_table(), survey_results.ALLOCATIONS.empty_table()
    if shared_addresses.num_rows or capacity:
        for old in folder.glob("*-*.parquet"):
            old.unlink()
        with beam.Pipeline(options=options) as p:
            batches = run_to_suppress(p, job, only_shared_addresses=not capacity)
            _ = batches | "SurveyCandidates" >> beam.ParDo(_WriteCandidates(job.plan, capacity, folder))
        con = survey_results.working_connection(folder)
        superseded = _find_superseded(con, folder)
        allocations = _allocate_offers(con, job.plan, folder, superseded, capacity)
    survey_results.write_decisions(folder, superseded, allocations)


class _WriteCandidates(beam.DoFn):
    """Writes the candidates of each batch into files of their own."""

    def __init__(self, plan: Plan, capacity: Capacity, folder: Path) -> None:
        self._plan, self._capacity, self._folder = plan, capacity, folder

    def setup(self) -> None:
        addresses = survey_results.read_shared_addresses(self._folder)
        shared = {channel: IdIndex(keys) for channel, keys in addresses.items()}
        self._finder = CandidateFinder(self._plan, shared, self._capacity)

    def process(self, element: LaunchBatch) -> None:
        shared, queued = self._finder.find(element)
        write_parquet(self._folder / f"shared-{element.name}.parquet", shared)
        write_parquet(self._folder / f"queued-{element.name}.parquet", queued)


_CUSTOMER = ""
"""The kind of the customers' own keys; the others are named by their channels."""


def _find_duplicates(job: LaunchJob) -> tuple[pa.Table, pa.Table]:
    """(batch, row) of every row of a customer but the first; (channel, key, batch, row) of all that share an
    address."""
    channels = sorted({entry.campaign.channel for entry in job.plan.campaigns})
    keys = partial(_keys, job, channels)
    try:
        repeated = find_duplicate_keys(keys, [_CUSTOMER, *channels], job.snapshot.rows, job.folder.survey)
    except JobError as error:  # nothing has been sent yet
        raise InputError([Problem(job.config.customers, "--customers", "", str(error))]) from error
    customers = repeated.filter(pc.equal(repeated["kind"], _CUSTOMER))
    _, first = np.unique(codes_of(customers), return_index=True)
    later = np.delete(np.arange(customers.num_rows), first)
    shared = repeated.filter(pc.not_equal(repeated["kind"], _CUSTOMER))
    shared = shared.rename_columns(["channel", "key", "batch", "row"])
    return customers.take(pa.array(later)).select(["batch", "row"]), shared


def _keys(job: LaunchJob, channels: list[str]) -> Iterator[tuple[str, Keys]]:
    """(retailer, id) and (retailer, address) of all rows, batch by batch."""
    columns, engine = job.plan.engine.columns, job.plan.engine
    addresses = {channel: engine.channels[channel].address for channel in channels}
    wanted = list(dict.fromkeys([columns.retailer, columns.customer, *addresses.values()]))
    for part in job.parts:
        for ordinal, batch in enumerate(read_part(part, wanted)):
            keys = {channel: partial(_addresses, batch, columns.retailer, name) for channel, name in addresses.items()}
            keys[_CUSTOMER] = partial(_texts, batch, columns.retailer, columns.customer)
            yield batch_name(part.number, ordinal), keys


def _texts(batch: pa.RecordBatch, group: str, within: str, rows: pa.Array | None) -> tuple[pa.Array, pa.Array]:
    """Two columns as ids, of all rows or of `rows`."""
    columns = [batch.column(name) if rows is None else batch.column(name).take(rows) for name in (group, within)]
    return id_texts(columns[0]).cast(pa.string()), id_texts(columns[1]).cast(pa.string())


def _addresses(batch: pa.RecordBatch, group: str, within: str, rows: pa.Array | None) -> tuple[pa.Array, pa.Array]:
    """Two columns, the second as normalized addresses; an empty address is null."""
    groups, texts = _texts(batch, group, within, rows)
    address = normal_addresses(texts)
    return groups, pc.if_else(pc.equal(pc.binary_length(address), 0), None, address)


def _find_superseded(con: Any, folder: Path) -> pa.Table:
    """All candidates with one address but the preferred one, by campaign."""
    _view(con, folder, "shared", SHARING)
    return con.sql(
        "SELECT campaign, batch, row FROM shared "
        "QUALIFY row_number() OVER (PARTITION BY campaign, address ORDER BY value DESC NULLS LAST, tie) > 1"
    ).to_arrow_table().cast(survey_results.SUPERSEDED)  # fmt: skip


def _allocate_offers(con: Any, plan: Plan, folder: Path, superseded: pa.Table, capacity: Capacity) -> pa.Table:
    """The first N order keys of each limited offer; for a budget only the cut-off, empty if demand is below N."""
    _view(con, folder, "queued", WANTING)
    con.register("superseded", superseded)
    rows = []
    listed = {(entry.campaign.id, o.id) for entry in plan.campaigns for o in entry.campaign.offers if o.codes}
    for (campaign, offer), limit in capacity.items():
        keys = con.sql(
            "SELECT key FROM queued ANTI JOIN superseded USING (campaign, batch, row) "
            "WHERE campaign = ? AND offer = ? ORDER BY key LIMIT ?",
            params=[campaign, offer, limit],
        ).to_arrow_table()["key"]
        if (campaign, offer) not in listed:
            keys = keys.slice(max(limit - 1, 0))
        rows.append({"campaign": campaign, "offer": offer, "keys": keys.to_pylist()})
    return pa.Table.from_pylist(rows, schema=survey_results.ALLOCATIONS)


def _view(con: Any, folder: Path, kind: str, schema: pa.Schema) -> None:
    files = sorted(str(path) for path in folder.glob(f"{kind}-*.parquet"))
    if files:
        con.read_parquet(files).create_view(kind, replace=True)
    else:
        con.register(kind, schema.empty_table())
