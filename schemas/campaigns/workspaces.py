"""What engine.yaml says about delivery: the vendor, and each retailer's workspace and pace there."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints, model_validator

from schemas.campaigns.audience import ListFile, Strict
from schemas.campaigns.campaign import Text
from schemas.campaigns.checks.values import MOST, Day, Duration

EnvironmentName = Annotated[str, StringConstraints(pattern=r"^[A-Z][A-Z0-9_]*(\{retailer\}[A-Z0-9_]*)?$")]
Clock = Annotated[str, StringConstraints(pattern=r"^([01]\d|2[0-3]):[0-5]\d$")]


class StopSignals(Strict):
    """A day whose share of bounces or of spam complaints is above these stops the ladder from rising."""

    bounce: float = Field(default=0.03, gt=0, le=1)
    spam: float = Field(default=0.0008, gt=0, le=1)


class WarmUp(Strict):
    """How many messages a day a young sender may send: a named ladder, or the days' numbers; after the last day
    there is no limit. `signals` is a CSV file: date,retailer_id,sent,bounced,complained."""

    ladder: Literal["conservative", "moderate"] | tuple[Annotated[int, Field(gt=0, le=MOST)], ...] = "moderate"
    started: Day
    stop: StopSignals = StopSignals()
    signals: ListFile | None = None


class Pace(Strict):
    """How fast a workspace is sent to. `per_second` and `burst` count messages, `calls_per_hour` the vendor's
    calls in a clock hour."""

    per_second: float | None = Field(default=None, gt=0, le=MOST)
    burst: int | None = Field(default=None, ge=1, le=MOST)
    calls_per_hour: int = Field(default=250_000, ge=1, le=MOST)
    warm_up: WarmUp | None = None


class Workspace(Strict):
    """A retailer's account at the vendor. What is left out is taken from the workspace `*`; in `url` and
    `key_env`, {retailer} stands for the retailer (in `key_env` in capitals, with _ for what is no letter or digit).
    `templates` maps a template to the retailer's own Liquid file. Two retailers that have one account (a key's
    variable, or url and key) must both name the same `shared_account`."""

    url: Text | None = None
    key_env: EnvironmentName | None = None
    paused: bool | None = None
    pace: Pace | None = None
    quiet_hours: tuple[Clock, Clock] | None = None
    templates: dict[Text, ListFile] = Field(default_factory=dict)
    shared_account: Text | None = None


LEASE_MARGIN = timedelta(seconds=1)
"""How much longer a lease is than a call, at least: a claim waits its turn before the call begins."""


def _default_lease(fields: dict[str, Any]) -> timedelta:
    return timedelta(seconds=20) + fields.get("timeout", timedelta(seconds=10))


class Delivery(Strict):
    """How events are delivered.

    `on_unknown`: what to do with an event whose call had no answer: `hold` settles it as unknown and does not send it
    again; `resend` sends it again, at most `resends` times and until `resend_within` after its first claim.
    `wait`: how long a batch that is not full waits for more events. `remember`: how long duplicates are recognised.
    `lease`: how long a claim lasts whose worker died: at least 1 s more than `timeout`, and 20 s more if left out.
    """

    vendor: Literal["outbox", "braze", "webhook"] = "outbox"
    on_unknown: Literal["resend", "hold"] = "hold"
    resends: int = Field(default=2, ge=1, le=10)
    resend_within: timedelta = Field(default=timedelta(hours=1), gt=timedelta(0), le=timedelta(days=7))
    timeout: timedelta = Field(default=timedelta(seconds=10), gt=timedelta(0), le=timedelta(minutes=5))
    lease: Duration = Field(default_factory=_default_lease, gt=timedelta(0))
    wait: timedelta = Field(default=timedelta(seconds=2), gt=timedelta(0), le=timedelta(hours=1))
    remember: Duration = Field(default=timedelta(days=7), gt=timedelta(0))

    @model_validator(mode="after")
    def _lease_outlasts_a_call(self) -> Delivery:
        least = (self.timeout + LEASE_MARGIN).total_seconds()
        if self.lease.total_seconds() < least:
            raise ValueError(
                f"`lease` must be at least {least:g} s, {LEASE_MARGIN.total_seconds():g} s more than `timeout`: a call "
                "that could outlast its lease is not made; or leave `lease` out, then it is `timeout` + 20 s"
            )
        return self


def key_variable(pattern: str, retailer: str) -> str:
    """The environment variable that holds a retailer's key: KEY_{retailer} of kroger-2 is KEY_KROGER_2."""
    return pattern.replace("{retailer}", re.sub(r"[^A-Z0-9]", "_", retailer.upper()))
