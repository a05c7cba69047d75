"""Call slots: how many calls of a process, and of one workspace, are in flight at the same time."""

from __future__ import annotations

import time
from collections import defaultdict
from threading import Condition

IN_FLIGHT = 64  # calls of a process
PER_WORKSPACE, PER_SLOW_WORKSPACE = 20, 2


class CallSlots:
    """Slots for calls; safe for several threads. A workspace that is marked slow gets few of them."""

    def __init__(self, in_flight: int = IN_FLIGHT) -> None:
        self._free = in_flight
        self._used: dict[str, int] = defaultdict(int)
        self._slow: set[str] = set()
        self._change = Condition()

    def take(self, retailer: str, wanted: int, wait_s: float) -> int:
        """How many slots the caller has from now on, at most `wanted`. Waits up to `wait_s` seconds for the first one
        of the process; not at all while the workspace has all that it may have."""
        end = time.monotonic() + wait_s
        with self._change:
            while (room := self._room(retailer)) > 0 and not self._free:
                if not self._change.wait(end - time.monotonic()):
                    return 0
            slots = max(0, min(wanted, room, self._free))
            self._free -= slots
            self._used[retailer] += slots
            return slots

    def give_back(self, retailer: str, slots: int = 1) -> None:
        """Frees slots that `take` gave."""
        with self._change:
            self._free += slots
            self._used[retailer] -= slots
            self._change.notify_all()

    def is_slow(self, retailer: str) -> bool:
        """Whether the workspace is marked slow."""
        return retailer in self._slow

    def mark(self, retailer: str, *, slow: bool) -> None:
        """Marks a workspace as slow, or as good again."""
        with self._change:
            (self._slow.add if slow else self._slow.discard)(retailer)

    def _room(self, retailer: str) -> int:
        return (PER_SLOW_WORKSPACE if retailer in self._slow else PER_WORKSPACE) - self._used[retailer]
