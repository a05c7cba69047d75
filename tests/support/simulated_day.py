"""A simulated day: workers with one clock and one store, and vendors that answer by script."""

from __future__ import annotations

import heapq
import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import TypeVar
from zoneinfo import ZoneInfo

from schemas.campaigns.workspaces import Pace, Workspace
from transforms.pacing.limiter import Limiter, WorkspaceLimits
from transforms.pacing.quiet import quiet_until

T = TypeVar("T")
START = 1_775_001_600  # 2026-04-01 00:00 UTC
HOUR = 3_600


class Cells:
    """`DeliveryLedger.change` in memory; counts its calls."""

    def __init__(self) -> None:
        self.values: dict[str, bytes] = {}
        self.calls = 0

    def change(self, cell: str, update: Callable[[bytes | None], tuple[bytes, T]]) -> T:
        self.calls += 1
        self.values[cell], result = update(self.values.get(cell))
        return result


@dataclass
class Shop:
    """A retailer: its limits from a time on (seconds, ascending), when its vendor says 429 and for how long, and
    the sizes of its batches, of which there is always one more."""

    name: str
    limits: list[tuple[float, WorkspaceLimits]]
    busy: dict[float, float] = field(default_factory=dict)
    sizes: tuple[int, ...] = (50,)
    workers: int = 1

    def limits_at(self, at: float) -> WorkspaceLimits:
        return next(limits for since, limits in reversed(self.limits) if since <= at)


@dataclass
class Sent:
    """A call: when (seconds), how many messages, and whether the vendor accepted it."""

    at: float
    messages: int
    taken: bool


def simulate(
    shops: list[Shop], seconds: float, latency: float = 0.05, seed: int = 7
) -> tuple[dict[str, list[Sent]], Cells]:
    """The calls of each retailer in some seconds. Workers acquire in the order of their clocks."""
    now = [START * 1000]  # whole milliseconds, which is what a limiter counts
    cells = Cells()
    workers = max(shop.workers for shop in shops)
    limiters = [
        Limiter(cells.change, lambda: (now[0] + 0.5) / 1000, random.Random(seed).random) for _ in range(workers)
    ]
    sent: dict[str, list[Sent]] = {shop.name: [] for shop in shops}
    luck = {shop.name: random.Random(f"{seed} {shop.name}") for shop in shops}
    pending = {shop.name: dict(shop.busy) for shop in shops}
    order = itertools.count()
    events = [
        (START * 1000 + luck[shop.name].randrange(1000), next(order), shop, w)
        for shop in shops
        for w in range(shop.workers)
    ]
    heapq.heapify(events)
    while events and events[0][0] < (START + seconds) * 1000:
        now[0], _, shop, worker = heapq.heappop(events)
        at, name = now[0] / 1000, shop.name
        size = luck[name].choice(shop.sizes)
        grant = limiters[worker].acquire(name, shop.limits_at(at), size)
        if grant.messages:
            due = [since for since in pending[name] if since <= at]
            sent[name].append(Sent(at, grant.messages, not due))
            if due:
                limiters[worker].report(name, "slow_down", pending[name].pop(due[0]))
            else:
                limiters[worker].report(name, "success")
            again = now[0] + int(latency * 1000)
        else:
            assert grant.wake_at is not None
            assert grant.wake_at > now[0], "a refusal that says to ask at once is a busy loop"
            again = grant.wake_at
        heapq.heappush(events, (again, next(order), shop, worker))
    return sent, cells


def burst_excess(shop: Shop, sent: list[Sent]) -> float:
    """By how many messages the worst window exceeds burst + rate × its length; rates change as the limits do."""
    worst, level, since, changes = 0.0, 0.0, float(START), [at for at, _ in shop.limits]
    for one in sent:
        for until in [*(at for at in changes if since < at < one.at), one.at]:
            rate = _pace(shop, since).per_second
            level = 0.0 if rate is None else max(0.0, level - rate * (until - since))
            since = until
        pace = _pace(shop, one.at)
        if pace.per_second is None:
            continue
        level += one.messages
        burst = pace.burst if pace.burst is not None else max(50, pace.per_second)
        worst = max(worst, level - burst)
        # A window that began under a larger burst says nothing about the smaller one.
        level = min(level, burst)
    return worst


def calls_by_hour(sent: list[Sent]) -> dict[int, int]:
    """Calls of each clock hour."""
    counts: dict[int, int] = {}
    for one in sent:
        counts[int(one.at // HOUR)] = counts.get(int(one.at // HOUR), 0) + 1
    return counts


def messages_by_day(sent: list[Sent], zone: str) -> dict[datetime, int]:
    """Messages of each calendar day of a zone."""
    counts: dict[datetime, int] = {}
    for one in sent:
        day = datetime.combine(datetime.fromtimestamp(one.at, ZoneInfo(zone)).date(), datetime.min.time())
        counts[day] = counts.get(day, 0) + one.messages
    return counts


def allowed(shop: Shop, seconds: float, step: int = 300) -> float:
    """How many messages the limits would let through if every moment were used: what a fair limiter reaches."""
    total, hours, days = 0.0, dict[int, float](), dict[object, float]()
    blocks = [(since, since + length) for since, length in shop.busy.items()]
    for at in range(START, START + int(seconds), step):
        limits = shop.limits_at(at)
        pace = _pace(shop, at)
        blocked = any(begin <= at < end for begin, end in blocks)
        if limits.workspace.paused or blocked or quiet_until(at * 1000, limits.workspace.quiet_hours, limits.zone):
            continue
        day = datetime.fromtimestamp(at, ZoneInfo(limits.zone)).date()
        limit = limits.day_limit(day)
        room = min(
            float("inf") if pace.per_second is None else pace.per_second * step,
            pace.calls_per_hour * max(shop.sizes) - hours.get(at // HOUR, 0),
            float("inf") if limit is None else limit - days.get(day, 0),
        )
        hours[at // HOUR] = hours.get(at // HOUR, 0) + room
        days[day] = days.get(day, 0) + room
        total += room
    return total


def _pace(shop: Shop, at: float) -> Pace:
    return shop.limits_at(at).workspace.pace or Pace()


def limits(zone: str = "UTC", day_limit: int | None = None, **workspace: object) -> WorkspaceLimits:
    """WorkspaceLimits with a fixed limit a day."""
    return WorkspaceLimits(Workspace.model_validate(workspace), zone, lambda day: day_limit)
