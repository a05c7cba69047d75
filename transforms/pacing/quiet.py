"""The quiet hours of a workspace, in which nothing is sent, in the retailer's wall time."""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta

from transforms.events.send_time import send_time

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def quiet_until(now: int, quiet_hours: tuple[str, str] | None, zone: str) -> int | None:
    """When the current quiet hours end (epoch milliseconds); None outside of them. [from, to) as HH:MM, over midnight
    when from > to, never when they are the same; the days on which the clocks change as in
    `transforms.events.send_time`."""
    if quiet_hours is None:
        return None
    begin, end = map(time.fromisoformat, quiet_hours)
    moment = _EPOCH + timedelta(milliseconds=now)
    until = send_time(moment, False, (begin, end), None, zone).deliver_after
    return until if until > now else None
