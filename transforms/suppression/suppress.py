"""Suppress: the customers that must not be sent to; the first reason in the documented order counts.

A step of the launch: `Suppress` is its PTransform, `make_suppressor` makes its function once a worker, and `suppress`
is that function.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from schemas.columns.ids import trimmed
from schemas.columns.masks import to_mask
from schemas.elements import Bools, CampaignRows, Ints, LaunchBatch
from schemas.outcomes import EMITTED, code
from schemas.problems import shown
from transforms.columnar.id_index import joined_key
from transforms.columnar.list_index import ListIndex, ReadList
from transforms.columnar.steps import map_batches
from transforms.events.send_time import customer_zones, send_times
from transforms.launch_plan import Plan
from transforms.suppression.frequency_caps import LaunchSends, ReadSends, SendHistory, send_histories
from transforms.warnings.evidence import list_use

Superseded = Mapping[str, Mapping[str, Ints]]
"""By batch name and campaign, the rows that share an address with a customer that is preferred to them."""
VALUES, OTHERS = 100, "others"


class Suppress(beam.PTransform):
    """LaunchBatches with send times, addresses and suppressions.

    Once a worker `read_list` reads the ids of a suppression list, `read_sends` the earlier sends that the caps count,
    and `read_superseded` the rows whose address is another customer's too (none before the survey has decided).
    """

    def __init__(
        self,
        plan: Plan,
        read_list: ReadList,
        read_sends: ReadSends = tuple,
        read_superseded: Callable[[], Superseded] = dict,
    ) -> None:
        super().__init__()
        self._factory = partial(make_suppressor, plan, read_list, read_sends, read_superseded)

    def expand(self, batches: beam.PCollection[LaunchBatch]) -> beam.PCollection[LaunchBatch]:
        return batches | "Suppress" >> map_batches("suppression", self._factory)


def make_suppressor(
    plan: Plan, read_list: ReadList, read_sends: ReadSends = tuple, read_superseded: Callable[[], Superseded] = dict
) -> Callable[[LaunchBatch], LaunchBatch]:
    """`suppress` of a plan, with its lists and the earlier sends read and indexed."""
    lists = [
        SuppressionList(
            rule.file, rule.column, rule.channel,
            ListIndex.build(read_list(rule.file, rule.column), rule.column, plan.engine),
        )
        for rule in plan.engine.suppression_lists
    ]  # fmt: skip
    return partial(suppress, plan, lists, send_histories(plan, read_sends), read_superseded())


class SuppressionList(NamedTuple):
    """The ids of a list file for a column of the customers; it holds for one channel, or for all (None)."""

    file: str
    column: str
    channel: str | None
    ids: ListIndex


def suppress(
    plan: Plan,
    lists: Sequence[SuppressionList],
    histories: Mapping[str, SendHistory],
    superseded: Superseded,
    batch: LaunchBatch,
) -> LaunchBatch:
    """The batch with times, addresses and suppressions, campaign by campaign in order of priority. Held-out rows keep
    their outcome.

    `histories` are the earlier sends by channel. Counts `suppression_lists` and `history` (the use of each), and
    `unknown_time_zones`.
    """
    matched = batch.matched()
    zones, unknown_zones = _time_zones(plan, batch, matched)
    on_lists = [entry.ids.find(batch.rows.column(entry.column)) for entry in lists]
    uses = {
        (entry.file, entry.column): list_use(entry.file, entry.column, entry.ids, places)
        for entry, places in zip(lists, on_lists, strict=True)
    }
    sends = _send_places(plan, histories, batch)
    channels = {
        name: _channel_facts(plan, lists, batch, name, matched, on_lists, sends.get(name))
        for name in {plan.campaign_plan(rows.campaign).campaign.channel for rows in batch.campaigns}
    }
    earlier = LaunchSends(batch.rows.num_rows)
    campaigns = []
    for rows in batch.campaigns:
        channel = channels[plan.campaign_plan(rows.campaign).campaign.channel]
        places = superseded.get(batch.name, {}).get(rows.campaign)
        campaigns.append(
            _suppress_campaign(plan, batch, rows, channel, zones, histories.get(channel.name), earlier, places)
        )
    history = [
        [name, histories[name].customers, histories[name].first, int((places >= 0).sum())]
        for name, places in sends.items()
    ]
    counted = batch.with_counts(suppression_lists=list(uses.values()), history=history, **unknown_zones)
    return replace(counted, campaigns=campaigns)


def _time_zones(plan: Plan, batch: LaunchBatch, matched: Ints) -> tuple[pa.DictionaryArray, dict[str, Any]]:
    """Each customer's time zone: its own, else the retailer's. And the count `unknown_time_zones`: the texts of the
    matched customers that name no zone, each with a customer."""
    columns = plan.engine.columns
    defaults = pa.array([plan.engine.time_zone(retailer) for retailer in batch.retailers], pa.string())
    of_retailer = defaults.take(pa.array(batch.retailer))
    if columns.time_zone is None:
        return of_retailer.dictionary_encode(), {}
    zones, unknown = customer_zones(batch.rows.column(columns.time_zone), of_retailer)
    rows = matched[unknown[matched]]
    texts, *ids = (batch.column(name, rows) for name in (columns.time_zone, columns.customer, columns.retailer))
    return zones.dictionary_encode(), {"unknown_time_zones": value_counts(texts, *ids)}


def _send_places(plan: Plan, histories: Mapping[str, SendHistory], batch: LaunchBatch) -> dict[str, Ints]:
    """The places of all customers of a batch in the histories that are not empty, by channel."""
    used = {name: history for name, history in histories.items() if len(history)}
    if not used:
        return {}
    columns, rows = plan.engine.columns, np.arange(batch.rows.num_rows)
    keys = joined_key(batch.column(columns.retailer, rows), batch.column(columns.customer, rows))
    return {name: history.places(keys) for name, history in used.items()}


class _Channel(NamedTuple):
    """What holds for the matched customers of a batch on a channel, whatever the campaign.

    `place` is the position of each row of the batch among them, `sends` their places in the channel's history.
    """

    name: str
    place: Ints
    suppression: Any
    address: pa.Array
    sends: Ints | None


def _channel_facts(
    plan: Plan,
    lists: Sequence[SuppressionList],
    batch: LaunchBatch,
    name: str,
    matched: Ints,
    on_lists: Sequence[Ints],
    sends: Ints | None,
) -> _Channel:
    channel = plan.engine.channels[name]
    address = trimmed(batch.column(channel.address, matched))
    opted_out = np.array([plan.engine.opted_out(retailer) for retailer in batch.retailers], np.bool_)
    listed = np.zeros(len(matched), np.bool_)
    for entry, places in zip(lists, on_lists, strict=True):
        if entry.channel in (None, name):
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
    return _Channel(name, place, suppression, address, None if sends is None else sends[matched])


def _suppress_campaign(
    plan: Plan,
    batch: LaunchBatch,
    rows: CampaignRows,
    channel: _Channel,
    zones: pa.Array,
    history: SendHistory | None,
    earlier: LaunchSends,
    superseded: Ints | None,
) -> CampaignRows:
    """The campaign's rows with times, addresses and suppressions; notes in `earlier` whom it will send to."""
    schedule = plan.campaign_plan(rows.campaign).campaign.schedule
    times = send_times(
        start=schedule.start or plan.launched,
        local_time=schedule.local_time,
        quiet_hours=schedule.quiet_hours,
        expires=schedule.expires,
        zones=zones.take(pa.array(rows.rows)),
    )
    place = channel.place[rows.rows]
    suppression = channel.suppression[place]
    suppression[times.window_closed & (suppression == EMITTED)] = code("suppressed", "window_closed")
    if caps := [cap for cap in plan.engine.caps if cap.channel == channel.name]:
        for cap in caps:
            sends = earlier.count(channel.name, rows.rows, times.deliver_after, cap.within)
            if history is not None and channel.sends is not None:
                sends = sends + history.count(channel.sends[place], times.deliver_after, cap.within)
            suppression[(sends >= cap.at_most) & (suppression == EMITTED)] = code("suppressed", "frequency_cap")
        sent = (suppression == EMITTED) & (rows.outcome == EMITTED)
        earlier.take(channel.name, rows.rows, times.deliver_after, sent)
    if superseded is not None:
        shares_address = np.isin(batch.places[rows.rows], superseded)
        suppression[shares_address & (suppression == EMITTED)] = code("suppressed", "shared_address")
    return replace(
        rows,
        deliver_after=times.deliver_after,
        expires_at=times.expires_at,
        recipient=channel.address.take(pa.array(place)),
        suppression=suppression,
        outcome=np.where(rows.outcome == EMITTED, suppression, rows.outcome),
    )


def value_counts(values: pa.Array, customers: pa.Array, retailers: pa.Array) -> dict[str, list[Any]]:
    """[customers, an example] of each value, shortened; the values after the hundred most frequent ones are counted
    together."""
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
