"""The path of an event: published, read, told from its repeats, batched, paced, claimed, sent, settled.

Pacing, breaker, back-off and shards are the product's own code with the simulated clock; events are only counted. What
a thing costs comes from the plan, whose numbers are measured (bench/costs.py) or documented (docs/scale.md).
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from random import Random
from typing import NamedTuple, TypeVar
from zlib import crc32

from bench.simulation.clock import Clock, Serial, Servers
from bench.simulation.plan import Plan
from connectors.vendors.statuses import meaning
from schemas.campaigns.workspaces import Delivery, Workspace
from schemas.delivery import BATCH
from transforms.delivery.batch_by_retailer import RETRY_SHARDS
from transforms.delivery.dispatch import POLL_MS
from transforms.delivery.slots import IN_FLIGHT, PER_WORKSPACE
from transforms.delivery.vendor_call import back_off_ms
from transforms.pacing.limiter import CallOutcome, Limiter, WorkspaceLimits
from transforms.streaming.group_by_shard import LIST, Load, group_of
from transforms.streaming.read_messages import FULL_S, POLL

T = TypeVar("T")
Key = tuple[str, int]
START_MS = 1_775_001_600_000.0  # 2026-04-01 00:00 UTC, the start of a clock hour
_RESENDS = Delivery().resends
READ_SHARE = 0.4  # of an event's CPU: to read and decode it, where it is read; the rest is where its key lives


class Batch(NamedTuple):
    """So many events, published at so many milliseconds on average. `lost`: how many of its `attempt` calls may have
    been accepted."""

    size: int
    published: float
    attempt: int = 0
    not_before: float = 0.0
    lost: int = 0


class Worker:
    """A process: its cores, the threads that wait for answers, its own limiter, the calls that are out."""

    def __init__(self, clock: Clock, cores: int, limiter: Limiter, reads: Callable[[Worker], None]) -> None:
        self.cores, self.threads, self.limiter = Servers(clock, cores), Servers(clock, IN_FLIGHT), limiter
        self.out: dict[str, int] = defaultdict(int)
        self.since, self.until, self.idle = clock.now, math.inf, 0
        self.load = Load(clock=lambda: clock.now / 1000)
        clock.at(clock.now, lambda: reads(self))


@dataclass
class _RetryShard:
    """What waits of a retailer's retry shard, and when it is looked at again."""

    waiting: list[Batch] = field(default_factory=list)
    due: float = math.inf


@dataclass
class _Bunch:
    """Calls that were claimed together and are settled together."""

    left: int
    sent: list[Batch] = field(default_factory=list)
    lost: int = 0


class Path:
    """A run of the plan. Every event is in one of the places that `events` counts."""

    def __init__(self, plan: Plan) -> None:
        self.plan, self.clock, self.rnd = plan, Clock(START_MS), Random(plan.seed)
        self.events: Counter[str] = Counter()
        self.published: Counter[str] = Counter()
        self.calls: Counter[str] = Counter()
        self.accepted_at: list[tuple[float, int]] = []
        self.latencies: list[tuple[float, int]] = []
        self.hours: Counter[tuple[str, int]] = Counter()
        self.ledger, self.broker = Serial(self.clock), Serial(self.clock)
        self.cells: dict[str, Serial] = defaultdict(lambda: Serial(self.clock))
        self._queue: deque[list[float | str]] = deque()
        self._values: dict[str, bytes] = {}
        self._touched: list[str] = []
        self._busy_keys: dict[Key, deque[tuple[Worker, float, Callable[[], None]]]] = {}
        self._gathered: dict[Key, dict[str, list[float]]] = {}
        self._retry_shards: dict[Key, _RetryShard] = defaultdict(_RetryShard)
        self._places: dict[Key, int] = {}
        self._limits = WorkspaceLimits(Workspace(pace=plan.pace))
        self.workers = [self.new_worker() for _ in range(plan.workers.workers)]
        self.everyone = list(self.workers)

    def new_worker(self) -> Worker:
        """A process that begins to read."""
        limiter = Limiter(self._change, lambda: (self.clock.now + 0.5) / 1000, self.rnd.random)
        return Worker(self.clock, self.plan.workers.cores, limiter, self._read)

    def publish(self, retailer: str, count: int) -> None:
        """So many events of a retailer are published now."""
        if count:
            self._queue.append([retailer, count, self.clock.now])
            self.events["published"] += count
            self.published[retailer] += count
            self.events["broker"] += count

    def _move(self, count: int, here: str, there: str) -> None:
        self.events[here] -= count
        self.events[there] += count

    def _work(self, worker: Worker, us: float, then: Callable[[], None]) -> None:
        worker.cores.work(us / 1000 / self.plan.workers.busy, then)

    def _owner(self, key: Key) -> Worker:
        place = self._places.get(key)
        if place is None:
            place = self._places[key] = crc32(f"{key[0]}/{key[1]}".encode())
        return self.workers[place % len(self.workers)]

    # Reading

    def _read(self, worker: Worker) -> None:
        now, plan = self.clock.now, self.plan
        if now >= worker.until:
            return
        if self.events["way"] > plan.workers.most_ahead * len(self.workers):
            self.clock.at(now + FULL_S * 1000, lambda: self._read(worker))
            return
        waiting, got, room = self.events["broker"], list[tuple[str, int, float]](), POLL
        while room and self._queue:
            retailer, count, published = self._queue[0]
            some = min(room, int(count))
            room -= some
            got.append((str(retailer), some, float(published)))
            if some == count:
                self._queue.popleft()
            else:
                self._queue[0][1] = int(count) - some
        worker.idle = 0 if got else worker.idle + 1
        if not got:
            self.clock.at(now + min(1000, 50 * worker.idle), lambda: self._read(worker))
            return
        number = POLL - room
        self._move(number, "broker", "way")
        arrives = now + plan.broker.poll_ms
        if plan.broker.bytes_per_s is not None:
            arrives = self.broker.take(number * plan.traffic.event_bytes * 1000 / plan.broker.bytes_per_s)

        def fetched() -> None:
            self._read(worker)
            self._work(worker, number * READ_SHARE * plan.workers.event_us, lambda: self._group(worker, got))

        cost = number * (plan.broker.cpu_us + plan.broker.cpu_us_per_waiting * waiting)
        self.clock.at(arrives, lambda: self._work(worker, cost, fetched))

    # Repeats and batches

    def _group(self, worker: Worker, got: list[tuple[str, int, float]]) -> None:
        lists: dict[Key, dict[str, list[float]]] = defaultdict(dict)
        counts = [worker.load.shards(retailer, count) for retailer, count, _ in got]
        groups = worker.load.groups(sum(one[1] for one, shards in zip(got, counts, strict=True) if shards == 1))
        for (retailer, count, published), shards in zip(got, counts, strict=True):
            for shard in range(shards):
                part = (count + shard) // shards
                if part:
                    key = (group_of(retailer, groups), 0) if shards == 1 else (retailer, shard)
                    _add(lists[key].setdefault(retailer, [0, 0.0]), part, published)
        for key, own in lists.items():
            count = int(sum(one[0] for one in own.values()))
            us = count * (1 - READ_SHARE) * self.plan.workers.event_us
            self._keyed(key, us, partial(self._cut, key, own))

    def _keyed(self, key: Key, us: float, then: Callable[[], None]) -> None:
        """Work under a key: one after the other."""
        waiting = self._busy_keys.get(key)
        if waiting is not None:
            waiting.append((self._owner(key), us, then))
            return
        self._busy_keys[key] = deque()
        self._work(self._owner(key), us, lambda: self._keyed_over(key, then))

    def _keyed_over(self, key: Key, then: Callable[[], None]) -> None:
        then()
        waiting = self._busy_keys[key]
        if waiting:
            worker, us, following = waiting.popleft()
            self._work(worker, us, lambda: self._keyed_over(key, following))
        else:
            del self._busy_keys[key]

    def _cut(self, key: Key, own: dict[str, list[float]]) -> None:
        for retailer, (total, weighted) in own.items():
            published, count = weighted / total, int(total)
            for start in range(0, count, LIST):
                some = min(LIST, count - start)
                full, rest = divmod(some, BATCH)
                if full:
                    self._address(retailer, [Batch(BATCH, published)] * full)
                if rest:
                    self._gather(key, retailer, rest, published)

    def _gather(self, key: Key, retailer: str, count: int, published: float) -> None:
        if key not in self._gathered:
            self._gathered[key] = {}
            self.clock.at(self.clock.now + self.plan.workers.wait_s * 1000, lambda: self._leave(key))
        _add(self._gathered[key].setdefault(retailer, [0, 0.0]), count, published)

    def _leave(self, key: Key) -> None:
        for retailer, (count, weighted) in self._gathered.pop(key).items():
            full, rest = divmod(int(count), BATCH)
            batches = [Batch(BATCH, weighted / count)] * full + ([Batch(rest, weighted / count)] if rest else [])
            self._address(retailer, batches)

    def _address(self, retailer: str, batches: list[Batch]) -> None:
        key = (retailer, self.rnd.randrange(RETRY_SHARDS))

        def arrive() -> None:
            self._move(sum(batch.size for batch in batches), "way", "retry")
            self._send(key, batches)

        self.clock.at(self.clock.now + self.plan.workers.bundle_ms, arrive)

    # Pacing

    def _change(self, cell: str, update: Callable[[bytes | None], tuple[bytes, T]]) -> T:
        self._values[cell], result = update(self._values.get(cell))
        self._touched.append(cell)
        return result

    def _cells_changed(self) -> float:
        """When the cells that were just changed are committed."""
        ends = self.clock.now
        for cell in self._touched:
            ends = max(ends, self.cells[cell].take(self.plan.ledger.cell_ms)) if self.plan.ledger.cell_ms else ends
            self.calls["cell_commits"] += 1
        self._touched.clear()
        return ends

    def _send(self, key: Key, batches: list[Batch]) -> None:
        worker, now = self._owner(key), self.clock.now
        ready = [batch for batch in batches if batch.not_before <= now]
        later = [batch for batch in batches if batch.not_before > now]
        taken, left, wake = self._allowed(worker, key[0], ready) if ready else ([], [], math.inf)
        ends = self._cells_changed()
        if left or later:
            self._wait(key, [batch._replace(not_before=wake) for batch in left] + later)
        if taken:
            worker.out[key[0]] += len(taken)
            self._move(sum(batch.size for batch in taken), "retry", "out")
            us = len(taken) * self.plan.workers.call_us
            self.clock.at(ends, lambda: self._work(worker, us, lambda: self._claim(worker, key, taken)))

    def _allowed(self, worker: Worker, retailer: str, batches: list[Batch]) -> tuple[list[Batch], list[Batch], float]:
        """As BatchDispatcher does: at most so many calls are out, and the limiter has the say about each."""
        room, wake = PER_WORKSPACE - worker.out[retailer], self.clock.now + POLL_MS
        if len(batches) <= room and self.plan.pace.per_second is None:
            grant = worker.limiter.acquire(retailer, self._limits, sum(one.size for one in batches), len(batches))
            return batches[: grant.calls], batches[grant.calls :], grant.wake_at or wake
        taken, left = list[Batch](), list(batches)
        while left and len(taken) < room:
            grant = worker.limiter.acquire(retailer, self._limits, left[0].size, 1)
            if grant.messages < left[0].size or not grant.calls:
                return taken, left, grant.wake_at or wake
            taken.append(left.pop(0))
        return taken, left, wake

    def _wait(self, key: Key, batches: list[Batch]) -> None:
        shard = self._retry_shards[key]
        shard.waiting += batches
        due = min(batch.not_before for batch in batches)
        if due < shard.due:
            shard.due = due
            self.clock.at(due, lambda: self._again(key, due))

    def _again(self, key: Key, due: float) -> None:
        shard = self._retry_shards[key]
        if shard.due == due:  # else an earlier look has taken all there was
            waiting, shard.waiting, shard.due = shard.waiting, [], math.inf
            self._send(key, waiting)

    # Delivery

    def _ledger_done(self, count: int) -> float:
        """When a claim or settlement of so many events is through."""
        ledger = self.plan.ledger
        if ledger.events_per_s is None:
            return self.clock.now + ledger.op_ms
        return self.ledger.take(count * 500 / ledger.events_per_s) + ledger.op_ms  # claim and settlement, half each

    def _claim(self, worker: Worker, key: Key, batches: list[Batch]) -> None:
        bunch = _Bunch(len(batches))

        def claimed() -> None:
            for batch in batches:
                self._call(worker, key, bunch, batch)

        self.clock.at(self._ledger_done(sum(batch.size for batch in batches)), claimed)

    def _call(self, worker: Worker, key: Key, bunch: _Bunch, batch: Batch) -> None:
        vendor = self.plan.vendor
        took = vendor.median_ms * math.exp(self.rnd.gauss(0, vendor.sigma)) if vendor.sigma else vendor.median_ms
        worker.threads.work(took, lambda: self._answer(worker, key, bunch, batch))

    def _says(self, retailer: str) -> str:
        """What the vendor answers to the next call of a workspace."""
        vendor, now = self.plan.vendor, self.clock.now
        self.calls["made"] += 1
        hour = (retailer, int(now // 3_600_000))
        if self.hours[hour] >= vendor.calls_per_hour:
            return "slow_down"
        self.hours[hour] += 1
        if vendor.outage is not None and vendor.outage[0] <= self.clock.seconds < vendor.outage[1]:
            return "failed"
        if vendor.every_429 and self.calls["made"] % vendor.every_429 == 0:
            return "slow_down"
        if vendor.every_503 and self.calls["made"] % vendor.every_503 == 0:
            return meaning(vendor.name, 503).kind
        luck = self.rnd.random()
        if luck < vendor.failing:
            return meaning(vendor.name, 503).kind
        return "unknown" if luck < vendor.failing + vendor.lost else "sent"

    def _answer(self, worker: Worker, key: Key, bunch: _Bunch, batch: Batch) -> None:
        kind, now = self._says(key[0]), self.clock.now
        self.calls[kind] += 1
        outcome: CallOutcome = "success" if kind == "sent" else "slow_down" if kind == "slow_down" else "failure"
        worker.limiter.report(key[0], outcome, self.plan.vendor.retry_after_s if kind == "slow_down" else None)
        self._cells_changed()
        worker.out[key[0]] -= 1
        bunch.left -= 1
        attempt = batch.attempt + 1
        if kind == "sent":
            bunch.sent.append(batch)
        elif kind == "unknown" and not self._may_resend(batch):
            bunch.lost += batch.size
        else:
            pause = {"slow_down": 0.0, "failed": 0.0, "unknown": self.plan.ledger.lease_s * 1000}[kind]
            if kind == "failed":
                pause = back_off_ms(attempt, self.rnd.random())
            lost = batch.lost + (kind == "unknown")
            self._move(batch.size, "out", "retry")
            self._wait(key, [batch._replace(attempt=attempt, lost=lost, not_before=now + pause)])
        if not bunch.left:
            size = sum(one.size for one in bunch.sent) + bunch.lost
            self.clock.at(self._ledger_done(size) if size else now, lambda: self._settle(bunch))

    def _may_resend(self, batch: Batch) -> bool:
        """Whether a call without a certain answer is made again when its lease ends."""
        return self.plan.resend and batch.lost < _RESENDS

    def _settle(self, bunch: _Bunch) -> None:
        now = self.clock.now
        self._move(bunch.lost, "out", "unknown")
        size = sum(batch.size for batch in bunch.sent)
        if size:
            self._move(size, "out", "accepted")
            self.accepted_at.append((now, size))
            self.latencies += [(now - batch.published, batch.size) for batch in bunch.sent]


def _add(sums: list[float], count: int, published: float) -> None:
    sums[0] += count
    sums[1] += count * published
