"""Suppress: the customers that must not be sent to; the first reason in the documented order counts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from schemas.campaigns.campaign import Schedule
from schemas.columns.ids import trimmed
from schemas.columns.masks import to_mask
from schemas.elements import Bools, CampaignRows, Ints, LaunchBatch
from schemas.outcomes import EMITTED, code
from schemas.problems import shown
from transforms.columnar.id_index import joined_key
from transforms.columnar.list_index import ListIndex, ReadList
from transforms.columnar.steps import MapBatches
from transforms.events.send_time import customer_zones, send_times
from transforms.launch_plan import Plan
from transforms.suppression.frequency_caps import LaunchSends, ReadSends, send_histories
from transforms.warnings.evidence import list_use

Superseded = Mapping[str, Mapping[str, Ints]]
"""By batch name and campaign, the rows that share an address with a customer that is preferred to them."""
ReadSuperseded = Callable[[], Superseded]
VALUES, OTHERS = 100, "others"


class Suppress(MapBatches):
    """LaunchBatches with send times, addresses and suppressions.

    Once a worker `read_list` reads the ids of a suppression list, `read_sends` the earlier sends that the caps count,
    and `read_superseded` the rows whose address is another customer's too (none before the survey has decided).
    """

    def __init__(
        self, plan: Plan, read_list: ReadList, read_sends: ReadSends = tuple, read_superseded: ReadSuperseded = dict
    ) -> None:
        super().__init__("suppression", partial(Suppressor, plan, read_list, read_sends, read_superseded))


class _Channel(NamedTuple):
    """What holds for the matched customers of a batch on a channel, whatever the campaign.

    `place` is the position of each row of the batch among them, `sends` their places in the channel's history,
    `launch_sends` the sends of the campaigns so far.
    """

    name: str
    place: Ints
    suppression: Any
    address: pa.Array
    sends: Ints | None
    launch_sends: LaunchSends


class Suppressor:
    """Suppresses the customers of a batch, campaign by campaign in order of priority. Held-out rows keep their outcome.

    Counts `suppression_lists` and `history` (the use of each), and `unknown_time_zones`.
    """

    def __init__(
        self, plan: Plan, read_list: ReadList, read_sends: ReadSends = tuple, read_superseded: ReadSuperseded = dict
    ) -> None:
        self._plan, self._engine = plan, plan.engine
        self._lists = [
            (rule, ListIndex(read_list(rule.file, rule.column), rule.column, plan.engine))
            for rule in plan.engine.suppression_lists
        ]
        self._histories = send_histories(plan, read_sends)
        self._superseded = read_superseded()

    def __call__(self, batch: LaunchBatch) -> LaunchBatch:
        """The batch with times, addresses and suppressions."""
        matched = batch.matched()
        zones, unknown_zones = self._time_zones(batch, matched)
        on_lists = [ids.find(batch.rows.column(rule.column)) for rule, ids in self._lists]
        lists = zip(self._lists, on_lists, strict=True)
        uses = {(r.file, r.column): list_use(r.file, r.column, ids, places) for (r, ids), places in lists}
        sends = self._send_places(batch)
        channels = {
            name: self._channel(batch, name, matched, on_lists, sends.get(name))
            for name in {self._plan.campaign_plan(rows.campaign).campaign.channel for rows in batch.campaigns}
        }
        superseded, campaigns = self._superseded.get(batch.name, {}), []
        for rows in batch.campaigns:
            campaign = self._plan.campaign_plan(rows.campaign).campaign
            places = batch.places[rows.rows]
            shared = np.isin(places, superseded[campaign.id]) if campaign.id in superseded else None
            campaigns.append(self._suppress(rows, campaign.schedule, channels[campaign.channel], zones, shared))
        history = [
            [name, self._histories[name].customers, self._histories[name].first, int((places >= 0).sum())]
            for name, places in sends.items()
        ]
        counted = batch.with_counts(suppression_lists=list(uses.values()), history=history, **unknown_zones)
        return replace(counted, campaigns=campaigns)

    def _time_zones(self, batch: LaunchBatch, matched: Ints) -> tuple[pa.DictionaryArray, dict[str, Any]]:
        """Each customer's time zone: its own, else the retailer's. And the count `unknown_time_zones`: the texts of the
        matched customers that name no zone, each with a customer."""
        columns = self._engine.columns
        defaults = pa.array([self._engine.time_zone(retailer) for retailer in batch.retailers], pa.string())
        of_retailer = defaults.take(pa.array(batch.retailer))
        if columns.time_zone is None:
            return of_retailer.dictionary_encode(), {}
        zones, unknown = customer_zones(batch.rows.column(columns.time_zone), of_retailer)
        rows = matched[unknown[matched]]
        texts, *ids = (batch.column(name, rows) for name in (columns.time_zone, columns.customer, columns.retailer))
        return zones.dictionary_encode(), {"unknown_time_zones": value_counts(texts, *ids)}

    def _send_places(self, batch: LaunchBatch) -> dict[str, Ints]:
        """The places of all customers of a batch in the histories that are not empty, by channel."""
        histories = {name: history for name, history in self._histories.items() if len(history)}
        if not histories:
            return {}
        columns, rows = self._engine.columns, np.arange(batch.rows.num_rows)
        keys = joined_key(batch.column(columns.retailer, rows), batch.column(columns.customer, rows))
        return {name: history.places(keys) for name, history in histories.items()}

    def _channel(
        self, batch: LaunchBatch, name: str, matched: Ints, on_lists: Sequence[Ints], sends: Ints | None
    ) -> _Channel:
        channel = self._engine.channels[name]
        address = trimmed(batch.column(channel.address, matched))
        opted_out = np.array([self._engine.opted_out(retailer) for retailer in batch.retailers], np.bool_)
        listed = np.zeros(len(matched), np.bool_)
        for (rule, _), places in zip(self._lists, on_lists, strict=True):
            if rule.channel in (None, name):
                listed |= places[matched] >= 0
        reasons = [
            ("retailer_opted_out", opted_out[batch.retailer[matched]]),
            ("no_consent", _without_consent(batch, matched, channel.consent)),
            ("suppression_list", listed),
            ("no_address", np.asarray(pc.fill_null(pc.equal(pc.binary_length(address), 0), True))),
        ]
        suppression = np.zeros(len(matched), np.uint8)
        for reason, mask in reversed(reasons):
            suppression[mask] = code("suppressed", reason)
        place = np.zeros(batch.rows.num_rows, np.int64)
        place[matched] = np.arange(len(matched))
        sends = None if sends is None else sends[matched]
        return _Channel(name, place, suppression, address, sends, LaunchSends(batch.rows.num_rows))

    def _suppress(
        self, rows: CampaignRows, schedule: Schedule, channel: _Channel, zones: pa.Array, shared: Bools | None
    ) -> CampaignRows:
        """A campaign's rows with times, addresses and suppressions. `shared` are those whose address is another
        customer's. The rows that are sent to are added to the channel's `launch_sends`."""
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
        caps = [cap for cap in self._engine.caps if cap.channel == channel.name]
        for cap in caps:
            sends = channel.launch_sends.count(rows.rows, times.deliver_after, cap.within)
            if channel.sends is not None:
                history = self._histories[channel.name]
                sends = sends + history.count(channel.sends[place], times.deliver_after, cap.within)
            suppression[(sends >= cap.at_most) & (suppression == EMITTED)] = code("suppressed", "frequency_cap")
        if caps:
            sent = (suppression == EMITTED) & (rows.outcome == EMITTED)
            channel.launch_sends.add(rows.rows[sent], times.deliver_after[sent])
        if shared is not None:
            suppression[shared & (suppression == EMITTED)] = code("suppressed", "shared_address")
        return replace(
            rows,
            deliver_after=times.deliver_after,
            expires_at=times.expires_at,
            recipient=channel.address.take(pa.array(place)),
            suppression=suppression,
            outcome=np.where(rows.outcome == EMITTED, suppression, rows.outcome),
        )


def value_counts(values: pa.Array, customers: pa.Array, retailers: pa.Array) -> dict[str, list[Any]]:
    """[customers, an example] of each value, shortened; those after the hundred most frequent are counted together."""
    encoded = values.dictionary_encode()
    numbers = np.bincount(encoded.indices.to_numpy(zero_copy_only=False), minlength=len(encoded.dictionary))
    counts: dict[str, list[Any]] = {}
    for place in np.argsort(-numbers, kind="stable").tolist():
        name = shown(repr(encoded.dictionary[place].as_py())) if len(counts) < VALUES else OTHERS
        row = pc.index(encoded.indices, place).as_py()
        counts.setdefault(name, [0, f"{customers[row]} of {retailers[row]}"])[0] += int(numbers[place])
    return counts


def _without_consent(batch: LaunchBatch, rows: Ints, consent: str | None) -> Bools:
    if consent is None:
        return np.zeros(len(rows), np.bool_)
    return ~to_mask(batch.rows.column(consent).cast(pa.bool_()).take(pa.array(rows)))
