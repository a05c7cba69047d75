"""What rebatch counts: each name is declared here, told to the engine's metrics and kept in the process too.

Prism reports a counter of its first bundle only, so the live view of a job that runs in this process reads `TALLY`.
"""

from __future__ import annotations

from collections import Counter as Tally
from threading import Lock
from typing import Any

import apache_beam as beam

NAMESPACE = "rebatch"
NAMES = (
    "read",
    "dead_lettered",
    "already_settled",
    "repeats",
    "held",
    "released",
    "batched",
    "accepted",
    "rejected",
    "expired",
    "unknown",
    "left_waiting",
)
TALLY: Tally[str] = Tally()
_LOCK = Lock()


class Counter:
    """One of NAMES, as a step increments it. Raises ValueError for any other."""

    def __init__(self, name: str) -> None:
        if name not in NAMES:
            raise ValueError(f"{name!r} is no counter of rebatch")
        self._name = name
        self._metric: Any = beam.metrics.Metrics.counter(NAMESPACE, name)

    def inc(self, by: int = 1) -> None:
        """Count."""
        if by:
            self._metric.inc(by)
            with _LOCK:
                TALLY[self._name] += by


def on_the_way() -> int:
    """Messages that this process has read and that have neither ended nor reached the delivery, nor are held."""
    gone = ("dead_lettered", "already_settled", "repeats", "held", "batched")
    return TALLY["read"] + TALLY["released"] - sum(TALLY[name] for name in gone)
