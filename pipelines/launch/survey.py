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

from pipelines.launch.inputs import LaunchJob
from schemas.columns.ids import id_texts, normal_addresses
from schemas.elements import LaunchBatch
from schemas.problems import InputError, JobError, Problem
from stores.launches.launch_folder import write_parquet
from stores.launches.snapshot import read_part
from stores.launches.survey_results import (
    LOSERS,
    QUEUES,
    decided,
    read_sharing_keys,
    working_connection,
    write_decisions,
    write_repeats,
)
from transforms.columnar.duplicate_keys import Keys, codes_of, find_duplicate_keys
from transforms.columnar.id_index import IdIndex
from transforms.customers.read_customers import batch_name
from transforms.launch_plan import Plan
from transforms.offers.candidates import SHARING, WANTING, CandidateFinder


def survey(job: LaunchJob, matched: Callable[[beam.Pipeline, bool], Any], options: PipelineOptions) -> None:
    """Write the launch's decisions into its survey folder, unless they are there.

    `matched(pipeline, sharing)` is the launch up to its suppression, as a PCollection of LaunchBatches: of the
    rows that share an address, or, as an offer that can run out needs it, of all.
    """
    folder, sizes = job.folder.survey, job.sizes
    if decided(folder):
        return
    duplicates, sharing = _repeats(job)
    write_repeats(folder, duplicates, sharing)
    losers, queues = LOSERS.empty_table(), QUEUES.empty_table()
    if sharing.num_rows or sizes:
        for old in folder.glob("*-*.parquet"):
            old.unlink()
        with beam.Pipeline(options=options) as p:
            make = partial(_surveyor, job.plan, sizes, folder)
            _ = matched(p, not sizes) | "SurveyCandidates" >> beam.ParDo(_Survey(make, folder))
        con = working_connection(folder)
        losers = _losers(con, folder)
        queues = _queues(con, job.plan, folder, losers, sizes)
    write_decisions(folder, losers, queues)


def _surveyor(plan: Plan, sizes: dict[tuple[str, str], int], folder: Path) -> CandidateFinder:
    shared = {channel: IdIndex.build(keys) for channel, keys in read_sharing_keys(folder).items()}
    return CandidateFinder(plan, shared, sizes)


class _Survey(beam.DoFn):
    def __init__(self, make: Callable[[], CandidateFinder], folder: Path) -> None:
        self._make, self._folder = make, folder

    def setup(self) -> None:
        self._finder = self._make()

    def process(self, element: LaunchBatch) -> None:
        shared, queued = self._finder.find(element)
        write_parquet(self._folder / f"shared-{element.name}.parquet", shared)
        write_parquet(self._folder / f"queued-{element.name}.parquet", queued)


def _repeats(job: LaunchJob) -> tuple[pa.Table, pa.Table]:
    """The places of every row of a customer but the first; channel, key and place of all who share an address."""
    channels = sorted({entry.campaign.channel for entry in job.plan.campaigns})
    try:
        found = find_duplicate_keys(
            partial(_keys, job, channels), [_CUSTOMER, *channels], job.snapshot.rows, job.folder.survey
        )
    except JobError as error:  # nothing has been sent yet
        raise InputError([Problem(job.config.customers, "--customers", "", str(error))]) from error
    customers = found.filter(pc.equal(found["kind"], _CUSTOMER))
    _, first = np.unique(codes_of(customers), return_index=True)
    later = np.delete(np.arange(customers.num_rows), first)
    sharing = found.filter(pc.not_equal(found["kind"], _CUSTOMER)).rename_columns(["channel", "key", "batch", "row"])
    return customers.take(pa.array(later)).select(["batch", "row"]), sharing


_CUSTOMER = ""
"""The kind of the customers' own keys; the others are named by their channels."""


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
    """Two columns as ids, of all rows or of some."""
    both = [batch.column(name) if rows is None else batch.column(name).take(rows) for name in (group, within)]
    return id_texts(both[0]).cast(pa.string()), id_texts(both[1]).cast(pa.string())


def _addresses(batch: pa.RecordBatch, group: str, within: str, rows: pa.Array | None) -> tuple[pa.Array, pa.Array]:
    """The same with the second column as addresses that are compared; an empty one is null."""
    groups, texts = _texts(batch, group, within, rows)
    address = normal_addresses(texts)
    return groups, pc.if_else(pc.equal(pc.binary_length(address), 0), None, address)


def _losers(con: Any, folder: Path) -> pa.Table:
    """Of the candidates with one address all but the preferred one, by campaign."""
    _view(con, folder, "shared", SHARING)
    return con.sql(
        "SELECT campaign, batch, row FROM shared "
        "QUALIFY row_number() OVER (PARTITION BY campaign, address ORDER BY value DESC NULLS LAST, tie) > 1"
    ).to_arrow_table().cast(LOSERS)  # fmt: skip


def _queues(con: Any, plan: Plan, folder: Path, losers: pa.Table, sizes: dict[tuple[str, str], int]) -> pa.Table:
    """The first N keys of each limited offer's queue, in hash order; of a budget, whose ranks do not matter,
    only the N-th, and none where fewer than N stand in it."""
    _view(con, folder, "queued", WANTING)
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
    return pa.Table.from_pylist(rows, schema=QUEUES)


def _view(con: Any, folder: Path, kind: str, schema: pa.Schema) -> None:
    files = sorted(str(path) for path in folder.glob(f"{kind}-*.parquet"))
    if files:
        con.read_parquet(files).create_view(kind, replace=True)
    else:
        con.register(kind, schema.empty_table())
