"""RecordExposures: one row a matched customer and campaign, and the counts that the summary adds up."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from schemas.elements import CampaignRows, LaunchBatch
from schemas.outcomes import ASSIGNED_BY, OUTCOMES
from transforms.experiments.assign_variants import units_of
from transforms.plan import Plan

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
"""A row a matched customer and campaign. `suppression` is what would have been for a customer held out;
`unit` is null where it is the customer; `deliver_after` is the counterfactual time where nothing was sent."""


def exposures(plan: Plan, batch: LaunchBatch) -> pa.Table:
    """The exposures of a batch, campaign by campaign."""
    parts = [_campaign(plan, batch, rows) for rows in batch.campaigns if len(rows.rows)]
    return pa.concat_tables([SCHEMA.empty_table(), *parts]).unify_dictionaries().combine_chunks()


def _campaign(plan: Plan, batch: LaunchBatch, rows: CampaignRows) -> pa.Table:
    campaign = plan.of(rows.campaign).campaign
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
            pa.nulls(n, pa.string()) if unit == columns.customer else units_of(batch, unit, rows.rows),
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
    nothing = np.array([name is None for name in names], np.bool_)
    hidden = nothing[codes] if mask is None else mask
    dictionary = pa.array([name or "" for name in names], pa.string())
    return pa.DictionaryArray.from_arrays(pa.array(codes.astype(np.int32), mask=hidden), dictionary).cast(_TEXT)


def _offers(rows: CampaignRows) -> tuple[pa.Array, pa.Array]:
    """The offers of each row and their codes (null where an offer has none of its own)."""
    grants = [grant for grant in rows.offers if grant.granted.any()]
    masks = np.array([grant.granted for grant in grants], np.bool_).reshape(len(grants), len(rows.rows))
    row, which = np.nonzero(masks.T)
    offsets = pa.array(np.concatenate([[0], np.cumsum(masks.sum(axis=0))]).astype(np.int32))
    names = pa.array([grant.offer for grant in grants], pa.string()).take(pa.array(which))
    return pa.ListArray.from_arrays(offsets, names), pa.ListArray.from_arrays(
        offsets, _codes(grants, masks, row, which)
    )


def _codes(grants: list[Any], masks: np.ndarray, row: np.ndarray, which: np.ndarray) -> pa.Array:
    """The code of each (row, offer) in the order of the flattened lists."""
    if not grants:
        return pa.array([], pa.string())
    sizes = masks.sum(axis=1)
    every = pa.concat_arrays(
        [
            pa.nulls(size, pa.string()) if grant.code is None else grant.code.cast(pa.string())
            for grant, size in zip(grants, sizes.tolist(), strict=True)
        ]
    )
    starts = np.concatenate([[0], np.cumsum(sizes)])
    rank = np.cumsum(masks, axis=1) - 1
    return every.take(pa.array(starts[which] + rank[which, row]))


def outcome_counts(rows: CampaignRows) -> list[list[Any]]:
    """[campaign, outcome, reason, customers] of one campaign's rows."""
    counts = np.bincount(rows.outcome, minlength=len(OUTCOMES)).tolist()
    return [[rows.campaign, *OUTCOMES[code], number] for code, number in enumerate(counts) if number]


def variant_counts(rows: CampaignRows) -> list[list[Any]]:
    """[campaign, variant's number, customers] of one campaign's rows."""
    counts = np.bincount(rows.variant[rows.variant >= 0]).tolist()
    return [[rows.campaign, variant, number] for variant, number in enumerate(counts) if number]


def batch_counts(batch: LaunchBatch) -> dict[str, Any]:
    """What the summary needs of a batch, as JSON data; written into the metadata of its exposures."""
    return {
        "read": batch.counts["read"],
        "evaluated": batch.counts["evaluated"],
        "dead_lettered": _by_reason(batch),
        "nodes": {name: [list(count) for count in nodes] for name, nodes in batch.counts["nodes"].items()},
        "offers": {
            name: {offer: list(vars(count).values()) for offer, count in offers.items()}
            for name, offers in batch.counts.get("offers", {}).items()
        },
        "outcomes": [count for rows in batch.campaigns for count in outcome_counts(rows)],
        "variants": [count for rows in batch.campaigns for count in variant_counts(rows)],
        "evidence": batch.counts.get("evidence", []),
        "lists": batch.counts.get("lists", []),
        "suppression_lists": batch.counts.get("suppression_lists", []),
        "history": batch.counts.get("history", []),
        "sticky": batch.counts.get("sticky", []),
        "unknown_time_zones": batch.counts.get("unknown_time_zones", {}),
        "seconds": batch.seconds,
    }


def _by_reason(batch: LaunchBatch) -> dict[str, int]:
    found: dict[str, int] = {}
    for letter in batch.dead_letters:
        if letter.step == "CheckCustomers":
            found[letter.reason] = found.get(letter.reason, 0) + 1
    return found
