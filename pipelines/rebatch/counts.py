"""The counters of a running job, and their live view."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

from pipelines.launch.progress import repeated
from schemas.problems import JobError
from stores.ledger.open import open_ledger
from transforms.delivery.counters import COUNTERS

_log = logging.getLogger(__name__)

_SWEEP_EVERY_S, _SETTLED_AFTER_S = 60.0, 120.0
Show = Callable[[dict[str, int]], None]


def counts() -> dict[str, int]:
    """What this process has counted so far: every name is there, 0 if nothing was."""
    return {name: COUNTERS.tally[name] for name in COUNTERS.names}


def ledger_counts(uri: str) -> dict[str, int]:
    """What the ledger at a URI holds, in the same names: where the workers are other processes their counters are
    not here, and the ledger is what they share. Repeats are in no ledger; `left_waiting` is what is claimed."""
    ledger = open_ledger(uri)
    ledger.open()
    try:
        found = ledger.counts(int(time.time() * 1000))
    finally:
        ledger.close()
    ends = {name: found.get("dead" if name == "dead_lettered" else name, 0) for name in COUNTERS.names}
    waiting = found.get("claimed", 0) + found.get("lapsed", 0)
    return {**ends, "left_waiting": waiting, "read": sum(ends.values()) + waiting}


@contextmanager
def watched_counts(show: Show, read: Callable[[], dict[str, int]], every_s: float) -> Iterator[None]:
    """Shows the counts so often while the job runs, and once when it has ended."""
    try:
        with repeated(every_s, lambda: show(read())):
            yield
    finally:
        show(read())


def swept_at_times(sweep: Callable[[float], int]) -> AbstractContextManager[None]:
    """Once a minute while the job runs, calls `sweep` for what was settled more than two minutes ago: receipts that a
    killed worker did not write, and files of the spool that are not needed any more."""

    def look() -> None:
        try:
            sweep(time.time() - _SETTLED_AFTER_S)
        except JobError as error:
            _log.warning("receipts of killed workers were not written, and the spool was not cleaned: %s", error)

    return repeated(_SWEEP_EVERY_S, look)
