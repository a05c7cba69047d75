"""What a worker asks before it sends: may these messages of this retailer leave now?"""

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
from transforms.pacing.reservations import Chunk, reserve, return_unused

T = TypeVar("T")
CallOutcome = Literal["success", "slow_down", "failure", "unauthorized", "nothing"]
PAUSE_MS = 15_000
PROMPT_MS = 100  # a grant of a paced workspace that is older than this is confirmed before it is used
LONGEST_WAIT_MS = 30_000
MOST_AHEAD = 64
_NO_PACE = Pace()


class AtomicUpdate(Protocol):
    """`DeliveryLedger.change`: read, update and write a named value in one step; the update may run several times."""

    def __call__(self, cell: str, update: Callable[[bytes | None], tuple[bytes, T]]) -> T:
        """What the update returns beside the new value."""


class WorkspaceLimits(NamedTuple):
    """What holds for a retailer now: its workspace, its time zone, and how many messages a day allows (warm-up)."""

    workspace: Workspace
    zone: str = "UTC"
    day_limit: Callable[[date], int | None] = lambda day: None


class Reserved(NamedTuple):
    """Messages and calls that were granted, and until when they may leave without being confirmed (epoch ms)."""

    messages: int
    calls: int
    until: int


class SharedState(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What all workers share about a workspace."""

    pace: PaceState = PaceState()
    breaker: Breaker = Breaker()


def cell_name(retailer: str) -> str:
    """The name under which a workspace's cell is kept."""
    return f"pace/{retailer}"


def read_cell(raw: bytes | None) -> SharedState:
    """The cell in some bytes; a new one for none."""
    return SharedState() if raw is None else _decoder.decode(raw)


_encoder, _decoder = msgspec.msgpack.Encoder(), msgspec.msgpack.Decoder(SharedState)


@dataclass
class _Lane:
    """What this worker knows of a workspace: the chunk it spends, the last refusal, whether all was well."""

    lock: Lock = field(default_factory=Lock)
    pace: Pace = _NO_PACE
    zone: str = "UTC"
    chunk: Chunk | None = None
    taken_at: int = 0
    spent: int = 0
    times: int = 0
    over: bool = False
    refused: tuple[int, int, Grant] | None = None
    healthy: bool = False

    def spend(self, now: int, messages: int, calls: int) -> bool:
        """Whether the chunk has it, which is then gone."""
        one = self.chunk
        if one is None or self.over or not self.taken_at <= now < self.taken_at + one.lasts:
            return False
        if one.messages < messages or one.calls < calls:
            return False
        self.chunk = one._replace(messages=one.messages - messages, calls=one.calls - calls)
        self.spent += 1
        return True

    def still_refused(self, now: int, messages: int, calls: int) -> Grant | None:
        """The last refusal, while it holds for as much."""
        if self.refused is None:
            return None
        least, least_calls, grant = self.refused
        holds = min(messages, BATCH) >= least and calls >= least_calls and now < (grant.wake_at or 0)
        return grant if holds else None

    def asks_ahead(self, now: int) -> int:
        """How many asks the next chunk should serve: more when the last was spent in time, else what it served."""
        return min(MOST_AHEAD, self.spent if now - self.taken_at >= 1000 else 2 * self.times + 1)


class Limiter:
    """Says when messages may leave; all workers that share `change` keep a workspace's limits together.

    `clock` tells epoch seconds. A worker takes up to a second's worth ahead and spends it without the store, so that
    a 429 that another worker got, and a breaker that it opened, are noticed up to a second late. Safe to use from
    several threads.
    """

    def __init__(
        self, change: AtomicUpdate, clock: Callable[[], float], jitter: Callable[[], float] = random.random
    ) -> None:
        self._change = change
        self._clock = clock
        self._jitter = jitter
        self._holder = uuid.uuid4().hex[:12]
        self._lanes: dict[str, _Lane] = {}

    def ask(self, retailer: str, terms: WorkspaceLimits, messages: int, calls: int = 1) -> Grant:
        """What may leave now; a `wake_at` is at most 30 s away, so that changed settings are noticed.

        Best asked for one batch after the other: that costs no more, and nothing is granted that does not fit. A
        batch is granted whole or not at all, but where the burst or the day never has more to give: split it then.
        """
        lane = self._lane(retailer)
        with lane.lock:
            now = self._now()
            if closed := _closed(terms, now):
                return closed
            current = terms.workspace.pace or _NO_PACE
            if current is not lane.pace and current != lane.pace:
                lane.pace, lane.over, lane.refused = current, True, None
            if lane.spend(now, messages, calls):
                assert lane.chunk is not None
                return Grant(messages, calls, until=lane.taken_at + lane.chunk.lasts)
            refused = lane.still_refused(now, messages, calls)
            return refused or self._take(retailer, lane, terms, messages, calls)

    def confirm(self, retailer: str, terms: WorkspaceLimits, reserved: Reserved) -> bool:
        """Whether what `ask` granted may still leave now: the workspace is not paused, its hours are not quiet, and
        where the grant has waited too long, the pace still has room for it."""
        lane = self._lane(retailer)
        with lane.lock:
            now = self._now()
            if _closed(terms, now):
                return False
            return now < reserved.until or self._renew(retailer, lane, terms, reserved)

    def _renew(self, retailer: str, lane: _Lane, terms: WorkspaceLimits, reserved: Reserved) -> bool:
        """Takes what was granted anew, from the bucket as it is now."""
        current = terms.workspace.pace or _NO_PACE

        def update(raw: bytes | None) -> tuple[bytes, bool]:
            cell, now = read_cell(raw), self._now()
            state = pace.settle(cell.pace, current, now, terms.zone)
            state = pace.give_back(state, reserved.messages, reserved.calls)
            limit = terms.day_limit(date.fromordinal(state.day))
            taken, grant = pace.take(state, current, now, terms.zone, reserved.messages, reserved.calls, limit)
            whole = grant.messages == reserved.messages
            return _encoder.encode(replace(cell, pace=taken if whole else state)), whole

        return self._change(cell_name(retailer), update)

    def report(self, retailer: str, outcome: CallOutcome, retry_after_s: float | None = None, reason: str = "") -> None:
        """What became of a call, and why it failed; `nothing`: none was made of what may leave, since it was settled or
        claimed already. Where all was well before, that and a success cost no call to the store."""
        lane = self._lane(retailer)
        with lane.lock:
            if outcome in ("success", "nothing") and lane.healthy:
                return
            jitter = self._jitter()

            def update(raw: bytes | None) -> tuple[bytes, SharedState]:
                cell = _told(read_cell(raw), self._now(), outcome, retry_after_s, jitter, reason)
                return _encoder.encode(cell), cell

            lane.healthy = _healthy(self._change(cell_name(retailer), update))
            lane.refused = None
            lane.over = lane.over or outcome not in ("success", "nothing")

    def close(self) -> None:
        """Give back all that was taken ahead."""
        for retailer, lane in list(self._lanes.items()):
            with lane.lock:
                if lane.chunk is not None and (lane.chunk.messages or lane.chunk.calls):
                    self._change(cell_name(retailer), partial(self._returned, lane))
                lane.chunk = None

    def _now(self) -> int:
        return int(self._clock() * 1000)

    def _lane(self, retailer: str) -> _Lane:
        # setdefault is one step: two threads get the same lane.
        return self._lanes.get(retailer) or self._lanes.setdefault(retailer, _Lane())

    def _returned(self, lane: _Lane, raw: bytes | None) -> tuple[bytes, None]:
        cell = read_cell(raw)
        state = pace.settle(cell.pace, lane.pace, self._now(), lane.zone)
        if lane.chunk is not None:
            state = return_unused(state, self._holder, lane.chunk)
        return _encoder.encode(replace(cell, pace=state)), None

    def _take(self, retailer: str, lane: _Lane, terms: WorkspaceLimits, messages: int, calls: int) -> Grant:
        def update(raw: bytes | None) -> tuple[bytes, _Taken]:
            now = self._now()
            taken = _take(read_cell(raw), now, self._holder, lane, terms, messages, calls)
            return _encoder.encode(taken.cell), taken

        taken = self._change(cell_name(retailer), update)
        lane.times = lane.asks_ahead(taken.now) if taken.grant.messages else lane.times
        lane.chunk, lane.taken_at, lane.spent, lane.over = taken.chunk, taken.now, 0, False
        lane.zone, lane.healthy = terms.zone, _healthy(taken.cell)
        grant = taken.grant
        if grant.wake_at is not None:
            grant = grant._replace(wake_at=min(grant.wake_at, taken.now + LONGEST_WAIT_MS))
        lane.refused = None if grant.messages else (min(messages, BATCH), calls, grant)
        if not grant.messages:
            return grant
        hour_end = (taken.now // pace.HOUR_MS + 1) * pace.HOUR_MS
        return grant._replace(until=hour_end if lane.pace.per_second is None else taken.now + PROMPT_MS)


class _Taken(NamedTuple):
    cell: SharedState
    now: int
    grant: Grant
    chunk: Chunk | None


def _take(
    cell: SharedState, now: int, holder: str, lane: _Lane, terms: WorkspaceLimits, messages: int, calls: int
) -> _Taken:
    """One step of the shared cell: the old chunk back, a grant out, a new chunk out when all is well."""
    state = pace.settle(cell.pace, lane.pace, now, terms.zone)
    if lane.chunk is not None:
        state = return_unused(state, holder, lane.chunk)
    allowed = breaker.calls_allowed(cell.breaker, state.at)
    if allowed == 0:
        wake_at = breaker.wake_at(cell.breaker)
        if state.at >= cell.breaker.until:  # a batch is trying the way: its answer comes soon
            wake_at = min(wake_at, state.at + breaker.FIRST_MS)
        why = "slow_down" if state.at < state.blocked_until else "breaker"
        return _Taken(replace(cell, pace=state), now, Grant(0, 0, wake_at, why), None)
    limit = terms.day_limit(date.fromordinal(state.day))
    most = (messages, calls) if allowed is None else (min(messages, breaker.messages_allowed(cell.breaker)), allowed)
    state, grant = pace.take(state, lane.pace, now, terms.zone, *most, limit)
    if grant.messages and allowed is not None:
        tried = breaker.begin_probe(cell.breaker, state.at)
        if grant.messages < messages:
            grant = grant._replace(wake_at=max(grant.wake_at or 0, state.at + breaker.FIRST_MS), why="breaker")
        return _Taken(SharedState(state, tried), now, grant, None)
    chunk = None
    if grant.wake_at is None:
        times = lane.asks_ahead(now)
        state, chunk = reserve(state, lane.pace, terms.zone, holder, times, messages, calls, limit)
    elif grant.why == "per_second":
        grant = grant._replace(wake_at=max(grant.wake_at, pace.ripe_at(state, lane.pace)))
    return _Taken(replace(cell, pace=state), now, grant, chunk)


def _closed(terms: WorkspaceLimits, now: int) -> Grant | None:
    """The refusal of a workspace that is paused, or whose hours are quiet."""
    if terms.workspace.paused:
        return Grant(0, 0, now + PAUSE_MS, "paused")
    quiet = quiet_until(now, terms.workspace.quiet_hours, terms.zone)
    return None if quiet is None else Grant(0, 0, min(quiet, now + LONGEST_WAIT_MS), "quiet_hours")


def _told(
    cell: SharedState, now: int, outcome: CallOutcome, retry_after_s: float | None, jitter: float, reason: str
) -> SharedState:
    if outcome == "success":
        return SharedState(pace.succeed(cell.pace, now), breaker.succeed(cell.breaker))
    if outcome == "nothing":
        return replace(cell, breaker=breaker.cancel_probe(cell.breaker))
    if outcome == "slow_down":
        slowed = pace.slow_down(cell.pace, now, retry_after_s, jitter)
        return SharedState(slowed, breaker.slow_down(cell.breaker, slowed.blocked_until))
    return replace(cell, breaker=breaker.fail(cell.breaker, now, outcome == "unauthorized", reason=reason))


def _healthy(cell: SharedState) -> bool:
    return not cell.pace.slow_downs and not cell.breaker.failures and not cell.breaker.opened
