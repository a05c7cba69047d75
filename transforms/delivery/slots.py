"""Call slots: a limit on the calls in flight of a process and of one workspace."""

from __future__ import annotations

from collections import defaultdict
from threading import Condition

IN_FLIGHT = 64  # calls of a process
PER_WORKSPACE, PER_SLOW_WORKSPACE = 20, 2


class CallSlots:
    """Slots for calls; safe for several threads. A slow workspace gets few of them."""

    def __init__(self, in_flight: int = IN_FLIGHT) -> None:
        self._free = in_flight
        self._used: dict[str, int] = defaultdict(int)
        self._slow: set[str] = set()
        self._change = Condition()

    def acquire(self, retailer: str, wanted: int, wait_s: float) -> int:
        """Takes at most `wanted` slots and returns how many. Waits up to `wait_s` seconds for the first free one of
        the process, but not while the workspace has all that it may have."""
        with self._change:
            self._change.wait_for(lambda: self._free or self._room(retailer) <= 0, wait_s)
            slots = max(0, min(wanted, self._room(retailer), self._free))
            self._free -= slots
            self._used[retailer] += slots
            return slots

    def release(self, retailer: str, slots: int = 1) -> None:
        """Frees slots that were acquired."""
        with self._change:
            self._free += slots
            self._used[retailer] -= slots
            self._change.notify_all()

    def is_slow(self, retailer: str) -> bool:
        """Whether the workspace is slow."""
        return retailer in self._slow

    def set_slow(self, retailer: str, slow: bool) -> None:
        """Makes a workspace slow, or not slow again."""
        with self._change:
            (self._slow.add if slow else self._slow.discard)(retailer)

    def _room(self, retailer: str) -> int:
        return (PER_SLOW_WORKSPACE if retailer in self._slow else PER_WORKSPACE) - self._used[retailer]
