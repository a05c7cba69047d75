"""The counters of a streaming pipeline: declared once, in the engine's metrics and in the process too.

Prism reports a counter of its first bundle only, so the live view of a job in this process reads `Counters.tally`.
"""

from __future__ import annotations

from collections import Counter as Tally
from collections import defaultdict
from threading import Lock
from typing import Any, NamedTuple

import apache_beam as beam

SHARED = ("read", "dead_lettered", "repeats", "held", "released", "left_waiting")
"""What the steps of this folder count: a pipeline that uses them declares these names and its own."""
_LEAVE = ("dead_lettered", "repeats", "held")
_ITEMS: dict[str, Tally[str]] = defaultdict(Tally)  # by namespace
_BYTES: dict[str, Tally[str]] = defaultdict(Tally)  # of bodies, of the same items
_LOCK = Lock()


class Limit(NamedTuple):
    """A number of items, and of bytes of their bodies."""

    messages: int
    bytes: int


class Counters(NamedTuple):
    """The counters of a pipeline: their namespace in the engine's metrics, and their names in the order in which they
    are shown. `leaving` are its own counters of items that are in flight no more: dropped, or at the last step."""

    namespace: str
    names: tuple[str, ...] = SHARED
    leaving: tuple[str, ...] = ()

    def counter(self, name: str) -> Counter:
        """The counter of a name, for a step. Raises ValueError for a name that is not declared."""
        if name not in self.names:
            raise ValueError(f"{name!r} is no counter of {self.namespace}")
        return Counter(self.namespace, name)

    @property
    def tally(self) -> Tally[str]:
        """What this process has counted so far."""
        return _ITEMS[self.namespace]

    def in_flight(self) -> int:
        """Items that this process has read, and that are neither held nor counted in `leaving` or as dropped."""
        return self._in_flight(_ITEMS)

    def bytes_in_flight(self) -> int:
        """Bytes of the bodies of the items in flight."""
        return self._in_flight(_BYTES)

    def exceeds(self, limit: Limit | None) -> bool:
        """Whether more than a limit is in flight; False without a limit."""
        return limit is not None and (self.in_flight() > limit.messages or self.bytes_in_flight() > limit.bytes)

    def _in_flight(self, tallies: dict[str, Tally[str]]) -> int:
        with _LOCK:
            tally = tallies[self.namespace]
            return tally["read"] + tally["released"] - sum(tally[name] for name in (*_LEAVE, *self.leaving))


class Counter:
    """A counter of a pipeline, as a step increments it."""

    def __init__(self, namespace: str, name: str) -> None:
        self._namespace, self._name = namespace, name
        self._metric: Any = beam.metrics.Metrics.counter(namespace, name)

    def inc(self, by: int = 1, size: int = 0) -> None:
        """Counts items, and the bytes of their bodies where these come in flight or leave."""
        if by or size:
            self._metric.inc(by)
            with _LOCK:
                _ITEMS[self._namespace][self._name] += by
                _BYTES[self._namespace][self._name] += size
