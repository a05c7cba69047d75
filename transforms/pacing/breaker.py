"""The circuit breaker of a workspace: it opens after failures in a row, then lets single batches through as probes.

Times are epoch milliseconds.
"""

from __future__ import annotations

import msgspec
from msgspec.structs import replace

from schemas.delivery import BATCH

FAILURES = 5
FIRST_MS, LONGEST_MS = 1_000, 60_000
PROBE_LOST_MS = 60_000


class Breaker(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """`failures` in a row; how often it `opened` since it was last closed (0: closed), and until when; until when a
    probe is waited for (half-open). `reason`: why, such as http_401. New fields go to the end and need a default."""

    failures: int = 0
    opened: int = 0
    until: int = 0
    probe_until: int = 0
    reason: str = ""


def calls_allowed(breaker: Breaker, now: int) -> int | None:
    """How many calls may be made: any number when closed (None), none when open, one when half-open."""
    if not breaker.opened:
        return None
    return 0 if now < wake_at(breaker) else 1


def wake_at(breaker: Breaker) -> int:
    """When an open breaker lets the next probe through."""
    return max(breaker.until, breaker.probe_until)


def begin_probe(breaker: Breaker, now: int) -> Breaker:
    """A probe is sent through a half-open breaker. If its outcome is never reported, another follows after a minute."""
    return replace(breaker, probe_until=now + PROBE_LOST_MS) if breaker.opened else breaker


def cancel_probe(breaker: Breaker) -> Breaker:
    """Cancels an unused half-open probe: the next batch may be one."""
    return replace(breaker, probe_until=0)


def succeed(breaker: Breaker) -> Breaker:
    """Closed, unless it is open and no probe is out: then the call was in flight when it opened."""
    return breaker if breaker.opened and not breaker.probe_until else Breaker()


def messages_allowed(breaker: Breaker) -> int:
    """How many messages a probe may have: one after failed calls, which may be sent without an answer; a whole batch
    after a 429, which proves that nothing was sent."""
    return 1 if breaker.failures else BATCH


def slow_down(breaker: Breaker, until: int) -> Breaker:
    """Open after a 429, so that a probe goes first: a hundred batches at the same moment would all be refused again."""
    return Breaker(opened=1, until=max(until, breaker.until), reason="http_429")


def fail(breaker: Breaker, now: int, immediately: bool = False, reason: str = "") -> Breaker:
    """Counts a failure: opens after five in a row, or `immediately` (the key was refused), for 1, 2, 4 … 60 s. While
    it is open, the failures of calls that were in flight when it opened change nothing."""
    failures = breaker.failures + 1
    if breaker.opened and not breaker.probe_until:
        return breaker
    if not breaker.opened and not immediately and failures < FAILURES:
        return replace(breaker, failures=failures)
    wait = min(LONGEST_MS, FIRST_MS * 2 ** min(breaker.opened, 10))
    return Breaker(failures, breaker.opened + 1, now + wait, reason=reason)
