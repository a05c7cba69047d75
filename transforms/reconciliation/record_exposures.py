"""RecordExposures: writes a row for each matched customer and campaign, with the counts that the summary adds up."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa

from schemas.contracts import DeadLetter
from schemas.elements import CampaignRows, LaunchBatch, OfferGrant
from schemas.outcomes import ASSIGNED_BY, OUTCOMES
from transforms.customers.validate_customers import STEP as VALIDATION
from transforms.launch_plan import Plan

_OUTCOMES = [outcome.outcome for outcome in OUTCOMES]
_REASONS = [outcome.reason for outcome in OUTCOMES]
_TEXT = pa.dictionary(pa.int32(), pa.string())
SCHEMA = pa.schema(
    [
        ("campaign_id", _TEXT),
        ("retailer_id", _TEXT),
        ("customer_id", pa.string()),
        ("channel", _TEXT),
        ("outcome", _TEXT),
        ("reason", _TEXT),
        ("suppression", _TEXT),
        ("unit", pa.string()),
        ("bucket", pa.float64()),
        ("variant", _TEXT),
        ("assigned_by", _TEXT),
        ("offers", pa.list_(pa.string())),
        ("codes", pa.list_(pa.string())),
        ("event_id", pa.string()),
        ("deliver_after", pa.timestamp("ms", "UTC")),
        ("test", pa.bool_()),
    ]
)
"""A row for each matched customer and campaign. `suppression` of a held-out customer is the reason for which nothing
would have been sent; `unit` is null where it is the customer; `deliver_after` is the time at which an event that was
not sent would have been due."""

WriteDeadLetters = Callable[[str, Sequence[DeadLetter]], Any]
WriteExposures = Callable[[str, pa.Table, dict[str, Any]], None]


class RecordExposures(beam.PTransform):
    """The names of the batches that are done: their dead letters are written first, then the exposures with the counts
    as one file."""

    def __init__(self, plan: Plan, write_dead_letters: WriteDeadLetters, write_exposures: WriteExposures) -> None:
        super().__init__()
        self._record = _Record(plan, write_dead_letters, write_exposures)

    def expand(self, batches: beam.PCollection[LaunchBatch]) -> beam.PCollection[str]:
        return batches | "Record" >> beam.ParDo(self._record)


class _Record(beam.DoFn):
    def __init__(self, plan: Plan, write_dead_letters: WriteDeadLetters, write_exposures: WriteExposures) -> None:
        self._plan, self._write_dead_letters, self._write_exposures = plan, write_dead_letters, write_exposures

    def setup(self) -> None:
        self._writing = 0.0

    def process(self, element: LaunchBatch) -> Iterator[str]:
        started = time.perf_counter()
        table = exposures(self._plan, element)
        if element.dead_letters:
            self._write_dead_letters(element.name, element.dead_letters)
        # The file holds the times of its own batch, so the time to write it can only be added to the next batch.
        batch = element.with_seconds("record", time.perf_counter() - started + self._writing)
        started = time.perf_counter()
        self._write_exposures(batch.name, table, batch_counts(batch))
        self._writing = time.perf_counter() - started
        yield batch.name


def exposures(plan: Plan, batch: LaunchBatch) -> pa.Table:
    """The exposures of a batch, campaign by campaign."""
    parts = [_campaign(plan, batch, rows) for rows in batch.campaigns if len(rows.rows)]
    return pa.concat_tables([SCHEMA.empty_table(), *parts]).unify_dictionaries().combine_chunks()


def _campaign(plan: Plan, batch: LaunchBatch, rows: CampaignRows) -> pa.Table:
    campaign = plan.campaign_plan(rows.campaign).campaign
    columns, n = plan.engine.columns, len(rows.rows)
    unit = campaign.experiment.unit if campaign.experiment else columns.customer
    variants = [variant.key for variant in campaign.experiment.variants] if campaign.experiment else []
    return pa.table(
        [
            _constant(rows.campaign, n),
            rows.retailer,
            rows.customer,
            _constant(campaign.channel, n),
            _coded(rows.outcome, _OUTCOMES),
            _coded(rows.outcome, _REASONS),
            _coded(rows.suppression, _REASONS),
            pa.nulls(n, pa.string()) if unit == columns.customer else batch.column(unit, rows.rows),
            pa.array(rows.bucket, mask=np.isnan(rows.bucket)),
            _coded(rows.variant, variants, rows.variant < 0),
            _coded(rows.assigned_by, ASSIGNED_BY),
            *_offers(rows),
            pa.nulls(n, pa.string()) if rows.event_id is None else rows.event_id,
            pa.array(rows.deliver_after).cast(pa.timestamp("ms", "UTC")),
            pa.repeat(pa.scalar(plan.test), n),
        ],
        schema=SCHEMA,
    )


def _constant(text: str, n: int) -> pa.Array:
    return pa.DictionaryArray.from_arrays(pa.array(np.zeros(n, np.int32)), pa.array([text]))


def _coded(codes: np.ndarray, names: Sequence[str | None], mask: np.ndarray | None = None) -> pa.Array:
    """The names of the codes, null where the name is None or the mask is set."""
    unnamed = np.array([name is None for name in names], np.bool_)
    hidden = unnamed[codes] if mask is None else mask
    dictionary = pa.array([name or "" for name in names], pa.string())
    return pa.DictionaryArray.from_arrays(pa.array(codes.astype(np.int32), mask=hidden), dictionary).cast(_TEXT)


def _offers(rows: CampaignRows) -> tuple[pa.Array, pa.Array]:
    """The offers of each row and their codes (null where an offer has none of its own)."""
    grants = [grant for grant in rows.offers if grant.granted.any()]
    masks = np.array([grant.granted for grant in grants], np.bool_).reshape(len(grants), len(rows.rows))
    row, which = np.nonzero(masks.T)
    offsets = pa.array(np.concatenate([[0], np.cumsum(masks.sum(axis=0))]).astype(np.int32))
    names = pa.array([grant.offer for grant in grants], pa.string()).take(pa.array(which))
    codes = _codes(grants, masks, row, which)
    return pa.ListArray.from_arrays(offsets, names), pa.ListArray.from_arrays(offsets, codes)


def _codes(grants: list[OfferGrant], masks: np.ndarray, row: np.ndarray, which: np.ndarray) -> pa.Array:
    """The code of each (row, offer) in the order of the flattened lists."""
    if not grants:
        return pa.array([], pa.string())
    sizes = masks.sum(axis=1)
    codes = [
        pa.nulls(size, pa.string()) if grant.code is None else grant.code.cast(pa.string())
        for grant, size in zip(grants, sizes.tolist(), strict=True)
    ]
    starts = np.concatenate([[0], np.cumsum(sizes)])
    rank = np.cumsum(masks, axis=1) - 1
    return pa.concat_arrays(codes).take(pa.array(starts[which] + rank[which, row]))


def outcome_counts(rows: CampaignRows) -> list[list[Any]]:
    """[campaign, outcome, reason, customers] of one campaign's rows."""
    counts = np.bincount(rows.outcome, minlength=len(OUTCOMES)).tolist()
    return [[rows.campaign, *OUTCOMES[code], number] for code, number in enumerate(counts) if number]


def variant_counts(rows: CampaignRows) -> list[list[Any]]:
    """[campaign, variant's number, customers] of one campaign's rows."""
    counts = np.bincount(rows.variant[rows.variant >= 0]).tolist()
    return [[rows.campaign, variant, number] for variant, number in enumerate(counts) if number]


def batch_counts(batch: LaunchBatch) -> dict[str, Any]:
    """The counts of a batch for the summary, as JSON data; written into the metadata of its exposures."""
    return {
        "read": batch.counts["read"],
        "evaluated": batch.counts["evaluated"],
        "dead_lettered": Counter(letter.reason for letter in batch.dead_letters if letter.step == VALIDATION),
        "nodes": {name: [list(count) for count in nodes] for name, nodes in batch.counts["nodes"].items()},
        "offers": {
            name: {offer: list(vars(count).values()) for offer, count in offers.items()}
            for name, offers in batch.counts.get("offers", {}).items()
        },
        "outcomes": [count for rows in batch.campaigns for count in outcome_counts(rows)],
        "variants": [count for rows in batch.campaigns for count in variant_counts(rows)],
        **{
            name: batch.counts.get(name, []) for name in ("evidence", "lists", "suppression_lists", "history", "sticky")
        },
        "unknown_time_zones": batch.counts.get("unknown_time_zones", {}),
        "seconds": dict(batch.seconds),
    }
