"""The counters of a running job, and their live view."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from transforms.rebatch.counters import NAMES, TALLY

_EVERY_S = 1.0
Show = Callable[[dict[str, int]], None]


def counts() -> dict[str, int]:
    """What this process has counted so far: every name is there, 0 if nothing was."""
    return {name: TALLY[name] for name in NAMES}


@contextmanager
def watched_counts(show: Show) -> Iterator[None]:
    """Shows the counts every second while the job runs, and once when it has ended."""
    over = threading.Event()

    def watch() -> None:
        while not over.wait(_EVERY_S):
            show(counts())

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(5)
        show(counts())
