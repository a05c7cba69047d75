"""The pace of a workspace: messages a second (a token bucket), calls a clock hour, messages a day, the vendor's 429s.

Pure functions of a small state that all workers share. Times are epoch milliseconds.
"""

from __future__ import annotations

import math
from datetime import UTC, date, datetime, time, timedelta
from typing import NamedTuple
from zoneinfo import ZoneInfo

import msgspec
from msgspec.structs import replace

from schemas.campaigns.workspaces import Pace
from schemas.delivery import BATCH

HOUR_MS = 3_600_000
LONGEST_BACK_OFF_S = 60.0
LONGEST_RETRY_AFTER_S = 86_400.0


class Outstanding(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Messages that a worker (`holder`) has reserved and may send until a time."""

    holder: str
    messages: int
    until: int


class PaceState(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The use of a workspace: its bucket's `tokens` (None: full) as of `at`, the `calls` of the hour, the messages
    `sent` of the day, until when the vendor wants no call, the reservations of workers, and the rate at `at`. New
    fields go to the end and need a default."""

    at: int = 0
    tokens: float | None = None
    hour: int = 0
    calls: int = 0
    day: int = 0
    sent: int = 0
    blocked_until: int = 0
    slow_downs: int = 0
    outstanding: tuple[Outstanding, ...] = ()
    per_second: float | None = None


class Grant(NamedTuple):
    """Messages and calls that may be sent now. When they are fewer than requested, `wake_at` says when to request
    again, and `reason` is one of paused, quiet_hours, breaker, slow_down, calls_per_hour, warm_up, per_second. A grant
    is to be used before `until`; later it has to be confirmed (Limiter.confirm)."""

    messages: int
    calls: int
    wake_at: int | None = None
    reason: str = ""
    until: int = 0


def capacity(pace: Pace) -> int:
    """The most messages at once: `burst`, by default one second's worth, at least a batch."""
    if pace.burst is not None:
        return pace.burst
    return max(BATCH, math.ceil(pace.per_second or 0))


def acquire(
    state: PaceState, pace: Pace, now: int, zone: str, messages: int, calls: int, day_limit: int | None
) -> tuple[PaceState, Grant]:
    """The state after a grant, and the grant.

    Over any t seconds at most burst + per_second × t messages are granted, in a clock hour (UTC) at most
    `calls_per_hour` calls, in a day of `zone` at most `day_limit` messages (None: no limit). A batch of up to 50 waits
    until the bucket holds all of it; part of one is granted only if no more can ever come: with a burst below 50, or
    at the day's limit. A clock that goes back stands still here, so nothing is granted twice.
    """
    state = advance(state, pace, now, zone)
    granted = 0
    if state.at >= state.blocked_until:
        most_calls = max(0, min(calls, pace.calls_per_hour - state.calls))
        wanted = min(messages, most_calls * BATCH, _remaining(state, day_limit))
        least = min(wanted, BATCH, capacity(pace))
        granted = min(wanted, math.floor(_tokens(state))) if _tokens(state) >= least else 0
        if BATCH < granted < wanted:
            granted -= granted % BATCH
    granted_calls = min(most_calls, -(-calls * granted // messages)) if granted > 0 else 0
    state = _spend(state, granted, granted_calls)
    if granted >= messages:
        return state, Grant(granted, granted_calls)
    wake_at, reason = _next_chance(state, pace, zone, messages - granted, day_limit)
    return state, Grant(granted, granted_calls, wake_at, reason)


def refund(state: PaceState, messages: int, calls: int) -> PaceState:
    """The state after a grant was not used: the hour and the day get it back. The bucket does not: it may have been
    full since, and a later burst would be too large by these tokens."""
    return replace(state, calls=max(0, state.calls - calls), sent=max(0, state.sent - messages))


def advance(state: PaceState, pace: Pace, now: int, zone: str) -> PaceState:
    """The state advanced to a time: the bucket refilled up to the capacity of now, a new hour and a new day begun."""
    at = max(now, state.at)
    hour, day = at // HOUR_MS, max(state.day, local_day(at, zone).toordinal())
    return replace(
        state,
        at=at,
        tokens=_refilled(state, pace, at),
        hour=hour,
        calls=state.calls if hour == state.hour else 0,
        day=day,
        sent=state.sent if day == state.day else 0,
        outstanding=tuple(held for held in state.outstanding if held.until > at),
        per_second=pace.per_second,
    )


def slow_down(state: PaceState, now: int, retry_after_s: float | None, jitter: float) -> PaceState:
    """The state after a 429: no call for as long as the vendor says (a day at most). Without a time: 1, 2, 4 … 60 s,
    shortened by `jitter` in [0, 1) to no less than half. The 429s of calls that were in flight at the first one do not
    double it."""
    at = max(now, state.at)
    in_flight = at < state.blocked_until
    if in_flight and retry_after_s is None:
        return state
    times = state.slow_downs if in_flight else state.slow_downs + 1
    if retry_after_s is None:
        wait = min(LONGEST_BACK_OFF_S, 2.0 ** min(times - 1, 10)) * (1 - jitter / 2)
    else:
        wait = min(LONGEST_RETRY_AFTER_S, max(0.1, retry_after_s))
    until = max(state.blocked_until, at + math.ceil(wait * 1000))
    return replace(state, at=at, slow_downs=times, blocked_until=until)


def succeed(state: PaceState, now: int) -> PaceState:
    """The state after a success, unless the call was in flight at a 429: the next back-off starts at 1 s."""
    return state if max(now, state.at) < state.blocked_until else replace(state, slow_downs=0)


def refill_at(state: PaceState, pace: Pace) -> int:
    """When the bucket holds a fifth of a second's worth, or half of its capacity: an earlier request gets little."""
    if pace.per_second is None:
        return state.at
    return _filled_at(state, pace.per_second, min(capacity(pace) / 2, pace.per_second / 5))


def local_day(at: int, zone: str) -> date:
    """The calendar day of a time in a zone."""
    return datetime.fromtimestamp(at / 1000, ZoneInfo(zone)).date()


def day_end(day: int, zone: str) -> int:
    """When an ordinal day ends: the first moment of the next."""
    # A midnight that the clocks skip counts with the offset before, which is the moment they skip it.
    midnight = datetime.combine(date.fromordinal(day) + timedelta(days=1), time(), ZoneInfo(zone))
    return math.ceil(midnight.astimezone(UTC).timestamp() * 1000)


def _refilled(state: PaceState, pace: Pace, at: int) -> float | None:
    """The tokens at a time. Tokens and outstanding reservations together never exceed the capacity."""
    if pace.per_second is None:
        return None
    tokens = float(capacity(pace)) if state.tokens is None else state.tokens
    # When a changed rate began to hold is not known: until now the lower one did.
    rate = min(pace.per_second, state.per_second or pace.per_second)
    reserved, since = sum(held.messages for held in state.outstanding), state.at
    ending = sorted((held.until, held.messages) for held in state.outstanding if held.until < at)
    for until, messages in [*ending, (at, 0)]:
        more = rate * max(0, until - since) / 1000
        tokens = max(0.0, min(tokens + more, capacity(pace) - reserved))
        reserved, since = reserved - messages, max(since, until)
    return tokens


def _tokens(state: PaceState) -> float:
    return 1e18 if state.tokens is None else state.tokens


def _remaining(state: PaceState, day_limit: int | None) -> int:
    return 10**18 if day_limit is None else max(0, day_limit - state.sent)


def _spend(state: PaceState, messages: int, calls: int) -> PaceState:
    tokens = None if state.tokens is None else state.tokens - messages
    return replace(state, tokens=tokens, sent=state.sent + messages, calls=state.calls + calls)


def _next_chance(state: PaceState, pace: Pace, zone: str, messages: int, day_limit: int | None) -> tuple[int, str]:
    waits = []
    if state.blocked_until > state.at:
        waits.append((state.blocked_until, "slow_down"))
    if state.calls >= pace.calls_per_hour:
        waits.append(((state.hour + 1) * HOUR_MS, "calls_per_hour"))
    if not _remaining(state, day_limit):
        waits.append((day_end(state.day, zone), "warm_up"))
    elif pace.per_second is not None:
        least = min(messages, BATCH, capacity(pace), _remaining(state, day_limit))
        waits.append((_filled_at(state, pace.per_second, least), "per_second"))
    at, reason = max(waits, default=(state.at, ""))
    return max(at, state.at + 1), reason


def _filled_at(state: PaceState, per_second: float, tokens: float) -> int:
    return state.at + math.ceil(max(0.0, tokens - _tokens(state)) * 1000 / per_second)
