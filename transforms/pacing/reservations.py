"""Taking ahead: what a worker may spend for a second without asking the shared state again."""

from __future__ import annotations

from typing import NamedTuple

from msgspec.structs import replace

from schemas.campaigns.workspaces import Pace
from schemas.delivery import BATCH
from transforms.pacing.pace import HOUR_MS, Ahead, PaceState, capacity, day_end

LASTS_MS = 1_000
MARGIN_MS = 1_000
"""How much longer the shared state counts a chunk than its holder may spend it: workers' clocks differ."""
SHARE = 16
"""At most one in so many of the calls and messages that an hour and a day have left are taken ahead."""


class Chunk(NamedTuple):
    """Messages and calls taken ahead; to be spent within `lasts` milliseconds, never in another hour or day."""

    messages: int
    calls: int
    lasts: int
    hour: int
    day: int


def reserve(
    state: PaceState, pace: Pace, zone: str, holder: str, times: int, messages: int, calls: int, day_limit: int | None
) -> tuple[PaceState, Chunk | None]:
    """As much as `times` asks of so many messages and calls would use, or fewer; None for not even one.

    To be called with a settled state. What is out ahead counts as if it were in the bucket still, so a window of t
    seconds sees no more than burst + per_second × t whenever it is spent; at most half of the bucket is out, and a
    batch always fits into the rest.
    """
    rooms = [times, (pace.calls_per_hour - state.calls) // SHARE // max(1, calls)]
    lasts = min(LASTS_MS, (state.hour + 1) * HOUR_MS - state.at)
    if pace.per_second is not None and state.tokens is not None:
        out = sum(one.messages for one in state.ahead)
        room = min(capacity(pace) / 2, capacity(pace) - BATCH) - out
        rooms.append(int(min(room, state.tokens, pace.per_second * LASTS_MS / 1000) // max(1, messages)))
    if day_limit is not None:
        rooms.append((day_limit - state.sent) // SHARE // max(1, messages))
        lasts = min(lasts, day_end(state.day, zone) - state.at)
    number = min(rooms)
    if number < 1 or lasts < 1:
        return state, None
    chunk = Chunk(number * messages, number * calls, lasts, state.hour, state.day)
    held = Ahead(holder, chunk.messages, state.at + LASTS_MS + MARGIN_MS)
    return replace(
        state,
        tokens=None if state.tokens is None else state.tokens - chunk.messages,
        calls=state.calls + chunk.calls,
        sent=state.sent + chunk.messages,
        ahead=(*state.ahead, held) if state.tokens is not None else state.ahead,
    ), chunk


def return_unused(state: PaceState, holder: str, rest: Chunk) -> PaceState:
    """The state when a holder's chunk is over and `rest` of it was not spent.

    To be called with a settled state. Messages go back into the bucket only while the chunk is counted as out;
    later the bucket has filled without them.
    """
    held = [one for one in state.ahead if one.holder == holder]
    tokens = state.tokens if state.tokens is None or not held else state.tokens + rest.messages
    return replace(
        state,
        tokens=tokens,
        calls=max(0, state.calls - rest.calls) if rest.hour == state.hour else state.calls,
        sent=max(0, state.sent - rest.messages) if rest.day == state.day else state.sent,
        ahead=tuple(one for one in state.ahead if one.holder != holder),
    )
