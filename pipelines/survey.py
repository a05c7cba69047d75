"""The survey: what must be known of all customers before the first event leaves.

Duplicate customers, shared addresses, and the queues of offers that can run out are exact over all workers.
A campaign's queue holds only who would be sent it, so the survey runs the launch's own steps up to the
suppression over the same batches, keeps the candidates in files, and DuckDB decides among them on disk.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from apache_beam.options.pipeline_options import PipelineOptions

from pipelines.launch_inputs import Prepared
from schemas.elements import LaunchBatch
from stores.decisions import decided, repeated, working_connection, write_decisions
from stores.launch_folder import write_parquet
from transforms.ids.id_index import IdIndex, joined_key
from transforms.offers.candidates import QUEUED, SHARED, Surveyor, normal_address
from transforms.plan import Plan
from transforms.read_customers import batch_name

_PLACES = pa.schema([("batch", pa.string()), ("row", pa.int64())])
_LOSERS = pa.schema([("campaign", pa.string()), *_PLACES])
_QUEUES = pa.schema([("campaign", pa.string()), ("offer", pa.string()), ("keys", pa.list_(pa.binary(32)))])


def survey(job: Prepared, matched: Callable[[beam.Pipeline, dict[str, Any]], Any], options: PipelineOptions) -> None:
    """Write the launch's decisions into its survey folder, unless they are there.

    `matched(pipeline, duplicates)` is the launch up to its suppression, as a PCollection of LaunchBatches.
    """
    folder, sizes = job.folder.survey, job.sizes
    if decided(folder):
        return
    con = working_connection(folder)
    duplicates = _duplicates(con, job)
    shared = _shared(con, job)
    losers, queues = _LOSERS.empty_table(), _QUEUES.empty_table()
    if shared or sizes:
        for old in folder.glob("*-*.parquet"):
            old.unlink()
        with beam.Pipeline(options=options) as p:
            batches = matched(p, by_batch(duplicates))
            make = partial(Surveyor, job.plan, shared, sizes)
            _ = batches | "SurveyCandidates" >> beam.ParDo(_Survey(make, str(folder)))
        losers = _losers(con, folder)
        queues = _queues(con, job.plan, folder, losers, sizes)
    write_decisions(folder, duplicates, losers, queues)


def by_batch(places: pa.Table) -> dict[str, Any]:
    """Rows by the name of their batch."""
    found: dict[str, list[int]] = {}
    for batch, row in zip(places["batch"].to_pylist(), places["row"].to_pylist(), strict=True):
        found.setdefault(batch, []).append(row)
    return {batch: np.array(rows, np.int64) for batch, rows in found.items()}


class _Survey(beam.DoFn):
    def __init__(self, make: Callable[[], Surveyor], folder: str) -> None:
        self._make, self._folder = make, Path(folder)

    def setup(self) -> None:
        self._surveyor = self._make()

    def process(self, element: LaunchBatch) -> None:
        shared, queued = self._surveyor.survey(element)
        write_parquet(self._folder / f"shared-{element.name}.parquet", shared)
        write_parquet(self._folder / f"queued-{element.name}.parquet", queued)


def _scan(job: Prepared, column: str, lower: bool = False) -> pa.RecordBatchReader:
    """All rows as (retailer, id, batch, row), `id` being a column as text."""
    schema = pa.schema([("retailer", pa.string()), ("id", pa.string()), *_PLACES])
    return pa.RecordBatchReader.from_batches(schema, _scanned(job, column, lower, schema))


def _scanned(job: Prepared, column: str, lower: bool, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    retailer = job.plan.engine.columns.retailer
    for part in job.parts:
        for ordinal, batch in enumerate(job.read(part, [retailer, column])):
            ids = batch.column(column).cast(pa.string())
            if lower:
                ids = normal_address(ids)
                ids = pc.if_else(pc.equal(pc.binary_length(ids), 0), None, ids)
            n = batch.num_rows
            names = pa.repeat(batch_name(part.number, ordinal), n)
            columns = [batch.column(retailer).cast(pa.string()), ids, names, pa.array(np.arange(n))]
            yield pa.record_batch(columns, schema=schema)


def _duplicates(con: Any, job: Prepared) -> pa.Table:
    """The places of every row of a customer but the first."""
    scan = partial(_scan, job, job.plan.engine.columns.customer)
    found = repeated(con, scan, ("retailer", "id"), ("retailer", "id", "batch", "row"))
    if not found.num_rows:
        return _PLACES.empty_table()
    con.register("found", found)
    ranked = con.sql(
        "SELECT batch, row FROM found QUALIFY row_number() OVER (PARTITION BY retailer, id ORDER BY batch, row) > 1"
    ).to_arrow_table()
    con.unregister("found")
    return ranked.cast(_PLACES)


def _shared(con: Any, job: Prepared) -> dict[str, IdIndex]:
    """By channel the (retailer, address) keys that several customers have."""
    found = {}
    for channel in sorted({entry.campaign.channel for entry in job.plan.campaigns}):
        scan = partial(_scan, job, job.plan.engine.channels[channel].address, lower=True)
        rows = repeated(con, scan, ("retailer", "id"), ("retailer", "id"))
        if rows.num_rows:
            keys = joined_key(rows["retailer"].combine_chunks(), rows["id"].combine_chunks())
            found[channel] = IdIndex.build(keys.unique())
    return found


def _losers(con: Any, folder: Path) -> pa.Table:
    """Of the candidates with one address all but the preferred one, by campaign."""
    _view(con, folder, "shared", SHARED)
    return con.sql(
        "SELECT campaign, batch, row FROM shared "
        "QUALIFY row_number() OVER (PARTITION BY campaign, address ORDER BY value DESC, tie) > 1"
    ).to_arrow_table().cast(_LOSERS)  # fmt: skip


def _queues(con: Any, plan: Plan, folder: Path, losers: pa.Table, sizes: dict[tuple[str, str], int]) -> pa.Table:
    """The first N keys of each limited offer's queue, in hash order; of a budget, whose ranks do not matter,
    only the N-th, and none where fewer than N stand in it."""
    _view(con, folder, "queued", QUEUED)
    con.register("losers", losers)
    rows = []
    listed = {(entry.campaign.id, o.id) for entry in plan.campaigns for o in entry.campaign.offers if o.codes}
    for (campaign, offer), size in sizes.items():
        keys = con.sql(
            "SELECT key FROM queued ANTI JOIN losers USING (campaign, batch, row) "
            "WHERE campaign = ? AND offer = ? ORDER BY key LIMIT ?",
            params=[campaign, offer, size],
        ).to_arrow_table()["key"]
        if (campaign, offer) not in listed:
            keys = keys.slice(max(size - 1, 0))
        rows.append({"campaign": campaign, "offer": offer, "keys": keys.to_pylist()})
    return pa.Table.from_pylist(rows, schema=_QUEUES)


def _view(con: Any, folder: Path, kind: str, schema: pa.Schema) -> None:
    files = sorted(str(path) for path in folder.glob(f"{kind}-*.parquet"))
    if files:
        con.read_parquet(files).create_view(kind, replace=True)
    else:
        con.register(kind, schema.empty_table())
