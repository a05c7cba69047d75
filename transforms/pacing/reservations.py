"""Reservations: messages and calls that a worker may spend for a second without asking the shared state."""

from __future__ import annotations

from typing import NamedTuple

from msgspec.structs import replace

from schemas.campaigns.workspaces import Pace
from schemas.delivery import BATCH
from transforms.pacing.pace import HOUR_MS, Outstanding, PaceState, capacity, day_end

LASTS_MS = 1_000
MARGIN_MS = 1_000
"""The shared state counts a reservation so much longer than its holder may spend it: workers' clocks differ."""
SHARE = 16
"""At most one in so many of the remaining calls of the hour and messages of the day are reserved."""


class Reservation(NamedTuple):
    """Messages and calls to be spent within `lasts_ms` milliseconds, never in another hour or day."""

    messages: int
    calls: int
    lasts_ms: int
    hour: int
    day: int


def reserve(
    state: PaceState, pace: Pace, zone: str, holder: str, times: int, messages: int, calls: int, day_limit: int | None
) -> tuple[PaceState, Reservation | None]:
    """Reserves tokens for up to `times` requests of so many messages and calls; None if not one fits. Call it with an
    advanced state. A reservation counts against the capacity, so that a window of t seconds has no more than burst +
    per_second × t messages whenever it is spent. At most half of the bucket is reserved, and a batch always fits into
    the rest."""
    fits = [times, (pace.calls_per_hour - state.calls) // SHARE // max(1, calls)]
    lasts_ms = min(LASTS_MS, (state.hour + 1) * HOUR_MS - state.at)
    if pace.per_second is not None and state.tokens is not None:
        reserved = sum(held.messages for held in state.outstanding)
        room = min(capacity(pace) / 2, capacity(pace) - BATCH) - reserved
        fits.append(int(min(room, state.tokens, pace.per_second * LASTS_MS / 1000) // max(1, messages)))
    if day_limit is not None:
        fits.append((day_limit - state.sent) // SHARE // max(1, messages))
        lasts_ms = min(lasts_ms, day_end(state.day, zone) - state.at)
    number = min(fits)
    if number < 1 or lasts_ms < 1:
        return state, None
    reservation = Reservation(number * messages, number * calls, lasts_ms, state.hour, state.day)
    held = Outstanding(holder, reservation.messages, state.at + LASTS_MS + MARGIN_MS)
    return replace(
        state,
        tokens=None if state.tokens is None else state.tokens - reservation.messages,
        calls=state.calls + reservation.calls,
        sent=state.sent + reservation.messages,
        outstanding=(*state.outstanding, held) if state.tokens is not None else state.outstanding,
    ), reservation


def return_unused(state: PaceState, holder: str, rest: Reservation) -> PaceState:
    """Returns the unspent `rest` of a holder's reservation. Call it with an advanced state. Messages return to the
    bucket only while the reservation is outstanding: later the bucket has refilled without them."""
    held = [held for held in state.outstanding if held.holder == holder]
    tokens = state.tokens if state.tokens is None or not held else state.tokens + rest.messages
    return replace(
        state,
        tokens=tokens,
        calls=max(0, state.calls - rest.calls) if rest.hour == state.hour else state.calls,
        sent=max(0, state.sent - rest.messages) if rest.day == state.day else state.sent,
        outstanding=tuple(held for held in state.outstanding if held.holder != holder),
    )
