"""BuildEvents: the Avro body of each customer's event, built column by column."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from schemas.avro_columns import Encoded, encode_column, encode_records
from schemas.campaign import Campaign, Offer
from schemas.contracts import fingerprint, schema
from schemas.elements import CampaignRows, EventBatch, Ints, LaunchBatch, OfferGrant
from schemas.outcomes import ASSIGNED_BY, BY_FORCE, BY_STICKY
from schemas.varints import zigzag
from transforms.digests import SEPARATOR, hex_digests
from transforms.plan import CampaignPlan, Plan
from transforms.steps import BatchStep

EVENT = schema("campaign_event")
FIELDS = {field["name"]: field["type"] for field in EVENT["fields"]}
OFFER = FIELDS["offers"]["items"]


def event_ids(plan: Plan, batch: LaunchBatch) -> list[pa.Array]:
    """The event id of every matched row, a column a campaign: the first 32 hex digits of SHA-256 of launch,
    campaign, retailer and customer, joined by U+001F."""
    columns = plan.engine.columns
    lengths = [len(rows.rows) for rows in batch.campaigns]
    prefixes = pa.array([f"{plan.launch_id}{SEPARATOR}{rows.campaign}{SEPARATOR}" for rows in batch.campaigns])
    prefix = prefixes.take(pa.array(np.repeat(np.arange(len(lengths)), lengths)))
    every = np.concatenate([rows.rows for rows in batch.campaigns]) if lengths else np.zeros(0, np.int64)
    ids = hex_digests(prefix, batch.column(columns.retailer, every), batch.column(columns.customer, every))
    starts = np.concatenate([[0], np.cumsum(lengths)]).tolist()
    return [ids.slice(start, length) for start, length in zip(starts, lengths, strict=False)]


def build_events(plan: Plan, batch: LaunchBatch) -> EventBatch:
    """The batch with its events, retailer by retailer within each campaign."""
    for rows, ids in zip(batch.campaigns, event_ids(plan, batch), strict=True):
        rows.event_id = ids
    parts = [_campaign_events(plan, batch, rows) for rows in batch.campaigns]
    places = [np.flatnonzero(rows.emitted) for rows in batch.campaigns]
    index = np.repeat(np.arange(len(places)), [len(place) for place in places])
    names = pa.array([rows.campaign for rows in batch.campaigns], pa.string())
    columns = plan.engine.columns
    sent = _joined([rows.rows[place] for rows, place in zip(batch.campaigns, places, strict=True)])
    ids = [rows.event_id.take(pa.array(place)) for rows, place in zip(batch.campaigns, places, strict=True)]
    return EventBatch(
        batch=batch,
        bodies=pa.concat_arrays(parts) if parts else pa.array([], pa.large_binary()),
        attributes={
            "event_id": pa.concat_arrays(ids) if ids else pa.array([], pa.string()),
            "retailer_id": batch.column(columns.retailer, sent),
            "campaign_id": pa.DictionaryArray.from_arrays(pa.array(index, pa.int32()), names),
            "launch_id": plan.launch_id,
            "schema": fingerprint("campaign_event"),
        },
        place=np.stack([index, _joined(places)]),
    )


def _joined(arrays: list[Ints]) -> Ints:
    return np.concatenate(arrays) if arrays else np.zeros(0, np.int64)


def _campaign_events(plan: Plan, batch: LaunchBatch, rows: CampaignRows) -> pa.Array:
    """The bodies of one campaign's emitted rows."""
    keep = np.flatnonzero(rows.emitted)
    if not len(keep):
        return pa.array([], pa.large_binary())
    entry = plan.of(rows.campaign)
    which = rows.rows[keep]
    columns = plan.engine.columns
    fields = {
        **_constants(plan, entry, batch.name),
        "event_id": rows.event_id.take(pa.array(keep)),
        "retailer_id": batch.column(columns.retailer, which),
        "customer_id": batch.column(columns.customer, which),
        "recipient": rows.recipient.take(pa.array(keep)),
        "experiment": _experiment(entry.campaign, rows, keep),
        "offers": Encoded(_offers(entry.campaign, rows, keep)),
        "template": _templates(entry.campaign, rows, keep),
        "properties": Encoded(_properties(entry.campaign, batch, which)),
        "deliver_after": pa.array(rows.deliver_after[keep]),
        "expires_at": None if rows.expires_at is None else pa.array(rows.expires_at[keep]),
    }
    return encode_records(EVENT, fields, len(keep))


def _constants(plan: Plan, entry: CampaignPlan, name: str) -> dict[str, Any]:
    campaign = entry.campaign
    return {
        "launch_id": plan.launch_id,
        "campaign_id": campaign.id,
        "campaign_version": entry.version,
        "surface": campaign.surface,
        "channel": campaign.channel,
        "vendor_campaign": campaign.vendor.campaign,
        "emitted_at": plan.launched_at,
        "trace": f"{plan.launch_id}/{name}",
    }


def _experiment(campaign: Campaign, rows: CampaignRows, keep: Ints) -> Any:
    """Null without an experiment; the scheme tells when no hash decided."""
    if campaign.experiment is None:
        return None
    keys = pa.array([variant.key for variant in campaign.experiment.variants], pa.string())
    variant = rows.variant[keep]
    schemes = [campaign.experiment.hash] * len(ASSIGNED_BY)
    schemes[BY_STICKY], schemes[BY_FORCE] = "sticky", "forced"
    bucket = rows.bucket[keep]
    return {
        "key": campaign.experiment.key,
        "variant": pa.DictionaryArray.from_arrays(pa.array(variant, pa.int16(), mask=variant < 0), keys),
        "bucket": pa.array(bucket, mask=np.isnan(bucket)),
        "scheme": pa.DictionaryArray.from_arrays(pa.array(rows.assigned_by[keep].astype(np.int8)), pa.array(schemes)),
    }


def _templates(campaign: Campaign, rows: CampaignRows, keep: Ints) -> Any:
    """The variant's template, else the campaign's."""
    default = campaign.content.template
    if campaign.experiment is None:
        return default
    names = [*(variant.template or default for variant in campaign.experiment.variants), default]
    if len(set(names)) == 1:
        return default if default is not None else None
    codes = rows.variant[keep].astype(np.int64)
    codes[codes < 0] = len(names) - 1
    return pa.array(names, pa.string()).take(pa.array(codes))


def _offers(campaign: Campaign, rows: CampaignRows, keep: Ints) -> pa.Array | bytes:
    """The encoded array of each row's offers, in the order of their declaration."""
    if not rows.offers:
        return b"\x00"
    declared = {offer.id: offer for offer in campaign.offers}
    masks = [grant.granted[keep] for grant in rows.offers]
    items = [
        _scattered(_offer(declared[grant.offer], grant, rows, keep), mask)
        for grant, mask in zip(rows.offers, masks, strict=True)
    ]
    count = np.sum(masks, axis=0)
    heads = pa.array([b"", *(zigzag(n) for n in range(1, len(masks) + 1))], pa.large_binary())
    end = pa.scalar(b"\x00", pa.large_binary())
    return pc.binary_join_element_wise(heads.take(pa.array(count)), *items, end, pa.scalar(b"", pa.large_binary()))


def _offer(offer: Offer, grant: OfferGrant, rows: CampaignRows, keep: Ints) -> pa.Array:
    """The encoded item of each granted row."""
    granted = keep[grant.granted[keep]]
    fields = {
        "id": offer.id,
        "kind": offer.kind,
        "code": offer.code if grant.code is None else grant.code,
        "value": None if offer.value is None else format(offer.value, "f"),
        "currency": offer.currency,
        "expires_at": None if offer.valid_for is None else pa.array(valid_until(rows, offer.valid_for)[granted]),
    }
    return encode_records(OFFER, fields, len(granted))


def valid_until(rows: CampaignRows, valid_for: timedelta) -> Ints:
    """When an offer of each row ends: counted from its delivery."""
    return rows.deliver_after + int(valid_for.total_seconds() * 1000)


def _scattered(items: pa.Array, mask: Any) -> pa.Array:
    """The items at the rows of a mask, nothing elsewhere."""
    if mask.all():
        return items
    place = np.where(mask, np.cumsum(mask), 0)
    nothing = pa.array([b""], pa.large_binary())
    return pa.concat_arrays([nothing, items]).take(pa.array(place))


def _properties(campaign: Campaign, batch: LaunchBatch, which: Ints) -> pa.Array | bytes:
    """The encoded map of each row's properties; a NULL is the null branch."""
    given = campaign.content.properties
    if not given:
        return b"\x00"
    rows = pa.array(which)
    columns = {key: batch.values[text].take(rows) for key, text in given.items()}
    return encode_column(FIELDS["properties"], columns, len(which))


class BuildEvents(BatchStep):
    """EventBatches: every emitted row of every campaign as an Avro body with its attributes."""

    stage = "encode"
