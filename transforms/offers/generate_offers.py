"""GenerateOffers: the offers and codes of each customer; a budget goes to the first N by hash order."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial, reduce
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from schemas.campaigns.campaign import Campaign, Offer
from schemas.elements import Bools, CampaignRows, Ints, LaunchBatch, OfferCount, OfferGrant
from schemas.outcomes import EMITTED, OUTCOMES, code
from transforms.columnar.digests import DIGITS, digests
from transforms.columnar.steps import MapBatches
from transforms.launch_plan import Plan
from transforms.offers.codes import offer_codes

OrderKeys = npt.NDArray[np.bytes_]
Capacity = Mapping[tuple[str, str], int]
"""By (campaign, offer), the number of customers that a limited offer can serve."""
Allocations = Mapping[tuple[str, str], OrderKeys]
"""By (campaign, offer), the order keys that the survey allocated, sorted: all of a code list, the last of a budget."""
ALL_VARIANTS = "suppress_all_variants"
SUPPRESSING = ("suppress", ALL_VARIANTS)
HELD_OUT = [number for number, outcome in enumerate(OUTCOMES) if outcome.outcome == "held_out"]


class GenerateOffers(MapBatches):
    """LaunchBatches with the offers and codes of every customer.

    Once a worker `read_allocations` reads what the survey decided about the limited offers, `read_codes` the codes of
    a list file, and `read_secret` the secret of the unique codes.
    """

    def __init__(
        self,
        plan: Plan,
        capacity: Capacity,
        read_allocations: Callable[[], Allocations],
        read_codes: Callable[[str], pa.Array],
        read_secret: Callable[[], bytes],
    ) -> None:
        super().__init__("offers", partial(OfferGenerator, plan, capacity, read_allocations, read_codes, read_secret))


class Limit(NamedTuple):
    """The limit of an offer: it is granted to `size` customers at most.

    `keys` are the granted order keys of a code list (`ranked`), sorted: the n-th key takes the n-th code. Of a budget
    they are the last granted key alone, or empty when the demand is below `size`.
    """

    size: int
    keys: OrderKeys
    ranked: bool = False

    def within(self, keys: OrderKeys) -> Bools:
        """Whether each key is granted."""
        if self.size == 0:
            return np.zeros(len(keys), np.bool_)
        if len(self.keys) == 0:
            return np.ones(len(keys), np.bool_)
        return keys <= self.keys[-1]

    def beyond(self, keys: OrderKeys) -> Bools:
        """Whether each key, also one of a customer without the offer, comes after the last granted one."""
        return ~self.within(keys) if self.used_up else np.zeros(len(keys), np.bool_)

    @property
    def used_up(self) -> bool:
        """Whether `size` customers are granted it."""
        return len(self.keys) >= self.size if self.ranked else self.size == 0 or len(self.keys) > 0


def offer_limits(plan: Plan, capacity: Capacity, allocations: Allocations) -> dict[tuple[str, str], Limit]:
    """The limit of each limited offer, by (campaign, offer)."""
    listed = {(entry.campaign.id, o.id) for entry in plan.campaigns for o in entry.campaign.offers if o.codes}
    return {key: Limit(size, allocations[key], key in listed) for key, size in capacity.items()}


def order_keys(plan: Plan, rows: CampaignRows, offer: str, chosen: Ints) -> OrderKeys:
    """The keys by which an offer is granted, lowest first: of each chosen row the first 32 hex digits of SHA-256 of
    launch, campaign, offer, retailer and customer, joined by U+001F."""
    which = pa.array(chosen)
    prefix = f"{plan.launch_id}\x1f{rows.campaign}\x1f{offer}\x1f"
    return digests(prefix, rows.retailer.take(which).cast(pa.string()), rows.customer.take(which))


def wanted(campaign: Campaign, rows: CampaignRows, offer: str) -> Bools:
    """The rows that are sent a variant with the offer."""
    return np.isin(rows.variant, _variants_with(campaign, offer)) & rows.emitted


def _variants_with(campaign: Campaign, offer: str) -> list[int]:
    """The numbers of the variants with an offer; -1 for the campaign's content."""
    variants = campaign.experiment.variants if campaign.experiment else ()
    offers = [campaign.content.offers, *(variant.offers for variant in variants)]
    return [number for number, of_variant in enumerate(offers, -1) if offer in of_variant]


def order_name(campaign: Campaign, offer: str) -> str:
    """The name in the order keys of an offer: its id. All offers that suppress all variants share the name of the first
    of them, and so one order: the offer that runs out first cuts them all."""
    shared = [other.id for other in campaign.offers if other.on_exhausted == ALL_VARIANTS]
    return shared[0] if offer in shared else offer


def cut_off(campaign: Campaign, rows: CampaignRows, offer: Offer) -> tuple[Bools, Bools]:
    """The rows that an offer may suppress when it runs out: those that are sent an event, and those held out, of which
    only `suppression` changes. Where a variant has the offer, every variant is cut at the same place of the hash
    order."""
    having = _variants_with(campaign, offer.id)
    none = np.zeros(len(rows.rows), np.bool_)
    if offer.on_exhausted not in SUPPRESSING or not having:
        return none, none
    if campaign.experiment and max(having) >= 0:
        having = [*range(len(campaign.experiment.variants)), *having]
    held_out = np.isin(rows.outcome, HELD_OUT) & (rows.suppression == EMITTED)
    return np.isin(rows.variant, having) & rows.emitted, held_out


def demand(plan: Plan, batch: LaunchBatch) -> dict[str, dict[str, OfferCount]]:
    """The counts of each offer as if none ran out: `granted` are all that are sent it and meet its condition."""
    counts: dict[str, dict[str, OfferCount]] = {}
    for rows in batch.campaigns:
        campaign = plan.campaign_plan(rows.campaign).campaign
        counts[campaign.id] = {}
        for offer in campaign.offers:
            want = wanted(campaign, rows, offer.id)
            meets = _count(want & condition(batch, rows, offer))
            granted = 0 if offer.budget == 0 else meets
            counts[campaign.id][offer.id] = OfferCount(granted, _count(want) - meets, meets - granted)
    return counts


class OfferGenerator:
    """Grants the offers of a batch. Counts `offers`: an OfferCount by campaign and offer."""

    def __init__(
        self,
        plan: Plan,
        capacity: Capacity,
        read_allocations: Callable[[], Allocations],
        read_codes: Callable[[str], pa.Array],
        read_secret: Callable[[], bytes],
    ) -> None:
        self._plan = plan
        self._limits = offer_limits(plan, capacity, read_allocations())
        files = {offer.codes for entry in plan.campaigns for offer in entry.campaign.offers if offer.codes}
        self._codes = {file: read_codes(file) for file in files}
        self._secret = read_secret()

    def __call__(self, batch: LaunchBatch) -> LaunchBatch:
        """The batch with the grants of every campaign."""
        campaigns, counts = [], {}
        for rows in batch.campaigns:
            campaign = self._plan.campaign_plan(rows.campaign).campaign
            if campaign.offers:
                rows, counts[rows.campaign] = self._grant(batch, campaign, rows)
            campaigns.append(rows)
        return replace(batch.with_counts(offers=counts), campaigns=campaigns)

    def _grant(
        self, batch: LaunchBatch, campaign: Campaign, rows: CampaignRows
    ) -> tuple[CampaignRows, dict[str, OfferCount]]:
        none = np.zeros(len(rows.rows), np.bool_)
        within: dict[str, Bools] = {}
        unmet: dict[str, Bools] = {}
        refused: dict[str, Bools] = {}
        keys: dict[str, OrderKeys] = {}
        cut: dict[str, Bools] = {}
        held_out: dict[str, Bools] = {}
        outcome, suppression = rows.outcome.copy(), rows.suppression.copy()
        for offer in campaign.offers:
            want, met = wanted(campaign, rows, offer.id), condition(batch, rows, offer)
            meets = want & met
            within[offer.id], keys[offer.id] = self._within_limit(campaign, rows, offer, meets)
            unmet[offer.id], refused[offer.id] = want & ~meets, meets & ~within[offer.id]
            cut[offer.id], held_out[offer.id] = self._cut_off(campaign, rows, offer, met)
            outcome[cut[offer.id]] = code("suppressed", "offer_exhausted")
            suppression[cut[offer.id] | held_out[offer.id]] = code("suppressed", "offer_exhausted")
        sent = outcome == EMITTED
        grants, counts = [], {}
        for offer in campaign.offers:
            name = offer.id
            fallback = reduce(np.logical_or, (refused[o.id] for o in campaign.offers if o.fallback == name), none)
            granted = (within[name] | fallback) & sent
            grants.append(OfferGrant(name, granted, self._codes_of(rows, offer, granted, keys[name])))
            by_fallback = fallback & ~within[name] & sent
            others = cut[name] & ~refused[name]
            masks = (within[name] & sent, unmet[name], refused[name], by_fallback, others, held_out[name])
            counts[name] = OfferCount(*map(_count, masks))
        return replace(rows, outcome=outcome, suppression=suppression, offers=grants), counts

    def _cut_off(self, campaign: Campaign, rows: CampaignRows, offer: Offer, met: Bools) -> tuple[Bools, Bools]:
        """The rows that an exhausted offer suppresses, and the rows held out that it would have suppressed."""
        sent, held_out = cut_off(campaign, rows, offer)
        chosen = np.flatnonzero((sent | held_out) & met)
        beyond = np.zeros(len(met), np.bool_)
        if len(chosen):
            keys = order_keys(self._plan, rows, order_name(campaign, offer.id), chosen)
            beyond[chosen] = self._limits[rows.campaign, offer.id].beyond(keys)
        return sent & beyond, held_out & beyond

    def _within_limit(
        self, campaign: Campaign, rows: CampaignRows, offer: Offer, meets: Bools
    ) -> tuple[Bools, OrderKeys]:
        """The rows within the offer's limit, and the order key of each row (empty where unlimited)."""
        keys: OrderKeys = np.zeros(len(meets), f"S{DIGITS}")
        if not offer.limited:
            return meets, keys
        chosen = np.flatnonzero(meets)
        keys[chosen] = order_keys(self._plan, rows, order_name(campaign, offer.id), chosen)
        granted = np.zeros(len(meets), np.bool_)
        granted[chosen] = self._limits[rows.campaign, offer.id].within(keys[chosen])
        return granted, keys

    def _codes_of(self, rows: CampaignRows, offer: Offer, granted: Bools, keys: OrderKeys) -> pa.Array | None:
        """The codes of the granted rows, in their order; None for an offer without a code of its own."""
        if offer.kind == "unique_code":
            mask = pa.array(granted)
            retailer, customer = rows.retailer.filter(mask).cast(pa.string()), rows.customer.filter(mask)
            return offer_codes(self._secret, self._plan.launch_id, offer.id, retailer, customer)
        if offer.kind == "code_list" and offer.codes is not None:
            ranks = np.searchsorted(self._limits[rows.campaign, offer.id].keys, keys[granted])
            return self._codes[offer.codes].take(pa.array(ranks))
        return None


def condition(batch: LaunchBatch, rows: CampaignRows, offer: Offer) -> Bools:
    """The rows that meet an offer's `when`."""
    if offer.when is None:
        return np.ones(len(rows.rows), np.bool_)
    return batch.offer_conditions[offer.when][rows.rows]


def _count(mask: Bools) -> int:
    return int(np.count_nonzero(mask))
