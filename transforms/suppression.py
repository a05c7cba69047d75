"""Suppress: who must not be sent to, and why; the first reason in the documented order counts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from schemas.elements import Bools, CampaignRows, LaunchBatch
from schemas.outcomes import EMITTED, code
from transforms.frequency import LaunchSends, SendHistory
from transforms.id_index import IdIndex, joined_key
from transforms.plan import Plan
from transforms.send_time import send_times
from transforms.steps import BatchStep


class SuppressionLists(NamedTuple):
    """Who is on which list: (channel or None for all, customers' column, ids)."""

    lists: tuple[tuple[str | None, str, IdIndex], ...]

    def mask(self, batch: LaunchBatch, rows: CampaignRows, channel: str) -> Bools:
        """The rows that are on a list for this channel."""
        found = np.zeros(len(rows.rows), np.bool_)
        for list_channel, column, ids in self.lists:
            if list_channel in (None, channel):
                found |= ids.contains(batch.column(column, rows.rows))
        return found


class Suppressor:
    """Decides for a batch, campaign by campaign in order of priority; one a worker.

    `histories` by channel; `shared` gives, by batch name and campaign, the rows that another customer
    with the same address was preferred to.
    """

    def __init__(
        self,
        plan: Plan,
        lists: SuppressionLists,
        histories: Mapping[str, SendHistory],
        shared: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        self._plan = plan
        self._engine = plan.engine
        self._lists = lists
        self._histories = histories
        self._shared = shared or {}

    def suppress(self, batch: LaunchBatch) -> LaunchBatch:
        """The batch with times, addresses and suppressions; held-out rows keep their outcome."""
        earlier = LaunchSends(batch.rows.num_rows)
        zones = self._zones(batch)
        shared = self._shared.get(batch.name, {})
        done = []
        for rows in batch.campaigns:
            rows = self._timed(batch, rows, zones)
            done.append(self._one(batch, rows, earlier, shared.get(rows.campaign)))
        return replace(batch, campaigns=done)

    def _zones(self, batch: LaunchBatch) -> pa.Array:
        """Each customer's time zone: its own, else the retailer's."""
        defaults = pa.array([self._engine.time_zone(retailer) for retailer in batch.retailers], pa.string())
        of_retailer = defaults.take(pa.array(batch.retailer))
        column = self._engine.columns.time_zone
        return pc.coalesce(batch.rows.column(column).cast(pa.string()), of_retailer) if column else of_retailer

    def _timed(self, batch: LaunchBatch, rows: CampaignRows, zones: pa.Array) -> CampaignRows:
        schedule = self._plan.of(rows.campaign).campaign.schedule
        times = send_times(
            start=schedule.start or self._plan.launched,
            local_time=schedule.local_time,
            quiet_hours=schedule.quiet_hours,
            expires=schedule.expires,
            zones=zones.take(pa.array(rows.rows)),
            default_zone=self._engine.time_zone("*"),
        )
        suppression = rows.suppression.copy()
        suppression[times.window_closed] = code("suppressed", "window_closed")
        if times.unknown_zone.any():
            batch.counts["unknown_time_zones"] = int(np.count_nonzero(times.unknown_zone))
        return replace(rows, deliver_after=times.deliver_after, expires_at=times.expires_at, suppression=suppression)

    def _one(self, batch: LaunchBatch, rows: CampaignRows, earlier: LaunchSends, shared: Any) -> CampaignRows:
        campaign = self._plan.of(rows.campaign).campaign
        channel = self._engine.channels[campaign.channel]
        recipient = pc.utf8_trim_whitespace(batch.column(channel.address, rows.rows))
        reasons: list[tuple[str, Bools]] = [
            ("retailer_opted_out", self._opted_out(batch, rows)),
            ("no_consent", _without(batch, rows, channel.consent)),
            ("suppression_list", self._lists.mask(batch, rows, campaign.channel)),
            ("no_address", np.asarray(pc.fill_null(pc.equal(pc.binary_length(recipient), 0), True))),
            ("window_closed", rows.suppression == code("suppressed", "window_closed")),
        ]
        suppression = np.zeros(len(rows.rows), np.uint8)
        for reason, mask in reversed(reasons):
            suppression[mask] = code("suppressed", reason)
        rows = replace(rows, suppression=suppression, recipient=recipient)
        self._cap(rows, campaign.channel, earlier)
        if shared is not None:
            suppression[np.isin(rows.rows, shared) & (suppression == EMITTED)] = code("suppressed", "shared_address")
        outcome = np.where(rows.outcome == EMITTED, suppression, rows.outcome)
        return replace(rows, outcome=outcome)

    def _opted_out(self, batch: LaunchBatch, rows: CampaignRows) -> Bools:
        out = np.array([self._engine.opted_out(retailer) for retailer in batch.retailers], np.bool_)
        return out[batch.retailer[rows.rows]]

    def _cap(self, rows: CampaignRows, channel: str, earlier: LaunchSends) -> None:
        caps = [cap for cap in self._engine.caps if cap.channel == channel]
        if not caps:
            return
        history = self._histories.get(channel)
        keys = joined_key(rows.retailer.cast(pa.string()), rows.customer)
        for cap in caps:
            count = earlier.count(channel, rows.rows, rows.deliver_after, cap.within)
            if history is not None:
                count = count + history.count(keys, rows.deliver_after, cap.within)
            rows.suppression[(count >= cap.at_most) & (rows.suppression == EMITTED)] = code(
                "suppressed", "frequency_cap"
            )
        sent = (rows.suppression == EMITTED) & (rows.outcome == EMITTED)
        earlier.take(channel, rows.rows, rows.deliver_after, sent)


def _without(batch: LaunchBatch, rows: CampaignRows, consent: str | None) -> Bools:
    if consent is None:
        return np.zeros(len(rows.rows), np.bool_)
    given = pc.fill_null(batch.rows.column(consent).cast(pa.bool_()).take(pa.array(rows.rows)), False)
    return ~np.asarray(given.to_numpy(zero_copy_only=False), dtype=np.bool_)


class Suppress(BatchStep):
    """LaunchBatches with send times, addresses and suppressions."""

    stage = "suppression"
