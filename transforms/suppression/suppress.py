"""Suppress: who must not be sent to, and why; the first reason in the documented order counts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from schemas.columns.ids import trimmed
from schemas.elements import Bools, CampaignRows, Ints, LaunchBatch
from schemas.outcomes import EMITTED, code
from schemas.problems import shown
from transforms.columnar.id_index import joined_key
from transforms.columnar.list_index import ListIndex
from transforms.columnar.steps import BatchStep
from transforms.events.send_time import customer_zones, send_times
from transforms.plan import Plan
from transforms.suppression.frequency_caps import LaunchSends, SendHistory
from transforms.warnings.evidence import list_use

SuppressionLists = Sequence[tuple[str | None, str, ListIndex]]
"""Who is on which list: (channel or None for all, customers' column, ids)."""

VALUES, OTHERS = 100, "others"


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
        shared = self._shared.get(batch.name, {})
        matched = batch.matched()
        zones = self._zones(batch, matched)
        places = [ids.find(batch.rows.column(column)) for _, column, ids in self._lists]
        files = [entry.file for entry in self._engine.suppression_lists]
        uses = {
            (file, column): list_use(file, column, ids, found)
            for file, (_, column, ids), found in zip(files, self._lists, places, strict=True)
        }
        batch.counts["suppression_lists"] = list(uses.values())
        sent = self._sent(batch)
        batch.counts["history"] = [
            [name, self._histories[name].customers, self._histories[name].first, int((found >= 0).sum())]
            for name, found in sent.items()
        ]
        channels = {
            name: self._channel(batch, name, matched, places, sent.get(name))
            for name in {self._plan.of(rows.campaign).campaign.channel for rows in batch.campaigns}
        }
        done = []
        for rows in batch.campaigns:
            facts = channels[self._plan.of(rows.campaign).campaign.channel]
            done.append(self._one(batch, rows, facts, zones, earlier, shared.get(rows.campaign)))
        return replace(batch, campaigns=done)

    def _zones(self, batch: LaunchBatch, matched: Ints) -> pa.DictionaryArray:
        """Each customer's time zone: its own, else the retailer's. Texts of the matched that name no zone are counted,
        each with a customer."""
        defaults = pa.array([self._engine.time_zone(retailer) for retailer in batch.retailers], pa.string())
        of_retailer = defaults.take(pa.array(batch.retailer))
        column = self._engine.columns.time_zone
        if column is None:
            return of_retailer.dictionary_encode()
        zones, unknown = customer_zones(batch.rows.column(column), of_retailer)
        wrong = matched[unknown[matched]]
        names = self._engine.columns
        batch.counts["unknown_time_zones"] = value_counts(
            batch.column(column, wrong), batch.column(names.customer, wrong), batch.column(names.retailer, wrong)
        )
        return zones.dictionary_encode()

    def _channel(
        self, batch: LaunchBatch, name: str, matched: Ints, on_lists: Sequence[Ints], sent: Ints | None
    ) -> _Channel:
        """What holds for the customers of a batch on a channel, whatever the campaign."""
        channel = self._engine.channels[name]
        address = trimmed(batch.column(channel.address, matched))
        out = np.array([self._engine.opted_out(retailer) for retailer in batch.retailers], np.bool_)
        listed = np.zeros(len(matched), np.bool_)
        for (list_channel, _, _), found in zip(self._lists, on_lists, strict=True):
            if list_channel in (None, name):
                listed |= found[matched] >= 0
        reasons = [
            ("retailer_opted_out", out[batch.retailer[matched]]),
            ("no_consent", _without(batch, matched, channel.consent)),
            ("suppression_list", listed),
            ("no_address", np.asarray(pc.fill_null(pc.equal(pc.binary_length(address), 0), True))),
        ]
        suppression = np.zeros(len(matched), np.uint8)
        for reason, mask in reversed(reasons):
            suppression[mask] = code("suppressed", reason)
        index = np.zeros(batch.rows.num_rows, np.int64)
        index[matched] = np.arange(len(matched))
        return _Channel(name, index, suppression, address, None if sent is None else sent[matched])

    def _sent(self, batch: LaunchBatch) -> dict[str, Ints]:
        """Where the earlier sends of all customers of a batch stand, by channel, where a cap needs them."""
        histories = {name: history for name, history in self._histories.items() if len(history)}
        if not histories:
            return {}
        columns, every = self._engine.columns, np.arange(batch.rows.num_rows)
        keys = joined_key(batch.column(columns.retailer, every), batch.column(columns.customer, every))
        return {name: history.places(keys) for name, history in histories.items()}

    def _one(
        self,
        batch: LaunchBatch,
        rows: CampaignRows,
        channel: _Channel,
        zones: pa.Array,
        earlier: LaunchSends,
        shared: Any,
    ) -> CampaignRows:
        schedule = self._plan.of(rows.campaign).campaign.schedule
        times = send_times(
            start=schedule.start or self._plan.launched,
            local_time=schedule.local_time,
            quiet_hours=schedule.quiet_hours,
            expires=schedule.expires,
            zones=zones.take(pa.array(rows.rows)),
        )
        place = channel.place[rows.rows]
        suppression = channel.suppression[place]
        suppression[times.window_closed & (suppression == EMITTED)] = code("suppressed", "window_closed")
        self._cap(rows, channel, times.deliver_after, suppression, earlier)
        if shared is not None:
            suppression[np.isin(batch.places[rows.rows], shared) & (suppression == EMITTED)] = code(
                "suppressed", "shared_address"
            )
        return replace(
            rows,
            deliver_after=times.deliver_after,
            expires_at=times.expires_at,
            recipient=channel.address.take(pa.array(place)),
            suppression=suppression,
            outcome=np.where(rows.outcome == EMITTED, suppression, rows.outcome),
        )

    def _cap(self, rows: CampaignRows, channel: _Channel, at: Ints, suppression: Any, earlier: LaunchSends) -> None:
        """Refuse whom a cap refuses, and note whom this campaign will send to."""
        caps = [cap for cap in self._engine.caps if cap.channel == channel.name]
        if not caps:
            return
        for cap in caps:
            count = earlier.count(channel.name, rows.rows, at, cap.within)
            if channel.places is not None:
                places = channel.places[channel.place[rows.rows]]
                count = count + self._histories[channel.name].count(places, at, cap.within)
            suppression[(count >= cap.at_most) & (suppression == EMITTED)] = code("suppressed", "frequency_cap")
        earlier.take(channel.name, rows.rows, at, (suppression == EMITTED) & (rows.outcome == EMITTED))


class _Channel(NamedTuple):
    """Facts of the matched customers of a batch on one channel; `place` finds a row of the batch among them."""

    name: str
    place: Ints
    suppression: Any
    address: pa.Array
    places: Ints | None


def value_counts(values: pa.Array, customers: pa.Array, retailers: pa.Array) -> dict[str, list[Any]]:
    """[customers, an example] of each value, short; beyond the hundred most frequent ones they are counted together."""
    encoded = values.dictionary_encode()
    counts = np.bincount(encoded.indices.to_numpy(zero_copy_only=False), minlength=len(encoded.dictionary))
    found: dict[str, list[Any]] = {}
    for place in np.argsort(-counts, kind="stable").tolist():
        name = shown(repr(encoded.dictionary[place].as_py())) if len(found) < VALUES else OTHERS
        row = pc.index(encoded.indices, place).as_py()
        found.setdefault(name, [0, f"{customers[row]} of {retailers[row]}"])[0] += int(counts[place])
    return found


def _without(batch: LaunchBatch, rows: Ints, consent: str | None) -> Bools:
    if consent is None:
        return np.zeros(len(rows), np.bool_)
    given = pc.fill_null(batch.rows.column(consent).cast(pa.bool_()).take(pa.array(rows)), False)
    return ~np.asarray(given.to_numpy(zero_copy_only=False), dtype=np.bool_)


class Suppress(BatchStep):
    """LaunchBatches with send times, addresses and suppressions."""

    stage = "suppression"
