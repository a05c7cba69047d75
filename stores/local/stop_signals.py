"""Stopping by signal: SIGTERM, Ctrl-C and a closed terminal ask a job to end in order, from its first step to its last.

Children do not get these signals (stores/local/child_process.py), so what is needed to end in order is still there.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

from stores.local.child_process import STOP_SIGNALS

_ONE_STOP_S = 1.0  # signals so soon after the first belong to it: make, a terminal and a service manager repeat them
_SHOW_CURSOR = b"\x1b[?25h\n"


class StopSignals:
    """Whether this process was asked to stop. `asked` is true from the first signal on."""

    def __init__(self) -> None:
        self.asked = False
        self._since = 0.0
        self._act: Callable[[], None] | None = None

    @contextmanager
    def calling(self, act: Callable[[], None]) -> Iterator[None]:
        """Calls `act` in the block when the process is asked to stop, at its begin when it was already. `act` may
        raise."""
        self._act = act
        try:
            if self.asked:
                act()
            yield
        finally:
            self._act = None

    def handle(self, number: int, frame: FrameType | None = None) -> None:
        """The handler of the stop signals. The first asks; another SIGTERM or SIGINT, later than a second after it,
        ends the process as if nobody handled it. A terminal closes once: SIGHUP only asks."""
        if number == signal.SIGHUP:
            _leave_terminal()
        if not self.asked:
            self.asked, self._since = True, time.monotonic()
            if self._act is not None:
                self._act()
        elif number != signal.SIGHUP and time.monotonic() - self._since > _ONE_STOP_S:
            _die(number)


@contextmanager
def stop_signals(*, exits: bool = False) -> Iterator[StopSignals]:
    """Handles the stop signals in the block. When the process `exits` after it they are ignored from its end on, so
    that nothing disturbs the last steps; else the handlers before it come back. `nohup` keeps SIGHUP ignored."""
    stop = StopSignals()
    before: dict[int, Any] = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    handled = [number for number in before if number != signal.SIGHUP or before[number] != signal.SIG_IGN]
    for number in handled:
        signal.signal(number, stop.handle)
    try:
        yield stop
    finally:
        for number in handled:
            signal.signal(number, signal.SIG_IGN if exits else before[number])


def say(text: str) -> None:
    """A line on stderr, from a signal handler: the terminal may be gone, or the stream in use."""
    with suppress(OSError, RuntimeError):
        print(text, file=sys.stderr, flush=True)


def _leave_terminal() -> None:
    """Sends nowhere what would be printed to a terminal, which closes: from then on writing to it is an error."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        if _is_terminal(stream):
            os.dup2(nowhere, stream)
    os.close(nowhere)


def _is_terminal(stream: int) -> bool:
    try:
        os.write(stream, b"")
    except OSError:
        return True  # one that has closed is no terminal any more
    return os.isatty(stream)


def _die(number: int) -> None:
    if os.isatty(2):
        os.write(2, _SHOW_CURSOR)  # the counters hide it
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
