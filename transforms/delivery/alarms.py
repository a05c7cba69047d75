"""Alarms: a workspace that stops, or that works again, is logged once, not at every call."""

from __future__ import annotations

import logging
from collections.abc import Callable
from threading import Lock

REPEAT_S = 300.0  # an alarm that lasts is logged again
_log = logging.getLogger(__name__)


class Alarms:
    """Logs alarms of one process; safe for several threads. `clock` gives epoch seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock, self._lock = clock, Lock()
        self._stopped: dict[str, tuple[str, float]] = {}

    def stopped(self, retailer: str, reason: str, detail: str) -> None:
        """The workspace of a retailer takes nothing until somebody acts."""
        now = self._clock()
        with self._lock:
            known, since = self._stopped.get(retailer, ("", 0.0))
            if known == reason and now - since < REPEAT_S:
                return
            self._stopped[retailer] = reason, now
        _log.error(
            "ALARM: nothing is sent to %s (%s: %s). Its events wait, and one is tried from time to time; put the url, "
            "the key or the template of its workspace right in engine.yaml.", retailer, reason, detail
        )  # fmt: skip

    def works(self, retailer: str) -> None:
        """A call to the workspace succeeded."""
        if retailer not in self._stopped:
            return
        with self._lock:
            self._stopped.pop(retailer, None)
        _log.warning("the workspace of %s works again", retailer)
