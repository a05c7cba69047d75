"""send_times: delivery and expiry of a message, by local time and quiet hours in the customer's zone."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, time, timedelta
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from schemas.campaigns.checks.values import find_time_zone, time_zones
from schemas.elements import Bools, Ints

QuietHours = tuple[time, time]
Expiry = timedelta | datetime
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MS = timedelta(milliseconds=1)


class SendTime(NamedTuple):
    """Epoch milliseconds; `expires_at` is None for never. `window_closed`: the message expires before its delivery."""

    deliver_after: int
    expires_at: int | None
    window_closed: bool


class SendTimes(NamedTuple):
    """The send times of a column."""

    deliver_after: Ints
    expires_at: Ints | None
    window_closed: Bools


def send_time(
    start: datetime, local_time: bool, quiet_hours: QuietHours | None, expires: Expiry | None, zone: str
) -> SendTime:
    """The send time in one IANA zone; ValueError for an unknown one.

    A `start` or absolute `expires` without a zone is wall time of `zone` with `local_time`, else UTC.
    Quiet hours [from, to) are wall time of `zone` always, over midnight when from > to; a delivery in them
    moves to their end. A wall time that does not exist moves forward by the gap, one that occurs twice is
    the first. Relative expiry counts from the delivery, in elapsed time.
    """
    if zone not in time_zones():
        raise ValueError(f"{zone!r} is no IANA time zone; write one such as America/Chicago")
    customers = ZoneInfo(zone)
    wall = customers if local_time else UTC
    deliver = _after_quiet_hours(quiet_hours, _instant(start, wall), customers)
    deliver_after = _milliseconds(deliver)
    if expires is None:
        return SendTime(deliver_after, None, False)
    if isinstance(expires, timedelta):
        return SendTime(deliver_after, deliver_after + expires // _MS, False)
    expires_at = _milliseconds(_instant(expires, wall))
    return SendTime(deliver_after, expires_at, deliver_after >= expires_at)


def send_times(
    start: datetime, local_time: bool, quiet_hours: QuietHours | None, expires: Expiry | None, zones: pa.Array
) -> SendTimes:
    """The send times of a column of zones, none of which is null; `send_time` is called once a distinct zone.

    ValueError for an unknown zone.
    """
    encoded = zones if pa.types.is_dictionary(zones.type) else zones.dictionary_encode()
    used = encoded.indices.unique()
    names = encoded.dictionary.take(used).to_pylist()
    times = [send_time(start, local_time, quiet_hours, expires, name) for name in names]
    places = pc.index_in(encoded.indices, used).to_numpy(zero_copy_only=False)

    def column(field: Callable[[SendTime], Any], kind: type) -> Any:
        return np.array([field(t) for t in times], kind)[places]

    return SendTimes(
        deliver_after=column(lambda t: t.deliver_after, np.int64),
        expires_at=None if expires is None else column(lambda t: t.expires_at, np.int64),
        window_closed=column(lambda t: t.window_closed, np.bool_),
    )


def customer_zones(written: pa.Array, retailers: pa.Array) -> tuple[pa.Array, Bools]:
    """Each customer's zone (blanks around it and case are ignored), else the retailer's; and the rows whose text is not
    empty and names no zone."""
    encoded = written.cast(pa.string()).dictionary_encode()
    texts = encoded.dictionary.to_pylist()
    zones = pa.array([find_time_zone(text) for text in texts], pa.string())
    named = zones.take(encoded.indices)
    not_empty = pa.array([bool(text.strip()) for text in texts], pa.bool_()).take(encoded.indices)
    unknown = pc.and_(pc.is_null(named), pc.fill_null(not_empty, False))
    return pc.coalesce(named, retailers), np.asarray(unknown.to_numpy(zero_copy_only=False), dtype=np.bool_)


def _instant(moment: datetime, zone: Any) -> datetime:
    """A moment in UTC; one without a zone is wall time of `zone`."""
    if moment.tzinfo is None:
        # The first of two equal wall times; in a gap the earlier offset, which moves forward (PEP 495).
        moment = moment.replace(tzinfo=zone, fold=0)
    return moment.astimezone(UTC)


def _after_quiet_hours(quiet_hours: QuietHours | None, moment: datetime, zone: ZoneInfo) -> datetime:
    """The moment, or the end of the quiet hours that it is in."""
    if quiet_hours is None:
        return moment
    while _quiet(quiet_hours, local := moment.astimezone(zone)):
        moment = _end(quiet_hours[1], local)
    return moment


def _quiet(quiet_hours: QuietHours, local: datetime) -> bool:
    begin, end = quiet_hours
    now = local.time()
    return begin <= now < end if begin <= end else now >= begin or now < end


def _end(end: time, local: datetime) -> datetime:
    """The next instant after a local one at which the wall shows `end`."""
    date = local.date() + timedelta(days=1 if local.time() >= end else 0)
    first = datetime.combine(date, end, local.tzinfo).astimezone(UTC)
    if first > local.astimezone(UTC):
        return first
    # The wall shows `end` twice, and the first time is over.
    return datetime.combine(date, end.replace(fold=1), local.tzinfo).astimezone(UTC)


def _milliseconds(moment: datetime) -> int:
    """Epoch milliseconds, rounded up: never before the moment."""
    return -((_EPOCH - moment) // _MS)
