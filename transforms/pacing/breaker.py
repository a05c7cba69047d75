"""A circuit breaker of one workspace: after failures in a row it opens, and lets single batches try the way again.

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
    """`failures` in a row; how often it `opened` since it was last closed (0: closed) and until when; until when a
    batch that tries the way is waited for (half-open). `reason` is why it opened, such as http_401.

    New fields go to the end and need a default.
    """

    failures: int = 0
    opened: int = 0
    until: int = 0
    trying_until: int = 0
    reason: str = ""


def calls_allowed(breaker: Breaker, now: int) -> int | None:
    """How many calls may go out: any number when closed (None), none when open, one when half-open."""
    if not breaker.opened:
        return None
    return 0 if now < wake_at(breaker) else 1


def wake_at(breaker: Breaker) -> int:
    """When an open breaker lets the next batch try."""
    return max(breaker.until, breaker.trying_until)


def begin_probe(breaker: Breaker, now: int) -> Breaker:
    """A batch is on its way through a half-open breaker; should it never be heard of, another follows."""
    return replace(breaker, trying_until=now + PROBE_LOST_MS) if breaker.opened else breaker


def cancel_probe(breaker: Breaker) -> Breaker:
    """After a batch that was let through and of which there was nothing to send: the next one may try."""
    return replace(breaker, trying_until=0)


def succeed(breaker: Breaker) -> Breaker:
    """Closed, unless it is open and the success is of a call that was on its way when it opened."""
    return breaker if breaker.opened and not breaker.trying_until else Breaker()


def messages_allowed(breaker: Breaker) -> int:
    """How many messages the batch may have that tries a half-open breaker: one where calls have failed, for it may be
    sent without an answer; a whole batch after a 429, which proves that nothing was sent."""
    return 1 if breaker.failures else BATCH


def slow_down(breaker: Breaker, until: int) -> Breaker:
    """After a 429 one batch tries the way first: a hundred that ask at the same moment would all be refused again."""
    return Breaker(opened=1, until=max(until, breaker.until), reason="http_429")


def fail(breaker: Breaker, now: int, at_once: bool = False, most: int = FAILURES, reason: str = "") -> Breaker:
    """One failure more: opens after `most` in a row, or `at_once` (the key was refused), for 1, 2, 4 … 60 s.

    While it is open, the failures of calls that were on their way when it opened change nothing.
    """
    failures = breaker.failures + 1
    if breaker.opened and not breaker.trying_until:
        return breaker
    if not breaker.opened and not at_once and failures < most:
        return replace(breaker, failures=failures)
    wait = min(LONGEST_MS, FIRST_MS * 2 ** min(breaker.opened, 10))
    return Breaker(failures, breaker.opened + 1, now + wait, reason=reason)
