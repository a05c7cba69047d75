"""GenerateOffers: what each customer is given; budgets go to the first N by hash order."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from schemas.campaigns.campaign import Campaign, Offer
from schemas.elements import Bools, CampaignRows, Ints, LaunchBatch, OfferCount, OfferGrant
from schemas.outcomes import EMITTED, OUTCOMES, code
from transforms.columnar.digests import DIGITS, digests
from transforms.columnar.steps import BatchStep
from transforms.offers.codes import offer_codes
from transforms.plan import Plan

OrderKeys = npt.NDArray[np.bytes_]
ALL_VARIANTS = "suppress_all_variants"
SUPPRESSING = ("suppress", ALL_VARIANTS)
HELD_OUT = [place for place, outcome in enumerate(OUTCOMES) if outcome.outcome == "held_out"]


class Limit(NamedTuple):
    """How far a limited offer reaches: `size` customers at most.

    `keys` are, for a code list (`ranked`), the granted order keys, sorted: the n-th takes the n-th code. For a
    budget the last granted key, or nothing when fewer than `size` customers stand in the queue.
    """

    size: int
    keys: OrderKeys
    ranked: bool = False

    def within(self, keys: OrderKeys) -> Bools:
        """The keys that are granted."""
        if self.size == 0:
            return np.zeros(len(keys), np.bool_)
        if len(self.keys) == 0:
            return np.ones(len(keys), np.bool_)
        granted: Bools = keys <= self.keys[-1]
        return granted

    def beyond(self, keys: OrderKeys) -> Bools:
        """The keys past the last one that is granted, also of customers who do not stand in the queue."""
        return ~self.within(keys) if self.used_up else np.zeros(len(keys), np.bool_)

    @property
    def used_up(self) -> bool:
        """Whether all of it is granted."""
        return len(self.keys) >= self.size if self.ranked else self.size == 0 or len(self.keys) > 0


def order_keys(plan: Plan, rows: CampaignRows, offer: str, chosen: Ints) -> OrderKeys:
    """The place of customers in an offer's queue: the first 32 hex digits of SHA-256 of
    launch, campaign, offer, retailer and customer, joined by U+001F."""
    which = pa.array(chosen)
    prefix = f"{plan.launch_id}\x1f{rows.campaign}\x1f{offer}\x1f"
    return digests(prefix, rows.retailer.take(which).cast(pa.string()), rows.customer.take(which))


def offers_of(campaign: Campaign, variant: int) -> tuple[str, ...]:
    """The offers of a variant; those of the content where there is none (-1)."""
    if variant < 0 or campaign.experiment is None:
        return campaign.content.offers
    return campaign.experiment.variants[variant].offers


def wanted(campaign: Campaign, rows: CampaignRows, offer: str) -> Bools:
    """The rows whose variant has the offer and that are to be sent."""
    return np.isin(rows.variant, _having(campaign, offer)) & rows.emitted


def _having(campaign: Campaign, offer: str) -> list[int]:
    """The variants that have an offer; -1 stands for the content."""
    variants = range(-1, len(campaign.experiment.variants) if campaign.experiment else 0)
    return [variant for variant in variants if offer in offers_of(campaign, variant)]


def queue_name(campaign: Campaign, offer: str) -> str:
    """What an offer's queue is ordered by: the offer's id. All offers that suppress all variants share the order of the
    first of them, so that the shortest of their queues decides alone."""
    together = [one.id for one in campaign.offers if one.on_exhausted == ALL_VARIANTS]
    return together[0] if offer in together else offer


def cut_off(campaign: Campaign, rows: CampaignRows, offer: Offer) -> tuple[Bools, Bools]:
    """Whom an offer that suppresses when it runs out may cut off: the rows to be sent, and the rows held out, which are
    only marked. Where a variant has the offer, every variant is cut at the same place of the hash order."""
    having = _having(campaign, offer.id)
    none = np.zeros(len(rows.rows), np.bool_)
    if offer.on_exhausted not in SUPPRESSING or not having:
        return none, none
    if campaign.experiment and max(having) >= 0:
        having = [*range(len(campaign.experiment.variants)), *having]
    held = np.isin(rows.outcome, HELD_OUT) & (rows.suppression == EMITTED)
    return np.isin(rows.variant, having) & rows.emitted, held


def demand(plan: Plan, batch: LaunchBatch) -> dict[str, dict[str, OfferCount]]:
    """What would become of each offer, apart from the order in its queue: granted is who it is open to."""
    counts: dict[str, dict[str, OfferCount]] = {}
    for rows in batch.campaigns:
        campaign = plan.of(rows.campaign).campaign
        counts[campaign.id] = {}
        for offer in campaign.offers:
            want = wanted(campaign, rows, offer.id)
            meets = _count(want & condition(batch, rows, offer))
            open_to = 0 if offer.budget == 0 else meets
            counts[campaign.id][offer.id] = OfferCount(open_to, _count(want) - meets, meets - open_to)
    return counts


class OfferGenerator:
    """Grants the offers of a batch; `limits` by (campaign, offer), `codes` by code list file."""

    def __init__(
        self, plan: Plan, secret: bytes, limits: Mapping[tuple[str, str], Limit], codes: Mapping[str, pa.Array]
    ) -> None:
        self._plan = plan
        self._secret = secret
        self._limits = limits
        self._codes = codes

    def generate(self, batch: LaunchBatch) -> LaunchBatch:
        """The batch with the grants of every campaign and what became of each offer."""
        done, counts = [], {}
        for rows in batch.campaigns:
            campaign = self._plan.of(rows.campaign).campaign
            if campaign.offers:
                rows, counts[rows.campaign] = self._campaign(batch, campaign, rows)
            done.append(rows)
        batch.counts["offers"] = counts
        return replace(batch, campaigns=done)

    def _campaign(
        self, batch: LaunchBatch, campaign: Campaign, rows: CampaignRows
    ) -> tuple[CampaignRows, dict[str, OfferCount]]:
        none = np.zeros(len(rows.rows), np.bool_)
        own: dict[str, Bools] = {}
        unmet: dict[str, Bools] = {}
        refused: dict[str, Bools] = {}
        keys: dict[str, OrderKeys] = {}
        cut: dict[str, Bools] = {}
        held: dict[str, Bools] = {}
        outcome, suppression = rows.outcome.copy(), rows.suppression.copy()
        for offer in campaign.offers:
            want, met = wanted(campaign, rows, offer.id), condition(batch, rows, offer)
            meets = want & met
            own[offer.id], keys[offer.id] = self._granted(campaign, rows, offer, meets)
            unmet[offer.id], refused[offer.id] = want & ~meets, meets & ~own[offer.id]
            cut[offer.id], held[offer.id] = self._beyond(campaign, rows, offer, met)
            outcome[cut[offer.id]] = code("suppressed", "offer_exhausted")
            suppression[cut[offer.id] | held[offer.id]] = code("suppressed", "offer_exhausted")
        sent = outcome == EMITTED
        instead = {offer.id: none for offer in campaign.offers}
        for offer in campaign.offers:
            if offer.fallback is not None:
                instead[offer.fallback] = instead[offer.fallback] | refused[offer.id]
        rows = replace(rows, outcome=outcome, suppression=suppression)
        grants, counts = [], {}
        for offer in campaign.offers:
            name = offer.id
            granted = (own[name] | instead[name]) & sent
            grants.append(OfferGrant(name, granted, self._code(rows, offer, granted, keys[name])))
            by_fallback = instead[name] & ~own[name] & sent
            others = cut[name] & ~refused[name]
            masks = (own[name] & sent, unmet[name], refused[name], by_fallback, others, held[name])
            counts[name] = OfferCount(*map(_count, masks))
        return replace(rows, offers=grants), counts

    def _beyond(self, campaign: Campaign, rows: CampaignRows, offer: Offer, met: Bools) -> tuple[Bools, Bools]:
        """The rows that an exhausted offer suppresses, and the rows held out that it would have suppressed."""
        sent, held = cut_off(campaign, rows, offer)
        chosen = np.flatnonzero((sent | held) & met)
        beyond = np.zeros(len(met), np.bool_)
        if len(chosen):
            keys = order_keys(self._plan, rows, queue_name(campaign, offer.id), chosen)
            beyond[chosen] = self._limits[rows.campaign, offer.id].beyond(keys)
        return sent & beyond, held & beyond

    def _granted(self, campaign: Campaign, rows: CampaignRows, offer: Offer, meets: Bools) -> tuple[Bools, OrderKeys]:
        """The rows within the offer's limit, and every row's place in its queue (empty where unlimited)."""
        keys: OrderKeys = np.zeros(len(meets), f"S{DIGITS}")
        if not offer.limited:
            return meets, keys
        chosen = np.flatnonzero(meets)
        keys[chosen] = order_keys(self._plan, rows, queue_name(campaign, offer.id), chosen)
        gets = np.zeros(len(meets), np.bool_)
        gets[chosen] = self._limits[rows.campaign, offer.id].within(keys[chosen])
        return gets, keys

    def _code(self, rows: CampaignRows, offer: Offer, granted: Bools, keys: OrderKeys) -> pa.Array | None:
        """The codes of the granted rows, in their order; None for an offer without a code of its own."""
        if offer.kind == "unique_code":
            which = pa.array(granted)
            retailer, customer = rows.retailer.filter(which).cast(pa.string()), rows.customer.filter(which)
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


class GenerateOffers(BatchStep):
    """LaunchBatches with the offers and codes of every customer."""

    stage = "offers"
