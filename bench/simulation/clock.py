"""Simulated time, and the two kinds of queue that everything waits in."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable


class Clock:
    """What happens, in the order of its time; what has the same time, in the order in which it was planned."""

    def __init__(self, start_ms: float) -> None:
        self.now = self.start = start_ms
        self._order = itertools.count()
        self._due: list[tuple[float, int, Callable[[], None]]] = []

    def at(self, when: float, what: Callable[[], None]) -> None:
        """Plan something; what should have been is now."""
        heapq.heappush(self._due, (max(when, self.now), next(self._order), what))

    def run(self, over: Callable[[], bool], until: float) -> None:
        """Let things happen until nothing is planned, `over` says so, or it is `until`."""
        while self._due and not over() and self._due[0][0] <= until:
            self.now, _, what = heapq.heappop(self._due)
            what()

    @property
    def seconds(self) -> float:
        """Since the start."""
        return (self.now - self.start) / 1000


class Servers:
    """Some servers with one queue, first come first served: cores, threads. `used` is how long they worked."""

    def __init__(self, clock: Clock, number: int) -> None:
        self._clock, self.number, self.used = clock, number, 0.0
        self._free = [clock.now] * number
        heapq.heapify(self._free)

    def work(self, lasts: float, then: Callable[[], None]) -> None:
        """`then` happens when a server has worked on this for so long."""
        ends = max(self._clock.now, heapq.heappop(self._free)) + lasts
        heapq.heappush(self._free, ends)
        self.used += lasts
        self._clock.at(ends, then)


class Serial:
    """One thing after the other, each so long: a document that one transaction at a time can change, a quota."""

    def __init__(self, clock: Clock) -> None:
        self._clock, self._free, self.used = clock, clock.now, 0.0

    def take(self, lasts: float) -> float:
        """When this is done that begins when all before it is."""
        self._free = max(self._clock.now, self._free) + lasts
        self.used += lasts
        return self._free
