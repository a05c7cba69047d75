"""The counters of a running job, and their live view."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

from pipelines.progress import repeated
from schemas.problems import LaunchError
from transforms.rebatch.counters import NAMES, TALLY

_log = logging.getLogger(__name__)

_EVERY_S, _SWEEP_EVERY_S, _SETTLED_AFTER_S = 1.0, 60.0, 120.0
Show = Callable[[dict[str, int]], None]


def counts() -> dict[str, int]:
    """What this process has counted so far: every name is there, 0 if nothing was."""
    return {name: TALLY[name] for name in NAMES}


@contextmanager
def watched_counts(show: Show) -> Iterator[None]:
    """Shows the counts every second while the job runs, and once when it has ended."""
    try:
        with repeated(_EVERY_S, lambda: show(counts())):
            yield
    finally:
        show(counts())


def swept_at_times(sweep: Callable[[float], int]) -> AbstractContextManager[None]:
    """Has the spool swept every minute while the job runs, of files that are older than two."""

    def look() -> None:
        try:
            sweep(time.time() - _SETTLED_AFTER_S)
        except LaunchError as error:
            _log.warning("the spool could not be swept: %s", error)

    return repeated(_SWEEP_EVERY_S, look)
