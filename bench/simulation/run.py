"""Runs a plan to its end and says what came of it."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import accumulate
from random import Random
from typing import Any

from bench.rebatch import rate
from bench.simulation.path import Path, Worker
from bench.simulation.plan import Plan, Traffic
from schemas.delivery import BATCH
from transforms.delivery.slots import IN_FLIGHT

_TICK_MS = 100.0
_LOOK_MS, _LOOKS = 60_000.0, 2  # the autoscaler looks once a minute and acts on what it sees twice
_CLEAR_S = 150.0  # Dataflow: how fast a backlog should be cleared after scaling up
_LATE_S, _EARLY_S, _LEAST_CPU, _CPU = 15.0, 10.0, 0.2, 0.75


def shares(traffic: Traffic) -> dict[str, float]:
    """The part of all events that each retailer has."""
    weights = [1 / (n + 1) ** traffic.skew for n in range(traffic.retailers)]
    return {f"store-{n}": weight / sum(weights) for n, weight in enumerate(weights)}


def counts(total: int, parts: dict[str, float]) -> dict[str, int]:
    """Whole numbers in those proportions; their sum is `total`."""
    found, before, sum_so_far = dict[str, int](), 0, 0.0
    for name, part in parts.items():
        sum_so_far += part
        upto = round(total * min(1.0, sum_so_far))
        found[name], before = upto - before, upto
    found[name] += total - before
    return found


class Run:
    """A path with its publisher and its autoscaler."""

    def __init__(self, plan: Plan, progress: Callable[[float, int], None] | None = None) -> None:
        self.plan, self._progress = plan, progress
        self.path = Path(plan)
        self._parts = shares(plan.traffic)
        self._rnd = Random(plan.seed + 1)
        self._looks: list[str] = []
        self._seen = (0, 0.0, self.path.clock.now)
        self._history = [(0.0, plan.workers.workers)]

    def run(self) -> dict[str, Any]:
        """What came of it. Raises RuntimeError when an event is not in exactly one place: that would be our mistake."""
        path, traffic = self.path, self.plan.traffic
        self._publish_backlog()
        if traffic.per_second and traffic.seconds:
            path.clock.at(path.clock.now, self._publish_live)
        if self.plan.workers.most > self.plan.workers.workers:
            path.clock.at(path.clock.now + _LOOK_MS, self._look)
        if self._progress is not None:
            path.clock.at(path.clock.now, self._tell)
        path.clock.run(self._over, path.clock.now + self.plan.most_s * 1000)
        places = dict(path.events)
        published = places.pop("published", 0)
        if sum(places.values()) != published or min(places.values(), default=0) < 0:
            raise RuntimeError(f"the simulation lost count: {published} published, {places}")
        return self._outcome(published, places)

    def _over(self) -> bool:
        path, traffic = self.path, self.plan.traffic
        done = path.events["accepted"] + path.events["unknown"]
        return path.clock.seconds >= traffic.seconds and done >= max(1, traffic.backlog, path.events["published"])

    def _publish_backlog(self) -> None:
        traffic = self.plan.traffic
        left = counts(traffic.backlog, self._parts)
        if traffic.in_turn:
            for retailer, count in left.items():
                self.path.publish(retailer, count)
            return
        rounds = max(1, max(left.values(), default=0) // 20)
        for number in range(rounds):
            for retailer, count in left.items():
                self.path.publish(retailer, (number + 1) * count // rounds - number * count // rounds)

    def _publish_live(self) -> None:
        path, traffic = self.path, self.plan.traffic
        if path.clock.seconds >= traffic.seconds:
            return
        for retailer, part in self._parts.items():
            path.publish(retailer, _poisson(self._rnd, part * traffic.per_second * _TICK_MS / 1000))
        path.clock.at(path.clock.now + _TICK_MS, self._publish_live)

    def _tell(self) -> None:
        assert self._progress is not None
        self._progress(self.path.clock.seconds, self.path.events["accepted"])
        self.path.clock.at(self.path.clock.now + 1_000, self._tell)

    # The autoscaler

    def _look(self) -> None:
        path, workers = self.path, self.path.workers
        done, used, since = self._seen
        seconds = (path.clock.now - since) / 1000
        accepted, now_used = path.events["accepted"], sum(one.cores.used for one in path.everyone)
        rate = (accepted - done) / seconds
        cpu = (now_used - used) / 1000 / seconds / len(workers) / self.plan.workers.cores
        self._seen = accepted, now_used, path.clock.now
        waiting = path.events["broker"] + path.events["way"] + path.events["retry"]
        behind = waiting / rate if rate else math.inf if waiting else 0.0
        wish = "more" if behind > _LATE_S and cpu > _LEAST_CPU else "less" if behind < _EARLY_S and cpu < _CPU else ""
        self._looks = [*self._looks, wish] if wish and wish in self._looks[-1:] else [wish]
        if len(self._looks) >= _LOOKS:
            self._looks = []
            if wish == "more":
                each = max(1.0, rate / len(workers))
                self._grow(min(self.plan.workers.most, math.ceil((rate + waiting / _CLEAR_S) / each)))
            else:
                self._shrink(max(1, math.ceil(len(workers) * cpu / _CPU)))
        path.clock.at(path.clock.now + _LOOK_MS, self._look)

    def _grow(self, wanted: int) -> None:
        path = self.path

        def started() -> None:
            new: list[Worker] = [path.new_worker() for _ in range(max(0, wanted - len(path.workers)))]
            path.workers += new
            path.everyone += new
            self._history.append((path.clock.seconds, len(path.workers)))

        if wanted > len(path.workers):
            path.clock.at(path.clock.now + self.plan.workers.boot_s * 1000, started)

    def _shrink(self, wanted: int) -> None:
        path = self.path
        for worker in path.workers[wanted:]:
            worker.until = path.clock.now
            worker.limiter.close()
        del path.workers[wanted:]
        self._history.append((path.clock.seconds, len(path.workers)))

    # What came of it

    def _outcome(self, published: int, places: dict[str, int]) -> dict[str, Any]:
        path, plan = self.path, self.plan
        seconds, now = path.clock.seconds, path.clock.now
        totals = accumulate((size for _, size in path.accepted_at), initial=0)
        seen = list(zip([0.0, *(at / 1000 for at, _ in path.accepted_at)], totals, strict=True))
        alive = sum(min(now, one.until) - one.since for one in path.everyone)
        fewest = sum(-(-count // BATCH) for count in path.published.values())
        used = {
            "workers_cpu": sum(one.cores.used for one in path.everyone) / max(1.0, alive * plan.workers.cores),
            "workers_threads": sum(one.threads.used for one in path.everyone) / max(1.0, alive * IN_FLIGHT),
            "ledger": path.ledger.used / max(1.0, now - path.clock.start),
            "broker": path.broker.used / max(1.0, now - path.clock.start),
            "busiest_pacing_cell": max((one.used for one in path.cells.values()), default=0.0)
            / max(1.0, now - path.clock.start),
            "busiest_workspace_hour": max(path.hours.values(), default=0) / plan.vendor.calls_per_hour,
        }
        return {
            "published": published,
            "places": {name: count for name, count in sorted(places.items()) if count},
            "seconds": round(seconds, 1),
            "events_per_s": round(rate(seen)),
            "latency_ms": {f"p{cut}": round(_percentile(path.latencies, cut / 100)) for cut in (50, 99)},
            "calls": {name: path.calls[name] for name in sorted(path.calls)},
            "calls_over_minimum": round(path.calls["made"] / max(1, fewest), 3),
            "worker_hours": round(alive / 3_600_000, 3),
            "workers": self._history,
            "utilisation": {name: round(value, 3) for name, value in used.items()},
        }


def _poisson(rnd: Random, mean: float) -> int:
    """Knuth's way, which is good for small means; a normal draw for others."""
    if mean > 30:
        return max(0, round(rnd.gauss(mean, math.sqrt(mean))))
    limit, number, product = math.exp(-mean), 0, rnd.random()
    while product > limit:
        number += 1
        product *= rnd.random()
    return number


def _percentile(values: list[tuple[float, int]], cut: float) -> float:
    """The weighted percentile of (value, weight)."""
    left = cut * sum(weight for _, weight in values)
    for value, weight in sorted(values):
        left -= weight
        if left <= 0:
            return value
    return 0.0
