"""BuildEvents: the Avro body of each customer's event, built column by column."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any, NamedTuple

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


def event_ids(plan: Plan, campaigns: Sequence[CampaignRows]) -> list[pa.Array]:
    """The event id of every matched row, a column a campaign: the first 32 hex digits of SHA-256 of launch,
    campaign, retailer and customer, joined by U+001F."""
    if not campaigns:
        return []
    lengths = [len(rows.rows) for rows in campaigns]
    prefixes = pa.array([f"{plan.launch_id}{SEPARATOR}{rows.campaign}{SEPARATOR}" for rows in campaigns])
    prefix = prefixes.take(pa.array(np.repeat(np.arange(len(lengths)), lengths)))
    retailers = pa.concat_arrays([rows.retailer.cast(pa.string()) for rows in campaigns])
    ids = hex_digests(prefix, retailers, pa.concat_arrays([rows.customer for rows in campaigns]))
    starts = np.concatenate([[0], np.cumsum(lengths)]).tolist()
    return [ids.slice(start, length) for start, length in zip(starts, lengths, strict=False)]


def build_events(plan: Plan, batch: LaunchBatch) -> EventBatch:
    """The batch with its events, retailer by retailer within each campaign."""
    campaigns = batch.campaigns
    for rows, ids in zip(campaigns, event_ids(plan, campaigns), strict=True):
        rows.event_id = ids
    places = [np.flatnonzero(rows.emitted) for rows in campaigns]
    parts = [_campaign_events(plan, batch, rows, keep) for rows, keep in zip(campaigns, places, strict=True)]
    index = np.repeat(np.arange(len(places)), [len(place) for place in places])
    names = pa.array([rows.campaign for rows in campaigns], pa.string())
    every = _Parts(campaigns, places)
    return EventBatch(
        batch=batch,
        bodies=pa.concat_arrays([pa.array([], pa.large_binary()), *parts]),
        attributes={
            "event_id": every.of("event_id"),
            "retailer_id": every.of("retailer"),
            "campaign_id": pa.DictionaryArray.from_arrays(pa.array(index, pa.int32()), names),
            "launch_id": plan.launch_id,
            "schema": fingerprint("campaign_event"),
        },
        place=np.stack([index, np.concatenate([np.zeros(0, np.int64), *places])]),
    )


class _Parts(NamedTuple):
    """The emitted rows of all campaigns, one after the other."""

    campaigns: Sequence[CampaignRows]
    places: Sequence[Ints]

    def of(self, name: str) -> pa.Array:
        """A column of all of them, as text."""
        columns = [getattr(rows, name).take(pa.array(keep)) for rows, keep in zip(*self, strict=True)]
        return pa.concat_arrays([pa.array([], pa.string()), *(column.cast(pa.string()) for column in columns)])


def _campaign_events(plan: Plan, batch: LaunchBatch, rows: CampaignRows, keep: Ints) -> pa.Array:
    """The bodies of one campaign's emitted rows."""
    if not len(keep):
        return pa.array([], pa.large_binary())
    entry = plan.of(rows.campaign)
    places = pa.array(keep)
    fields = {
        **_constants(plan, entry, batch.name),
        "event_id": rows.event_id.take(places),
        "retailer_id": rows.retailer.take(places),
        "customer_id": rows.customer.take(places),
        "recipient": rows.recipient.take(places),
        "experiment": _experiment(entry.campaign, rows, keep),
        "offers": Encoded(_offers(entry.campaign, rows, keep)),
        "template": _templates(entry.campaign, rows, keep),
        "properties": Encoded(_properties(entry.campaign, batch, rows.rows[keep])),
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
