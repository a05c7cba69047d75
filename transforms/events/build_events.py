"""BuildEvents: the Avro body of each customer's event, all campaigns of a batch in one encoding."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa

from schemas.campaigns.campaign import Campaign
from schemas.codec.avro_columns import Encoded, encode_column, encode_records
from schemas.contracts import fingerprint, schema
from schemas.elements import CampaignRows, EventBatch, Ints, LaunchBatch, OfferGrant
from schemas.outcomes import ASSIGNED_BY, BY_FORCE, BY_STICKY
from transforms.columnar.digests import SEPARATOR, hex_digests
from transforms.columnar.steps import MapBatches
from transforms.launch_plan import CampaignPlan, Plan

EVENT = schema("campaign_event")
FIELDS = {field["name"]: field["type"] for field in EVENT["fields"]}
OFFER = FIELDS["offers"]["items"]
OFFER_TYPE = pa.struct(
    [("id", pa.string()), ("kind", pa.string()), ("code", pa.string()), ("value", pa.string()),
     ("currency", pa.string()), ("expires_at", pa.int64())]
)  # fmt: skip


class BuildEvents(MapBatches):
    """EventBatches: an Avro body with its attributes for each emitted row of each campaign."""

    output_type = EventBatch

    def __init__(self, plan: Plan) -> None:
        super().__init__("encode", partial(partial, build_events, plan))


def build_events(plan: Plan, batch: LaunchBatch) -> EventBatch:
    """The batch with its events: campaign by campaign, retailer by retailer within each.

    The event id is the first 32 hex digits of SHA-256 of launch, campaign, retailer and customer, joined by U+001F.
    """
    sent = _Sent.of(plan, batch)
    columns = sent.columns(plan, batch)
    ids = columns["event_id"]
    return EventBatch(
        batch=replace(batch, campaigns=_with_event_ids(batch, ids)),
        bodies=encode_records(EVENT, columns, len(sent.index)),
        attributes={
            "event_id": ids,
            "retailer_id": columns["retailer_id"].cast(pa.string()),
            "campaign_id": columns["campaign_id"],
            "launch_id": plan.launch_id,
            "schema": fingerprint("campaign_event"),
        },
        place=np.stack([sent.index, sent.row]),
    )


def _with_event_ids(batch: LaunchBatch, ids: pa.Array) -> list[CampaignRows]:
    """The campaigns with the event id of each emitted row, null for the others; none where a campaign emits nothing."""
    campaigns, start = [], 0
    for rows in batch.campaigns:
        number = int(np.count_nonzero(rows.emitted))
        place = start + np.cumsum(rows.emitted) - 1
        event_id = ids.take(pa.array(place, mask=~rows.emitted)) if number else None
        campaigns.append(replace(rows, event_id=event_id))
        start += number
    return campaigns


@dataclass(frozen=True)
class _Sent:
    """The emitted rows of all campaigns, one after the other: `index` of the campaign in the batch, `row` within it.

    `keeps` are the emitted rows of each of the `campaigns`, which all emit some; `which` is the number of each row's
    campaign among them.
    """

    campaigns: list[CampaignRows]
    entries: list[CampaignPlan]
    keeps: list[Ints]
    which: Ints
    index: Ints
    row: Ints

    @classmethod
    def of(cls, plan: Plan, batch: LaunchBatch) -> _Sent:
        """The emitted rows of a batch, without the campaigns that emit nothing."""
        keeps = [np.flatnonzero(rows.emitted) for rows in batch.campaigns]
        places = np.array([place for place, keep in enumerate(keeps) if len(keep)], np.int64)
        campaigns = [batch.campaigns[place] for place in places]
        keeps = [keeps[place] for place in places]
        which = np.repeat(np.arange(len(keeps)), [len(keep) for keep in keeps])
        return cls(
            campaigns=campaigns,
            entries=[plan.campaign_plan(rows.campaign) for rows in campaigns],
            keeps=keeps,
            which=which,
            index=places[which],
            row=np.concatenate([np.zeros(0, np.int64), *keeps]),
        )

    def columns(self, plan: Plan, batch: LaunchBatch) -> dict[str, Any]:
        """A column for each field of the event."""
        retailers = self._joined("retailer", pa.dictionary(pa.int32(), pa.string()))
        customers = self._joined("customer", pa.string())
        return {
            "event_id": self._event_ids(plan, retailers.cast(pa.string()), customers),
            "launch_id": plan.launch_id,
            "campaign_id": self.of_campaign(lambda entry: entry.campaign.id),
            "campaign_version": self.of_campaign(lambda entry: entry.version),
            "surface": self.of_campaign(lambda entry: entry.campaign.surface),
            "retailer_id": retailers,
            "customer_id": customers,
            "recipient": self._joined("recipient", pa.string()),
            "channel": self.of_campaign(lambda entry: entry.campaign.channel),
            "vendor_campaign": self.of_campaign(lambda entry: entry.campaign.vendor.campaign),
            "experiment": self._experiment(),
            "offers": self._offers(),
            "template": self._template(),
            "properties": self._properties(batch),
            "deliver_after": pa.array(self._numbers("deliver_after")),
            "expires_at": self._expires_at(),
            "emitted_at": plan.launched_at,
            "trace": f"{plan.launch_id}/{batch.name}",
        }

    def _event_ids(self, plan: Plan, retailers: pa.Array, customers: pa.Array) -> pa.Array:
        prefixes = [f"{plan.launch_id}{SEPARATOR}{rows.campaign}{SEPARATOR}" for rows in self.campaigns]
        return hex_digests(pa.array(prefixes, pa.string()).take(pa.array(self.which)), retailers, customers)

    def _joined(self, name: str, kind: pa.DataType) -> pa.Array:
        columns = [getattr(r, name).take(pa.array(keep)) for r, keep in zip(self.campaigns, self.keeps, strict=True)]
        return pa.concat_arrays([pa.array([], kind), *columns])

    def _numbers(self, name: str) -> np.ndarray:
        columns = [getattr(rows, name)[keep] for rows, keep in zip(self.campaigns, self.keeps, strict=True)]
        return np.concatenate([np.zeros(0, np.int64), *columns])

    def of_campaign(self, value: Callable[[CampaignPlan], str | None]) -> pa.DictionaryArray:
        """A column that is constant within each campaign."""
        return _named(self.which, [value(entry) for entry in self.entries])

    def _variant_codes(self) -> Ints:
        """The place of each row's variant in one list of all campaigns' variants, where "no variant" comes before the
        variants of each campaign."""
        sizes = [1 + len(_variants(entry.campaign)) for entry in self.entries]
        starts = np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes)])
        return starts[self.which] + self._numbers("variant") + 1

    def _experiment(self) -> Any:
        """The experiment of each row, null without one; `scheme` is `sticky` or `forced` where no hash decided."""
        if not any(entry.campaign.experiment for entry in self.entries):
            return None
        variants = [name for entry in self.entries for name in (None, *(v.key for v in _variants(entry.campaign)))]
        schemes = [name for entry in self.entries for name in _schemes(entry.campaign)]
        bucket = self._numbers("bucket")
        keys = self.of_campaign(lambda entry: entry.campaign.experiment.key if entry.campaign.experiment else None)
        fields = {
            "key": keys,
            "variant": _named(self._variant_codes(), variants),
            "bucket": pa.array(bucket, mask=np.isnan(bucket)),
            "scheme": _named(self.which * len(ASSIGNED_BY) + self._numbers("assigned_by"), schemes),
        }
        if not keys.null_count:
            return fields
        columns = [column.cast(pa.string()) if name != "bucket" else column for name, column in fields.items()]
        return pa.StructArray.from_arrays(columns, list(fields), mask=keys.is_null())

    def _template(self) -> Any:
        """The variant's template, else the campaign's."""
        names: list[str | None] = []
        for entry in self.entries:
            template = entry.campaign.content.template
            names += [template, *(variant.template or template for variant in _variants(entry.campaign))]
        return _named(self._variant_codes(), names)

    def _expires_at(self) -> pa.Array:
        parts = [
            pa.nulls(len(keep), pa.int64()) if rows.expires_at is None else pa.array(rows.expires_at[keep])
            for rows, keep in zip(self.campaigns, self.keeps, strict=True)
        ]
        return pa.concat_arrays([pa.array([], pa.int64()), *parts])

    def _offers(self) -> Any:
        """Each row's offers, in the order of their declaration."""
        starts = np.cumsum([0, *(len(keep) for keep in self.keeps)])
        grants = [
            _grant_items(entry.campaign, rows, keep, grant, start)
            for entry, rows, keep, start in zip(self.entries, self.campaigns, self.keeps, starts[:-1], strict=True)
            for grant in rows.offers
            if grant.granted.any()
        ]
        if not grants:
            return Encoded(b"\x00")
        rows = np.concatenate([rows for rows, _ in grants])
        order = np.argsort(rows, kind="stable")
        offsets = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=len(self.row)))])
        items = pa.concat_arrays([items for _, items in grants]).take(pa.array(order))
        return pa.ListArray.from_arrays(pa.array(offsets.astype(np.int32)), items)

    def _properties(self, batch: LaunchBatch) -> Any:
        """The encoded map of each row's properties; campaigns with the same properties are encoded together."""
        alike: dict[tuple[tuple[str, str], ...], list[int]] = {}
        for place, entry in enumerate(self.entries):
            alike.setdefault(tuple(entry.campaign.content.properties.items()), []).append(place)
        if list(alike) in ([], [()]):
            return Encoded(b"\x00")
        lengths = np.array([len(keep) for keep in self.keeps])
        starts = np.concatenate([[0], np.cumsum(lengths)])
        parts, rows = [], []
        for properties, places in alike.items():
            which = np.concatenate([self.campaigns[place].rows[self.keeps[place]] for place in places])
            columns = {key: batch.values[text].take(pa.array(which)) for key, text in properties}
            parts.append(encode_column(FIELDS["properties"], columns, len(which)))
            rows += [np.arange(starts[place], starts[place] + lengths[place]) for place in places]
        if len(parts) == 1:
            return Encoded(parts[0])
        order = np.empty(len(self.row), np.int64)
        order[np.concatenate(rows)] = np.arange(len(self.row))
        return Encoded(pa.concat_arrays(parts).take(pa.array(order)))


def _variants(campaign: Campaign) -> Sequence[Any]:
    return campaign.experiment.variants if campaign.experiment else ()


def _schemes(campaign: Campaign) -> list[str]:
    """The `scheme` of an event, by ASSIGNED_BY: the hash scheme, `sticky` or `forced`."""
    names: list[str] = [campaign.experiment.hash if campaign.experiment else ""] * len(ASSIGNED_BY)
    names[BY_STICKY], names[BY_FORCE] = "sticky", "forced"
    return names


def _named(codes: Any, names: Sequence[str | None]) -> pa.DictionaryArray:
    """The name of each code; null where it is None."""
    unnamed = np.array([name is None for name in names], np.bool_)
    mask = unnamed[codes] if unnamed.any() else None
    return pa.DictionaryArray.from_arrays(
        pa.array(np.asarray(codes, np.int32), mask=mask), pa.array([name or "" for name in names], pa.string())
    )


def _grant_items(
    campaign: Campaign, rows: CampaignRows, keep: Ints, grant: OfferGrant, start: int
) -> tuple[Ints, pa.StructArray]:
    """The rows that are granted an offer, numbered from `start` on among the batch's events, and an item for each."""
    offer = next(offer for offer in campaign.offers if offer.id == grant.offer)
    granted = grant.granted[keep]
    n = int(np.count_nonzero(granted))
    expires_at = pa.nulls(n, pa.int64())
    if offer.valid_for is not None:
        expires_at = pa.array(rows.deliver_after[keep[granted]] + int(offer.valid_for.total_seconds() * 1000))
    columns = [
        _repeat(offer.id, n),
        _repeat(offer.kind, n),
        _repeat(offer.code, n) if grant.code is None else grant.code.cast(pa.string()),
        _repeat(offer.amount, n),
        _repeat(offer.currency, n),
        expires_at,
    ]
    return start + np.flatnonzero(granted), pa.StructArray.from_arrays(columns, fields=list(OFFER_TYPE))


def _repeat(text: str | None, n: int) -> pa.Array:
    return pa.repeat(pa.scalar(text, pa.string()), n)
