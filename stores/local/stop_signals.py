"""Stop signals: SIGTERM, Ctrl-C and a closed terminal ask a job to end in order, from its first step to its last.

Children do not get these signals (stores/local/child_process.py), so they still run while the job ends.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from stores.local.child_process import STOP_SIGNALS

_ONE_STOP_S = 1.0  # signals within this time are one: make, a terminal and a service manager repeat them
_SHOW_CURSOR = b"\x1b[?25h\n"


class StopSignals:
    """Whether this process was asked to stop. `asked` is true from the first signal on."""

    def __init__(self) -> None:
        self.asked = False
        self._since = 0.0
        self._act: Callable[[], None] | None = None

    @contextmanager
    def calling(self, act: Callable[[], None]) -> Iterator[None]:
        """Call `act`, which may raise, in the block when the process is asked to stop, or at its start if it was."""
        self._act = act
        try:
            if self.asked:
                act()
            yield
        finally:
            self._act = None

    def handle(self, number: int, frame: FrameType | None = None) -> None:
        """The handler of the stop signals. The first one asks; another SIGTERM or SIGINT, more than a second later,
        ends the process as if it had no handler. A terminal closes once: SIGHUP only asks."""
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
    """Handles the stop signals in the block. If the process `exits` after it, they are ignored from its end on, so that
    nothing disturbs the last steps; otherwise the earlier handlers are restored. `nohup` keeps SIGHUP ignored."""
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


def _leave_terminal() -> None:
    """Redirects output to a terminal that closes to /dev/null: writing to it would be an error."""
    null = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        if _is_terminal(stream):
            os.dup2(null, stream)
    os.close(null)


def _is_terminal(stream: int) -> bool:
    try:
        os.write(stream, b"")
    except OSError:
        return True  # it was a terminal and is closed
    return os.isatty(stream)


def _die(number: int) -> None:
    if os.isatty(2):
        os.write(2, _SHOW_CURSOR)  # the live counters hide it
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
