"""The vendor's limit of calls per clock hour, and the headers that report it."""

from __future__ import annotations

from collections.abc import Callable

HOUR = 3600
CALLS_PER_HOUR = 250_000


class HourBucket:
    """So many calls a workspace until the clock hour ends; then all of them again.

    `clock` gives epoch seconds.
    """

    def __init__(self, calls_per_hour: int, clock: Callable[[], float]) -> None:
        if calls_per_hour < 1:
            raise ValueError(f"calls_per_hour {calls_per_hour} must be positive")
        self._calls, self._clock = calls_per_hour, clock
        self._taken: dict[str, tuple[int, int]] = {}

    def take(self, workspace: str) -> tuple[bool, dict[str, str]]:
        """Take a call: whether it is within the limit, and the limit headers."""
        hour = int(self._clock() // HOUR)
        known, taken = self._taken.get(workspace, (hour, 0))
        taken = taken if known == hour else 0
        allowed = taken < self._calls
        taken += allowed
        self._taken[workspace] = (hour, taken)
        return allowed, {
            "x-ratelimit-limit": str(self._calls),
            "x-ratelimit-remaining": str(self._calls - taken),
            "x-ratelimit-reset": str((hour + 1) * HOUR),
        }

    def clear(self) -> None:
        """Reset the limit of every workspace."""
        self._taken.clear()
