"""The rate limiter of workspaces: grants messages and calls; all workers share a workspace's limits."""

from __future__ import annotations

import random
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date
from functools import partial
from threading import Lock
from typing import Literal, NamedTuple, Protocol, TypeVar

import msgspec
from msgspec.structs import replace

from schemas.campaigns.workspaces import Pace, Workspace
from schemas.delivery import BATCH
from transforms.pacing import breaker, pace
from transforms.pacing.breaker import Breaker
from transforms.pacing.pace import Grant, PaceState
from transforms.pacing.quiet import quiet_until
from transforms.pacing.reservations import Reservation, reserve, return_unused
from transforms.streaming.engine_traits import Clock

T = TypeVar("T")
CallOutcome = Literal["success", "slow_down", "failure", "blocked", "not_sent"]
PAUSE_MS = 15_000
PROMPT_MS = 100  # a grant of a paced workspace that is older than this is confirmed before it is used
LONGEST_WAIT_MS = 30_000
MOST_REQUESTS = 64  # that one reservation serves
_NO_PACE = Pace()


class AtomicUpdate(Protocol):
    """`DeliveryLedger.change`: read, update and write a named value in one step; the update may run several times."""

    def __call__(self, cell: str, update: Callable[[bytes | None], tuple[bytes, T]]) -> T:
        """The second value that the update returns; the first is written."""


class WorkspaceLimits(NamedTuple):
    """The limits of a retailer now: its workspace, its time zone, and the most messages of a day (warm-up)."""

    workspace: Workspace
    zone: str = "UTC"
    day_limit: Callable[[date], int | None] = lambda day: None


class SharedState(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The state of a workspace that all workers share."""

    pace: PaceState = PaceState()
    breaker: Breaker = Breaker()


def cell_name(retailer: str) -> str:
    """The name of the cell that holds a workspace's shared state."""
    return f"pace/{retailer}"


def decode_state(raw: bytes | None) -> SharedState:
    """The shared state in the bytes of a cell; a new one for None."""
    return SharedState() if raw is None else _decoder.decode(raw)


_encoder, _decoder = msgspec.msgpack.Encoder(), msgspec.msgpack.Decoder(SharedState)


@dataclass
class _WorkspaceView:
    """This worker's view of a workspace: its reservation (made at `reserved_at` for `planned` requests, of which
    `served` came; not used once `stale`), the last refusal, and whether the workspace was healthy."""

    lock: Lock = field(default_factory=Lock)
    pace: Pace = _NO_PACE
    zone: str = "UTC"
    reservation: Reservation | None = None
    reserved_at: int = 0
    served: int = 0
    planned: int = 0
    stale: bool = False
    refused: tuple[int, int, Grant] | None = None
    healthy: bool = False

    def spend(self, now: int, messages: int, calls: int) -> bool:
        """Takes messages and calls out of the reservation; False if it does not hold them."""
        reservation = self.reservation
        if reservation is None or self.stale or not self.reserved_at <= now < self.reserved_at + reservation.lasts_ms:
            return False
        if reservation.messages < messages or reservation.calls < calls:
            return False
        self.reservation = reservation._replace(
            messages=reservation.messages - messages, calls=reservation.calls - calls
        )
        self.served += 1
        return True

    def still_refused(self, now: int, messages: int, calls: int) -> Grant | None:
        """The last refusal, if it holds for a request of this size."""
        if self.refused is None:
            return None
        refused_messages, refused_calls, grant = self.refused
        as_large = min(messages, BATCH) >= refused_messages and calls >= refused_calls
        return grant if as_large and now < (grant.wake_at or 0) else None

    def next_plan(self, now: int) -> int:
        """How many requests the next reservation is for: those of the last second, or more if it was spent sooner."""
        return min(MOST_REQUESTS, self.served if now - self.reserved_at >= 1000 else 2 * self.planned + 1)


class Limiter:
    """Grants messages; all workers that share `change` keep a workspace's limits together. `clock` gives epoch seconds.
    A worker reserves up to a second's worth and spends it without the store, so that a 429 of another worker, or a
    breaker that it opened, is noticed up to a second late. Safe for several threads."""

    def __init__(self, change: AtomicUpdate, clock: Clock, jitter: Callable[[], float] = random.random) -> None:
        self._change = change
        self._clock = clock
        self._jitter = jitter
        self._holder = uuid.uuid4().hex[:12]
        self._views: dict[str, _WorkspaceView] = {}

    def acquire(self, retailer: str, limits: WorkspaceLimits, messages: int, calls: int = 1) -> Grant:
        """The grant of messages and calls now. `wake_at` is at most 30 s away, so that changed settings are noticed.
        Best called batch by batch: that costs no more, and nothing is granted that does not fit. A batch is granted
        whole or not at all, except where the burst or the day never allows a whole one: split it then."""
        view = self._view(retailer)
        with view.lock:
            now = self._now()
            if refusal := _refuse_closed(limits, now):
                return refusal
            current = limits.workspace.pace or _NO_PACE
            if current is not view.pace and current != view.pace:
                view.pace, view.stale, view.refused = current, True, None
            if view.spend(now, messages, calls):
                assert view.reservation is not None
                return Grant(messages, calls, until=view.reserved_at + view.reservation.lasts_ms)
            refused = view.still_refused(now, messages, calls)
            return refused or self._acquire_shared(retailer, view, limits, messages, calls)

    def confirm(self, retailer: str, limits: WorkspaceLimits, grant: Grant) -> bool:
        """Whether an earlier grant may still be used: the workspace is not paused, its hours are not quiet, and after
        `grant.until` the pace still has room for it."""
        view = self._view(retailer)
        with view.lock:
            now = self._now()
            if _refuse_closed(limits, now):
                return False
            return now < grant.until or self._renew(retailer, limits, grant)

    def _renew(self, retailer: str, limits: WorkspaceLimits, grant: Grant) -> bool:
        """Refunds a grant and acquires it again, from the bucket as it is now; whether all of it was acquired."""
        current = limits.workspace.pace or _NO_PACE

        def update(raw: bytes | None) -> tuple[bytes, bool]:
            shared, now = decode_state(raw), self._now()
            state = pace.advance(shared.pace, current, now, limits.zone)
            state = pace.refund(state, grant.messages, grant.calls)
            day_limit = limits.day_limit(date.fromordinal(state.day))
            after, renewed = pace.acquire(state, current, now, limits.zone, grant.messages, grant.calls, day_limit)
            whole = renewed.messages == grant.messages
            return _encoder.encode(replace(shared, pace=after if whole else state)), whole

        return self._change(cell_name(retailer), update)

    def report(self, retailer: str, outcome: CallOutcome, retry_after_s: float | None = None, reason: str = "") -> None:
        """Records the outcome of a call, and why it failed; `not_sent`: no call was made with a grant. In a healthy
        workspace that and a success cost no call to the store."""
        view = self._view(retailer)
        with view.lock:
            if outcome in ("success", "not_sent") and view.healthy:
                return
            jitter = self._jitter()

            def update(raw: bytes | None) -> tuple[bytes, SharedState]:
                shared = _apply_outcome(decode_state(raw), self._now(), outcome, retry_after_s, jitter, reason)
                return _encoder.encode(shared), shared

            view.healthy = _is_healthy(self._change(cell_name(retailer), update))
            view.refused = None
            view.stale = view.stale or outcome not in ("success", "not_sent")

    def close(self) -> None:
        """Return all reservations."""
        for retailer, view in list(self._views.items()):
            with view.lock:
                if view.reservation is not None and (view.reservation.messages or view.reservation.calls):
                    self._change(cell_name(retailer), partial(self._without_reservation, view))
                view.reservation = None

    def _now(self) -> int:
        return int(self._clock() * 1000)

    def _view(self, retailer: str) -> _WorkspaceView:
        # setdefault is one step: two threads get the same view.
        return self._views.get(retailer) or self._views.setdefault(retailer, _WorkspaceView())

    def _without_reservation(self, view: _WorkspaceView, raw: bytes | None) -> tuple[bytes, None]:
        shared = decode_state(raw)
        state = pace.advance(shared.pace, view.pace, self._now(), view.zone)
        if view.reservation is not None:
            state = return_unused(state, self._holder, view.reservation)
        return _encoder.encode(replace(shared, pace=state)), None

    def _acquire_shared(
        self, retailer: str, view: _WorkspaceView, limits: WorkspaceLimits, messages: int, calls: int
    ) -> Grant:
        """Acquires from the shared state, and reserves for the next requests."""

        def update(raw: bytes | None) -> tuple[bytes, _Acquired]:
            now = self._now()
            acquired = _acquire(decode_state(raw), now, self._holder, view, limits, messages, calls)
            return _encoder.encode(acquired.shared), acquired

        shared, now, grant, reservation = self._change(cell_name(retailer), update)
        view.planned = view.next_plan(now) if grant.messages else view.planned
        view.reservation, view.reserved_at, view.served, view.stale = reservation, now, 0, False
        view.zone, view.healthy = limits.zone, _is_healthy(shared)
        if grant.wake_at is not None:
            grant = grant._replace(wake_at=min(grant.wake_at, now + LONGEST_WAIT_MS))
        view.refused = None if grant.messages else (min(messages, BATCH), calls, grant)
        if not grant.messages:
            return grant
        hour_end = (now // pace.HOUR_MS + 1) * pace.HOUR_MS
        return grant._replace(until=hour_end if view.pace.per_second is None else now + PROMPT_MS)


class _Acquired(NamedTuple):
    shared: SharedState
    now: int
    grant: Grant
    reservation: Reservation | None


def _acquire(
    shared: SharedState, now: int, holder: str, view: _WorkspaceView, limits: WorkspaceLimits, messages: int, calls: int
) -> _Acquired:
    """One step of the shared state: returns the old reservation, grants, and reserves if the grant is whole."""
    state = pace.advance(shared.pace, view.pace, now, limits.zone)
    if view.reservation is not None:
        state = return_unused(state, holder, view.reservation)
    allowed = breaker.calls_allowed(shared.breaker, state.at)
    if allowed == 0:
        wake_at = breaker.wake_at(shared.breaker)
        if state.at >= shared.breaker.until:  # a probe is in flight: its answer comes soon
            wake_at = min(wake_at, state.at + breaker.FIRST_MS)
        reason = "slow_down" if state.at < state.blocked_until else "breaker"
        return _Acquired(replace(shared, pace=state), now, Grant(0, 0, wake_at, reason), None)
    day_limit = limits.day_limit(date.fromordinal(state.day))
    most = (messages, calls) if allowed is None else (min(messages, breaker.messages_allowed(shared.breaker)), allowed)
    state, grant = pace.acquire(state, view.pace, now, limits.zone, *most, day_limit)
    if grant.messages and allowed is not None:
        probing = breaker.begin_probe(shared.breaker, state.at)
        if grant.messages < messages:
            grant = grant._replace(wake_at=max(grant.wake_at or 0, state.at + breaker.FIRST_MS), reason="breaker")
        return _Acquired(SharedState(state, probing), now, grant, None)
    reservation = None
    if grant.wake_at is None:
        requests = view.next_plan(now)
        state, reservation = reserve(state, view.pace, limits.zone, holder, requests, messages, calls, day_limit)
    elif grant.reason == "per_second":
        grant = grant._replace(wake_at=max(grant.wake_at, pace.refill_at(state, view.pace)))
    return _Acquired(replace(shared, pace=state), now, grant, reservation)


def _refuse_closed(limits: WorkspaceLimits, now: int) -> Grant | None:
    """The refusal of a workspace that is paused or in its quiet hours; None for any other."""
    if limits.workspace.paused:
        return Grant(0, 0, now + PAUSE_MS, "paused")
    quiet = quiet_until(now, limits.workspace.quiet_hours, limits.zone)
    return None if quiet is None else Grant(0, 0, min(quiet, now + LONGEST_WAIT_MS), "quiet_hours")


def _apply_outcome(
    shared: SharedState, now: int, outcome: CallOutcome, retry_after_s: float | None, jitter: float, reason: str
) -> SharedState:
    if outcome == "success":
        return SharedState(pace.succeed(shared.pace, now), breaker.succeed(shared.breaker))
    if outcome == "not_sent":
        return replace(shared, breaker=breaker.cancel_probe(shared.breaker))
    if outcome == "slow_down":
        slowed = pace.slow_down(shared.pace, now, retry_after_s, jitter)
        return SharedState(slowed, breaker.slow_down(shared.breaker, slowed.blocked_until))
    return replace(shared, breaker=breaker.fail(shared.breaker, now, outcome == "blocked", reason=reason))


def _is_healthy(shared: SharedState) -> bool:
    return not shared.pace.slow_downs and not shared.breaker.failures and not shared.breaker.opened
