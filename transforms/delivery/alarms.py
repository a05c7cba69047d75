"""Alarms: logs once, not at every call, that a workspace stops or works again."""

from __future__ import annotations

import logging
from collections import Counter
from threading import Lock

from transforms.streaming.engine_traits import Clock

MOST_FAILURES = 5  # in a row, before they are logged
REPEAT_S = 300.0  # an alarm that lasts is logged again
_log = logging.getLogger(__name__)


class Alarms:
    """Logs alarms of one process; safe for several threads. `clock` gives epoch seconds."""

    def __init__(self, clock: Clock) -> None:
        self._clock, self._lock = clock, Lock()
        self._stopped: dict[str, tuple[str, float]] = {}
        self._failures: Counter[str] = Counter()

    def stopped(self, retailer: str, reason: str, detail: str) -> None:
        """Log that the workspace of a retailer accepts nothing until somebody acts."""
        now = self._clock()
        with self._lock:
            known, since = self._stopped.get(retailer, ("", 0.0))
            if known == reason and now - since < REPEAT_S:
                return
            self._stopped[retailer] = reason, now
        _log.error(
            "ALARM: nothing is sent to %s (%s: %s). Its events wait; one is sent as a probe at least once a minute. "
            "Correct the url, the key or the template of its workspace in engine.yaml.", retailer, reason, detail,
            extra={"retailer": retailer},
        )  # fmt: skip

    def failed(self, retailer: str, reason: str) -> None:
        """Count a call that failed or had no answer; several in a row are logged."""
        with self._lock:
            self._failures[retailer] += 1
            often = self._failures[retailer] == MOST_FAILURES
        if often:
            text = "calls to the workspace of %s fail (%s): it is probed by single events"
            _log.warning(text, retailer, reason, extra={"retailer": retailer})

    def works(self, retailer: str) -> None:
        """Log that the workspace works again, if it had stopped."""
        if retailer not in self._stopped and not self._failures[retailer]:
            return
        with self._lock:
            often = self._failures.pop(retailer, 0) >= MOST_FAILURES
            stopped = self._stopped.pop(retailer, None)
        if stopped or often:
            _log.warning("the workspace of %s works again", retailer, extra={"retailer": retailer})
