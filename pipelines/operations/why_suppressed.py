"""Explain the suppression of one customer: consent, lists, address, earlier sends, offers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from connectors.inputs.histories import read_histories
from connectors.inputs.lists import read_list
from connectors.tables.parquet_files import plain_type
from pipelines.launch.inputs import LaunchJob
from schemas.campaigns.checks.values import find_time_zone
from schemas.columns.ids import id_text, id_texts, normal_addresses
from schemas.elements import CampaignRows
from schemas.problems import InputError
from stores.launches.snapshot import read_part
from stores.launches.survey_results import incomplete, is_complete, read_offer_allocations, read_shared_addresses
from transforms.columnar.id_index import joined_key
from transforms.columnar.list_index import ListIndex
from transforms.launch_plan import CampaignPlan
from transforms.offers.generate_offers import offer_limits, order_keys, order_name


class Fact(msgspec.Struct):
    """A rule or a hash by name, and a sentence about what it saw."""

    name: str
    text: str


def suppression_facts(
    job: LaunchJob, entry: CampaignPlan, values: Mapping[str, Any], exposure: Mapping[str, Any] | None
) -> Iterator[Fact]:
    """What each rule saw; the caps only for a customer that matched, at the time of its message."""
    engine, name = job.plan.engine, entry.campaign.channel
    channel, columns = engine.channels[name], engine.columns
    retailer, customer = (_id(job, values, name) or "" for name in (columns.retailer, columns.customer))
    yield Fact("retailer", f"{retailer} {'has opted out' if engine.opted_out(retailer) else 'takes part'}")
    if channel.consent:
        yield Fact("consent", f"{channel.consent} = {values.get(channel.consent)!r}")
    for rule in engine.suppression_lists:
        if rule.channel in (None, name):
            value = _id(job, values, rule.column)
            ids = read_list(job.config.campaigns / rule.file, rule.column)
            index = ListIndex(ids, rule.column, engine)
            listed = index.find(pa.array([value], pa.string()))[0] >= 0
            yield Fact("list", f"{rule.column} is {'' if listed else 'not '}in {rule.file}")
    yield Fact("address", f"{channel.address} = {values.get(channel.address)!r}")
    yield Fact("time zone", f"{_zone(values.get(columns.time_zone or ''), engine.time_zone(retailer))}")
    if exposure is None:
        return
    at = exposure["deliver_after"]
    earlier, others = _earlier(job, name, retailer, customer), _of_this_launch(job, entry, retailer, customer)
    for cap in engine.caps:
        if cap.channel == name:
            before = sum(at - cap.within < sent <= at for sent in earlier)
            during = sum(abs(at - sent) < cap.within for sent in others)
            days = f"{cap.within.total_seconds() / 86_400:g} days of {at:%Y-%m-%d %H:%M}"
            seen = f"{before} before and {during} of this launch"
            yield Fact("frequency cap", f"at most {cap.at_most}; {seen} within {days}")
    if shared := _sharers(job, name, values, retailer):
        yield Fact("shared address", f"with {', '.join(shared)}; one of them is kept")


def _zone(written: Any, of_retailer: str) -> str:
    """The time zone of the customer's times, and its origin."""
    zone = None if written is None else find_time_zone(str(written))
    if zone is not None:
        return zone if zone == written else f"{zone}, written {written!r}"
    return f"{of_retailer}, the retailer's: the customer's is {written!r}"


def exhaustion_facts(job: LaunchJob, entry: CampaignPlan, retailer: str, customer: str) -> Iterator[Fact]:
    """For each offer that can run out: the customer's place in its hash order, and where the order is cut."""
    campaign, folder = entry.campaign, job.folder.survey
    if not is_complete(folder):
        if job.folder.done():
            raise InputError([incomplete(folder)])
        return
    limits = offer_limits(job.plan, job.offer_capacity, read_offer_allocations(folder))
    who = pa.array([customer], pa.string()), pa.array([retailer], pa.string()).dictionary_encode()
    rows = CampaignRows.of(campaign.id, np.zeros(1, np.int64), *who)
    for offer in campaign.offers:
        if not offer.limited:
            continue
        limit = limits[campaign.id, offer.id]
        place = order_keys(job.plan, rows, order_name(campaign, offer.id), np.zeros(1, np.int64))
        text = "enough for all"
        if limit.used_up:
            last = limit.keys[-1][:8].decode() if limit.size else "the start"
            side = "after" if limit.beyond(place)[0] else "not after"
            text = f"place {place[0][:8].decode()} is {side} {last}, the last"
        yield Fact("offer", f"{offer.id}, the first {limit.size:,} by hash order: {text}")


def _earlier(job: LaunchJob, channel: str, retailer: str, customer: str) -> list[datetime]:
    """The times at which the customer was sent to, by the histories."""
    columns = job.plan.engine.columns
    names = (columns.retailer, columns.customer)
    times: list[datetime] = []
    for sends in read_histories(job.config.history, names):
        same = pc.and_(pc.equal(sends["retailer"], retailer), pc.equal(sends["customer"], customer))
        rows = sends.filter(pc.and_(same, pc.equal(sends["channel"], channel)))
        times += [datetime.fromtimestamp(sent / 1000, job.plan.launched.tzinfo) for sent in rows["sent_at"].to_pylist()]
    return times


def _of_this_launch(job: LaunchJob, entry: CampaignPlan, retailer: str, customer: str) -> list[datetime]:
    """The times at which earlier campaigns of this launch send to the customer, or would but for a later step: such a
    step does not free the place under the cap."""
    order = [plan.campaign.id for plan in job.plan.campaigns]
    before = order[: order.index(entry.campaign.id)]
    rows = job.folder.open_exposures(job.folder.done()).execute(
        "SELECT campaign_id, deliver_after FROM exposures WHERE retailer_id = ? AND customer_id = ? AND channel = ? "
        "AND (outcome IN ('emitted', 'dead_lettered') OR reason IN ('shared_address', 'offer_exhausted'))",
        [retailer, customer, entry.campaign.channel],
    )
    return [at for campaign, at in rows.fetchall() if campaign in before]


def _sharers(job: LaunchJob, channel: str, values: Mapping[str, Any], retailer: str) -> list[str]:
    """Other customers of the retailer with the same address; read only if the survey found that there are any."""
    columns, column = job.plan.engine.columns, job.plan.engine.channels[channel].address
    customer = _id(job, values, columns.customer)
    address = normal_addresses(pa.array([_id(job, values, column)], pa.string()))
    key = joined_key(pa.array([retailer]), address)
    shared = read_shared_addresses(job.folder.survey).get(channel)
    if shared is None or not pc.is_in(key, shared)[0].as_py():
        return []
    wanted = address[0].as_py()
    sharers = set()
    for part in job.parts:
        for batch in read_part(part, [columns.retailer, columns.customer, column]):
            same = pc.equal(normal_addresses(id_texts(batch.column(column))), wanted)
            of_retailer = pc.equal(id_texts(batch.column(columns.retailer)), retailer)
            rows = batch.filter(pc.fill_null(pc.and_(same, of_retailer), False))
            sharers |= {str(name) for name in id_texts(rows.column(columns.customer)).to_pylist()}
    return sorted(sharers - {customer})


def _id(job: LaunchJob, values: Mapping[str, Any], column: str) -> str | None:
    """A customer's value of a column, as an id."""
    return id_text(values.get(column), plain_type(job.snapshot.schema.field(column).type))
