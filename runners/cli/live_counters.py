"""The counters of a running delivery: a line that is redrawn on a terminal, a line every ten seconds elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.live import Live
from rich.text import Text

_ENDS = ("accepted", "rejected", "expired", "unknown", "dead_lettered", "repeats", "already_settled")
_PLAIN_EVERY_S = 10.0


def shown(counts: dict[str, int], before: int, seconds: float) -> str:
    """The counts as a line; `before` is the number accepted `seconds` ago."""
    parts = [f"read {counts['read']:,}"]
    parts += [f"{name.replace('_', ' ')} {counts[name]:,}" for name in _ENDS if counts[name]]
    waiting = counts["read"] - sum(counts[name] for name in _ENDS)
    if waiting > 0:
        parts.append(f"on the way {waiting:,}")
    rate = (counts["accepted"] - before) / seconds if seconds > 0 else 0.0
    return "  ".join(parts) + f"  {rate:,.0f}/s"


@contextmanager
def live_counters() -> Iterator[Callable[[dict[str, int]], None]]:
    """A function that shows counts on stderr, so that stdout stays for results."""
    console, live = Console(stderr=True), Live(console=Console(stderr=True), transient=True, auto_refresh=False)
    last, printed, accepted = time.monotonic(), float("-inf"), 0

    def show(counts: dict[str, int]) -> None:
        nonlocal last, printed, accepted
        now = time.monotonic()
        line = shown(counts, accepted, now - last)
        last, accepted = now, counts["accepted"]
        if console.is_terminal:
            live.update(Text(line), refresh=True)
        elif now - printed >= _PLAIN_EVERY_S:
            printed = now
            print(line, file=sys.stderr, flush=True)

    if console.is_terminal:
        live.start()
    try:
        yield show
    finally:
        live.stop()
