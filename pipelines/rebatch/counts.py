"""The counts of a run and their live view, and the sweep that is repeated while it runs."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial

from pipelines.command_line.logs import count_log
from pipelines.launch.progress import repeated
from schemas.problems import JobError
from stores.ledger.open import connected_ledger
from transforms.delivery.counters import COUNTERS
from transforms.streaming.engine_traits import EngineTraits

_log = logging.getLogger(__name__)

_SWEEP_EVERY_S, _SETTLED_AFTER_S = 60.0, 120.0
Show = Callable[[dict[str, int]], None]


class RunCounts:
    """The counts of one run: the process's counters, or the ledger's where the workers are other processes."""

    def __init__(self, engine: EngineTraits, ledger: str) -> None:
        self.read = process_counts if engine.single_process else partial(ledger_counts, ledger)
        self.every_s = 1.0 if engine.single_process else 10.0
        self._before = self.read()
        if not engine.single_process:  # there left_waiting is a level, not a count: what waits is read again
            self._before |= {"read": self._before["read"] - self._before["left_waiting"], "left_waiting": 0}

    def of_run(self) -> dict[str, int]:
        """What was counted since the run began, by name."""
        return {name: value - self._before[name] for name, value in self.read().items()}


def process_counts() -> dict[str, int]:
    """What this process has counted so far, by name; 0 for what it has not."""
    return {name: COUNTERS.tally[name] for name in COUNTERS.names}


def ledger_counts(uri: str) -> dict[str, int]:
    """The entries of the ledger at a URI, by the names of the counters. The ledger knows no duplicates; `left_waiting`
    are the claimed."""
    with connected_ledger(uri) as ledger:
        entries = ledger.counts(int(time.time() * 1000))
    outcomes = {name: entries.get("dead" if name == "dead_lettered" else name, 0) for name in COUNTERS.names}
    waiting = entries.get("claimed", 0) + entries.get("lapsed", 0)
    return {**outcomes, "left_waiting": waiting, "read": sum(outcomes.values()) + waiting}


def log_counts() -> Show:
    """A function that logs counts every ten seconds: for logs in JSON."""
    return count_log(lambda counts: f"read {counts['read']:,}, accepted {counts['accepted']:,}")


@contextmanager
def watched_counts(show: Show, counts: RunCounts) -> Iterator[None]:
    """Shows the counts repeatedly while the job runs, and once when it has ended."""
    try:
        with repeated(counts.every_s, lambda: show(counts.read())):
            yield
    finally:
        show(counts.read())


def repeated_sweep(sweep: Callable[[float], int]) -> AbstractContextManager[None]:
    """Calls `sweep` once a minute while the job runs, for what was settled more than two minutes ago: receipts that a
    killed worker did not write, and files of the spool that are not needed any more."""

    def sweep_settled() -> None:
        try:
            sweep(time.time() - _SETTLED_AFTER_S)
        except JobError as error:
            _log.warning("receipts of killed workers were not written, and the spool was not cleaned: %s", error)

    return repeated(_SWEEP_EVERY_S, sweep_settled)
