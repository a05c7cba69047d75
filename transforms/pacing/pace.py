"""How much of a workspace's pace is left: messages a second, calls a clock hour, messages a day, the vendor's 429s.

Everything is a pure step of a small state that all workers share. Times are epoch milliseconds.
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


class Ahead(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Messages that a holder took ahead and may send until a time."""

    holder: str
    messages: int
    until: int


class PaceState(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What a workspace has used: its bucket's `tokens` (None: full) as of `at`, the `calls` of the hour and the
    messages `sent` of the day, until when the vendor wants no call, who holds messages taken ahead, and the rate that
    held at `at`.

    New fields go to the end and need a default.
    """

    at: int = 0
    tokens: float | None = None
    hour: int = 0
    calls: int = 0
    day: int = 0
    sent: int = 0
    blocked_until: int = 0
    slow_downs: int = 0
    ahead: tuple[Ahead, ...] = ()
    per_second: float | None = None


class Grant(NamedTuple):
    """How many messages, in how many calls, may leave now.

    When that is less than was wanted, `wake_at` says when it is worth to ask again and `why` what it waits for:
    paused, quiet_hours, breaker, slow_down, calls_per_hour, warm_up or per_second. What is granted is to be sent before
    `until`; later it is to be confirmed (Limiter.confirm).
    """

    messages: int
    calls: int
    wake_at: int | None = None
    why: str = ""
    until: int = 0


def capacity(pace: Pace) -> int:
    """The most messages that may leave at once: `burst`, by default one second's worth, at least a batch."""
    if pace.burst is not None:
        return pace.burst
    return max(BATCH, math.ceil(pace.per_second or 0))


def take(
    state: PaceState, pace: Pace, now: int, zone: str, messages: int, calls: int, day_limit: int | None
) -> tuple[PaceState, Grant]:
    """What may leave now of some messages, and the state after they left.

    Over any t seconds at most burst + per_second × t messages leave, in a clock hour (UTC) at most `calls_per_hour`
    calls, in a day of `zone` at most `day_limit` messages (None: no limit). A batch of up to 50 waits until the
    bucket holds all of it; less is granted only where no more can come: of a burst below 50, or of the day's rest.
    A clock that goes back stands still here, so nothing is granted twice.
    """
    state = settle(state, pace, now, zone)
    granted = 0
    if state.at >= state.blocked_until:
        most_calls = max(0, min(calls, pace.calls_per_hour - state.calls))
        wanted = min(messages, most_calls * BATCH, _left(state, day_limit))
        least = min(wanted, BATCH, capacity(pace))
        granted = min(wanted, math.floor(_tokens(state))) if _tokens(state) >= least else 0
        if BATCH < granted < wanted:
            granted -= granted % BATCH
    granted_calls = min(most_calls, -(-calls * granted // messages)) if granted > 0 else 0
    state = _used(state, granted, granted_calls)
    if granted >= messages:
        return state, Grant(granted, granted_calls)
    wake_at, why = _next(state, pace, zone, messages - granted, day_limit)
    return state, Grant(granted, granted_calls, wake_at, why)


def give_back(state: PaceState, messages: int, calls: int) -> PaceState:
    """The state when what was granted is not sent: the hour and the day get it back. The bucket does not: had its
    tokens stayed there, it might have been full since, and a later burst would be too large by them."""
    return replace(state, calls=max(0, state.calls - calls), sent=max(0, state.sent - messages))


def settle(state: PaceState, pace: Pace, now: int, zone: str) -> PaceState:
    """The state at a time: the bucket filled, clipped to what the pace is now, a new hour and a new day begun."""
    at = max(now, state.at)
    hour, day = at // HOUR_MS, max(state.day, local_day(at, zone).toordinal())
    return replace(
        state,
        at=at,
        tokens=_filled(state, pace, at),
        hour=hour,
        calls=state.calls if hour == state.hour else 0,
        day=day,
        sent=state.sent if day == state.day else 0,
        ahead=tuple(one for one in state.ahead if one.until > at),
        per_second=pace.per_second,
    )


def slow_down(state: PaceState, now: int, retry_after_s: float | None, jitter: float) -> PaceState:
    """The state after a 429: no call for as long as the vendor says (a day at most).

    If it did not say: 1, 2, 4 … 60 s, of which `jitter` in [0, 1) takes away up to a half. The 429s of calls that
    were on their way when the first came do not raise it.
    """
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
    """The state after a success: the next back-off begins anew. One that was on its way at a 429 changes nothing."""
    return state if max(now, state.at) < state.blocked_until else replace(state, slow_downs=0)


def ripe_at(state: PaceState, pace: Pace) -> int:
    """When the bucket holds a fifth of a second's worth, or half of all it can: asking sooner brings little."""
    if pace.per_second is None:
        return state.at
    return _full_enough(state, pace.per_second, min(capacity(pace) / 2, pace.per_second / 5))


def local_day(at: int, zone: str) -> date:
    """The calendar day of a time."""
    return datetime.fromtimestamp(at / 1000, ZoneInfo(zone)).date()


def day_end(day: int, zone: str) -> int:
    """When the day after an ordinal day begins."""
    # A midnight that the clocks skip counts with the offset before, which is the moment they skip it.
    midnight = datetime.combine(date.fromordinal(day) + timedelta(days=1), time(), ZoneInfo(zone))
    return math.ceil(midnight.astimezone(UTC).timestamp() * 1000)


def _filled(state: PaceState, pace: Pace, at: int) -> float | None:
    """The bucket at a time. What is in it and what is out ahead are never more than its capacity together."""
    if pace.per_second is None:
        return None
    tokens = float(capacity(pace)) if state.tokens is None else state.tokens
    # When a changed rate began to hold is not known: until now the lower one did.
    rate = min(pace.per_second, state.per_second or pace.per_second)
    out, since = sum(one.messages for one in state.ahead), state.at
    for until, messages in [*sorted((one.until, one.messages) for one in state.ahead if one.until < at), (at, 0)]:
        more = rate * max(0, until - since) / 1000
        tokens = max(0.0, min(tokens + more, capacity(pace) - out))
        out, since = out - messages, max(since, until)
    return tokens


def _tokens(state: PaceState) -> float:
    return 1e18 if state.tokens is None else state.tokens


def _left(state: PaceState, day_limit: int | None) -> int:
    return 10**18 if day_limit is None else max(0, day_limit - state.sent)


def _used(state: PaceState, messages: int, calls: int) -> PaceState:
    tokens = None if state.tokens is None else state.tokens - messages
    return replace(state, tokens=tokens, sent=state.sent + messages, calls=state.calls + calls)


def _next(state: PaceState, pace: Pace, zone: str, messages: int, day_limit: int | None) -> tuple[int, str]:
    waits = []
    if state.blocked_until > state.at:
        waits.append((state.blocked_until, "slow_down"))
    if state.calls >= pace.calls_per_hour:
        waits.append(((state.hour + 1) * HOUR_MS, "calls_per_hour"))
    if not _left(state, day_limit):
        waits.append((day_end(state.day, zone), "warm_up"))
    elif pace.per_second is not None:
        least = min(messages, BATCH, capacity(pace), _left(state, day_limit))
        waits.append((_full_enough(state, pace.per_second, least), "per_second"))
    at, why = max(waits, default=(state.at, ""))
    return max(at, state.at + 1), why


def _full_enough(state: PaceState, per_second: float, tokens: float) -> int:
    return state.at + math.ceil(max(0.0, tokens - _tokens(state)) * 1000 / per_second)
