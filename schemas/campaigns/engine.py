"""engine.yaml: the tenants and the rules that hold for every campaign."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from schemas.campaigns.audience import ListFile, Name, Strict
from schemas.campaigns.campaign import Share, Text
from schemas.campaigns.checks.values import Count, Duration, refuse, time_zones
from schemas.campaigns.workspaces import Delivery, Workspace

_known_zone = refuse(lambda name: name not in time_zones(), "is no IANA time zone; write one such as America/Chicago")
TimeZone = Annotated[str, AfterValidator(_known_zone)]


class Columns(Strict):
    """Which column of the customers holds what."""

    customer: Text = "customer_id"
    retailer: Text = "retailer_id"
    time_zone: Text | None = None


class Channel(Strict):
    """Where a channel's address and consent stand; `consent` is a BOOLEAN column."""

    address: Text
    consent: Text | None = None


class Retailer(Strict):
    """What is particular to one retailer; the retailer `*` gives the defaults."""

    time_zone: TimeZone | None = None
    opted_out: bool | None = None


class GlobalHoldout(Strict):
    """The customers that no campaign may reach; also the seed of the retailers' holdouts."""

    share: Share = 0.0
    seed: Text = "global-holdout"
    unit: Text = "customer_id"


class Holdouts(Strict):
    """`global`, then the share of each retailer (`*` for all others)."""

    global_: GlobalHoldout = Field(default=GlobalHoldout(), alias="global")
    retailers: dict[str, Share] = Field(default_factory=dict)


class Cap(Strict):
    """At most `at_most` messages of a channel to a customer `within` a rolling time."""

    channel: Name
    at_most: Count
    within: Duration = Field(gt=timedelta(0))


class SuppressionList(Strict):
    """A list of who must not be sent to, looked up by a column of the customers (of a channel, or of all)."""

    file: ListFile
    column: Text = "customer_id"
    channel: Name | None = None


class SharedAddress(Strict):
    """Which customer is kept when several of a retailer have one address: the one with the highest
    (or lowest) value of a column, then the first by hash order."""

    column: Text | None = None
    keep: Literal["highest", "lowest"] = "highest"


class EngineConfig(Strict):
    """engine.yaml, checked. `strict`: warnings are mistakes, as with --strict."""

    columns: Columns = Columns()
    channels: dict[Name, Channel] = Field(min_length=1)
    retailers: dict[str, Retailer] = Field(default_factory=dict)
    holdouts: Holdouts = Holdouts()
    caps: tuple[Cap, ...] = ()
    suppression_lists: tuple[SuppressionList, ...] = ()
    shared_address: SharedAddress = SharedAddress()
    delivery: Delivery = Delivery()
    workspaces: dict[str, Workspace] = Field(default_factory=dict)
    strict: bool = False
    code_secret: Annotated[str, Field(pattern=r"^[A-Z][A-Z0-9_]*$")] = "CAMPAIGNS_CODE_SECRET"

    def time_zone(self, retailer: str) -> str:
        """The time zone of a retailer's customers that have none of their own."""
        for name in (retailer, "*"):
            if name in self.retailers and (zone := self.retailers[name].time_zone):
                return zone
        return "UTC"

    def opted_out(self, retailer: str) -> bool:
        """Whether a retailer sends nothing at all."""
        for name in (retailer, "*"):
            if name in self.retailers and (out := self.retailers[name].opted_out) is not None:
                return out
        return False

    def workspace(self, retailer: str) -> Workspace:
        """A retailer's workspace, what it leaves out taken from the workspace `*`."""
        workspace, common = self.workspaces.get(retailer), self.workspaces.get("*", Workspace())
        if workspace is None:
            return common
        overrides = {name: getattr(workspace, name) for name in workspace.model_fields_set}
        return common.model_copy(update={**overrides, "templates": {**common.templates, **workspace.templates}})
