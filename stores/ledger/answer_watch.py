"""A watchdog for a child process: an alarm when it answers late, and a kill when it does not answer."""

from __future__ import annotations

import logging
import subprocess
from threading import Event, Thread
from types import TracebackType

ALARM_S, LIMIT_S = 10.0, 120.0  # a commit may wait 60 s for other writers
_TICK_S = 0.5
_log = logging.getLogger(__name__)


class AnswerWatch:
    """`with watch:` around each request to the process; used by one thread. A process that has not answered after
    LIMIT_S is killed, so that its pipes end; `why_ended` says so. Time is counted in ticks of this process, so that a
    pause of this process does not count against the other."""

    def __init__(self, process: subprocess.Popen[bytes], name: str) -> None:
        self._process, self._name = process, f"{name} (process {process.pid})"
        self._waiting, self._closed = Event(), Event()
        self._waited, self._alarmed, self.why_ended = 0.0, False, ""
        Thread(target=self._watch, daemon=True, name="ledger watch").start()

    def __enter__(self) -> None:
        self._waited = 0.0
        self._waiting.set()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._waiting.clear()
        if self._alarmed and not self.why_ended:
            _log.warning("%s answers again", self._name)
        self._alarmed = False

    def close(self) -> None:
        """Stop watching."""
        self._closed.set()

    def _watch(self) -> None:
        while not self._closed.wait(_TICK_S):
            self._waited += _TICK_S
            if not self._waiting.is_set():
                continue
            if self._waited >= LIMIT_S:
                self.why_ended = f"it had not answered for {LIMIT_S:.0f} s and was killed"
                self._process.kill()
                return
            if self._waited >= ALARM_S and not self._alarmed:
                self._alarmed = True
                _log.error(
                    "ALARM: %s has not answered for %.0f s: it is stopped, or its disk is slow. Nothing is claimed or "
                    "settled meanwhile; after %.0f s the job ends.", self._name, ALARM_S, LIMIT_S
                )  # fmt: skip
