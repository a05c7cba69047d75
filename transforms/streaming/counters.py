"""What rebatch counts: each name is declared here, told to the engine's metrics and kept in the process too.

Prism reports a counter of its first bundle only, so the live view of a job that runs in this process reads `TALLY`.
"""

from __future__ import annotations

from collections import Counter as Tally
from threading import Lock
from typing import Any, NamedTuple

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
_GONE = ("dead_lettered", "already_settled", "repeats", "held", "batched")
TALLY: Tally[str] = Tally()
_BYTES: Tally[str] = Tally()  # of bodies, of the same messages
_LOCK = Lock()


class Limit(NamedTuple):
    """So many messages, and so many bytes of their bodies."""

    messages: int
    bytes: int


class Counter:
    """One of NAMES, as a step increments it. Raises ValueError for any other."""

    def __init__(self, name: str) -> None:
        if name not in NAMES:
            raise ValueError(f"{name!r} is no counter of rebatch")
        self._name = name
        self._metric: Any = beam.metrics.Metrics.counter(NAMESPACE, name)

    def inc(self, by: int = 1, size: int = 0) -> None:
        """Counts messages, and the bytes of their bodies where these come on the way or go from it."""
        if by or size:
            self._metric.inc(by)
            with _LOCK:
                TALLY[self._name] += by
                _BYTES[self._name] += size


def on_the_way() -> int:
    """Messages that this process has read and that have neither ended nor reached the delivery, nor are held."""
    return _left(TALLY)


def bytes_on_the_way() -> int:
    """Bytes of the bodies of those messages, and of those whose calls are out."""
    return _left(_BYTES)


def exceeds(limit: Limit | None) -> bool:
    """Whether more than that is on the way; never without a limit."""
    return limit is not None and (on_the_way() > limit.messages or bytes_on_the_way() > limit.bytes)


def _left(tally: Tally[str]) -> int:
    with _LOCK:
        return tally["read"] + tally["released"] - sum(tally[name] for name in _GONE)
