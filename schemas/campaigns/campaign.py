"""A campaign: one YAML file."""

from __future__ import annotations

import re
from datetime import datetime, time, timedelta
from decimal import Decimal
from typing import Annotated, Literal, Self

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Discriminator,
    Field,
    StringConstraints,
    Tag,
    field_validator,
    model_validator,
)

from schemas.campaigns.audience import ListFile, Name, Node, Sql, Strict
from schemas.campaigns.checks.values import Count, Duration, Moment, NoBoolean, Version, is_number, refuse

Share = Annotated[float, NoBoolean, Field(ge=0, le=1)]
Text = Annotated[str, StringConstraints(min_length=1, max_length=200)]
PropertyName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,63}$")]
Scheme = Literal[
    "growthbook/1", "growthbook/2", "unleash/rollout", "unleash/variant", "eppo",
    "optimizely", "launchdarkly", "planout", "statsig",
]  # fmt: skip


class Namespace(Strict):
    """A share of the units for this experiment alone; campaigns that share `key` split its [0, 1)."""

    key: Text
    range: tuple[Share, Share] | None = None
    ranges: tuple[tuple[Share, Share], ...] = ()
    seed: Text | None = None
    unit: Text | None = None

    @model_validator(mode="after")
    def _ranges(self) -> Self:
        if (self.range is None) == (not self.ranges):
            raise ValueError("give either range: [start, end] or ranges: [[start, end], …]")
        for start, end in self.all_ranges:
            if start >= end:
                raise ValueError(f"the start {start} of a range must be below its end {end}")
        return self

    @property
    def all_ranges(self) -> tuple[tuple[float, float], ...]:
        return self.ranges or ((self.range,) if self.range else ())

    @property
    def hashing(self) -> tuple[Scheme, str]:
        """The scheme and the seed: GrowthBook's classic form, or its newer one with several ranges or an own seed."""
        if self.range is not None and self.seed is None:
            return "growthbook/1", f"__{self.key}"
        return "growthbook/2", self.seed or self.key


class Variant(Strict):
    """One arm: its weight, and what its customers are sent."""

    key: Name
    weight: Share | None = None
    template: Text | None = None
    offers: tuple[Name, ...] = ()


class Experiment(Strict):
    """How the matched customers are split; see docs/experiments.md."""

    key: Text
    seed: Text | None = None
    hash: Scheme = "growthbook/2"
    unit: Text = "customer_id"
    coverage: Share = 1.0
    namespace: Namespace | None = None
    holdout: Share = 0.0
    outside: Literal["include", "exclude"] = "include"
    variants: tuple[Variant, ...] = Field(min_length=1)
    sticky: bool = False
    bucket_version: Version = 0
    min_bucket_version: Version = 0
    force: dict[str, Name] = Field(default_factory=dict)

    @field_validator("variants")
    @classmethod
    def _shares(cls, variants: tuple[Variant, ...]) -> tuple[Variant, ...]:
        if len({variant.key for variant in variants}) < len(variants):
            raise ValueError("two variants have the same key")
        given = [variant.weight for variant in variants if variant.weight is not None]
        if given and len(given) < len(variants):
            raise ValueError("give a weight to every variant or to none (equal shares)")
        missing = round(1 - sum(given), 6) if given else 0
        if missing:
            fix = f"add {missing:g} to them" if missing > 0 else f"take {-missing:g} from them"
            other = "or give none for equal shares; coverage: 0.9 leaves a tenth of the units out"
            raise ValueError(f"the weights sum to {sum(given):g}, not to 1: {fix}, {other}")
        return variants

    @model_validator(mode="after")
    def _forced(self) -> Self:
        unknown = sorted(set(self.force.values()) - {variant.key for variant in self.variants})
        if unknown:
            raise ValueError(f"force names {unknown[0]!r}, which is no variant of this experiment")
        return self

    @property
    def weights(self) -> list[float]:
        """The weight of each variant; equal shares when none is given."""
        weights = [variant.weight for variant in self.variants]
        return [1 / len(weights) if weight is None else weight for weight in weights]


class Offer(Strict):
    """What a customer is given: a fixed one, a derived unique code, or a code of a list."""

    id: Name
    kind: Literal["fixed", "unique_code", "code_list"]
    value: Decimal | None = Field(default=None, ge=0, max_digits=18, decimal_places=4)
    currency: Annotated[str, StringConstraints(pattern=r"^[A-Z]{3}$")] | None = None
    code: Text | None = None
    codes: ListFile | None = None
    valid_for: Annotated[Duration, Field(gt=timedelta(0))] | None = None
    when: Sql | None = None
    budget: Count | None = None
    on_exhausted: Literal["without", "fallback", "suppress", "suppress_all_variants"] = "without"
    fallback: Name | None = None

    @model_validator(mode="after")
    def _kinds(self) -> Self:
        if (self.kind == "code_list") != (self.codes is not None):
            raise ValueError("codes: FILE belongs to kind code_list, and only to it")
        if self.code is not None and self.kind != "fixed":
            raise ValueError("code: TEXT belongs to kind fixed; the other kinds make their own codes")
        if (self.on_exhausted == "fallback") != (self.fallback is not None):
            raise ValueError("fallback: OFFER and on_exhausted: fallback belong together")
        if self.on_exhausted != "without" and not self.limited:
            raise ValueError("on_exhausted needs a budget or a code list: nothing else runs out")
        return self

    @property
    def amount(self) -> str | None:
        """The value as text; money has two decimals at least."""
        if self.value is None:
            return None
        short = self.currency is not None and self.value == round(self.value, 2)
        return f"{self.value:.2f}" if short else format(self.value, "f")

    @property
    def limited(self) -> bool:
        """Whether it can run out."""
        return self.budget is not None or self.kind == "code_list"


class Content(Strict):
    """What is sent: a template, and properties as SQL expressions over the customer's columns."""

    template: Text | None = None
    properties: dict[PropertyName, Sql] = Field(default_factory=dict)
    offers: tuple[Name, ...] = ()


_in_quotes = refuse(is_number, 'put the time in quotes: "21:00"')
_no_zone = refuse(
    lambda clock: clock.tzinfo is not None, "quiet hours are the customer's: write the time without a zone"
)


def _expiry(raw: object) -> str:
    moment = isinstance(raw, datetime) or (isinstance(raw, str) and re.match(r"\s*\d{4,}-", raw))
    return "moment" if moment else "duration"


Clock = Annotated[time, BeforeValidator(_in_quotes), AfterValidator(_no_zone)]
Expiry = Annotated[Annotated[Duration, Tag("duration")] | Annotated[Moment, Tag("moment")], Discriminator(_expiry)]


class Schedule(Strict):
    """When it may be delivered: `start` in the customer's time zone with `local_time`, else in UTC."""

    start: Moment | None = None
    expires: Expiry | None = None
    local_time: bool = False
    quiet_hours: tuple[Clock, Clock] | None = None

    @model_validator(mode="after")
    def _order(self) -> Self:
        if self.local_time and (self.start is None or self.start.tzinfo is not None):
            raise ValueError("local_time needs a start without a zone, such as 2026-04-01T09:00")
        if isinstance(self.expires, timedelta) and self.expires <= timedelta(0):
            raise ValueError("expires must be after the start")
        if isinstance(self.expires, datetime) and self.start is not None:
            aware = self.expires.tzinfo is not None
            if aware != (self.start.tzinfo is not None):
                raise ValueError("write start and expires both with a zone or both without")
            if self.expires <= self.start:
                raise ValueError(f"the start {self.start} is not before the end {self.expires}")
        if self.quiet_hours and self.quiet_hours[0] == self.quiet_hours[1]:
            raise ValueError("quiet_hours from a time to the same time leave no time to send")
        return self


class Vendor(Strict):
    """The campaign's name at the vendor."""

    campaign: Text | None = None


class Campaign(Strict):
    """One campaign file, checked."""

    id: Name
    description: str = ""
    surface: Literal["marketplace", "storefront"]
    retailers: tuple[Text, ...] = Field(("*",), min_length=1)
    channel: Name
    priority: Annotated[int, NoBoolean] = Field(default=100, ge=-1_000_000, le=1_000_000)
    audience: Node
    experiment: Experiment | None = None
    offers: tuple[Offer, ...] = ()
    content: Content = Content()
    schedule: Schedule = Schedule()
    vendor: Vendor = Vendor()

    @field_validator("retailers")
    @classmethod
    def _every(cls, retailers: tuple[str, ...]) -> tuple[str, ...]:
        if "*" in retailers and len(retailers) > 1:
            raise ValueError('"*" is every retailer; write it alone, or name the retailers without it')
        return retailers

    @model_validator(mode="after")
    def _offers(self) -> Self:
        known = [offer.id for offer in self.offers]
        if len(set(known)) < len(known):
            raise ValueError("two offers have the same id")
        used = {*self.content.offers, *(offer.fallback for offer in self.offers if offer.fallback)}
        for variant in self.experiment.variants if self.experiment else ():
            used |= set(variant.offers)
        missing = sorted(used - set(known))
        if missing:
            raise ValueError(f"the offer {missing[0]!r} is used but not declared under offers:")
        for offer in self.offers:
            if offer.fallback and next(o for o in self.offers if o.id == offer.fallback).limited:
                raise ValueError(f"the fallback of {offer.id!r} can run out itself; use an unlimited one")
        return self
