"""The program `campaigns`. Loading takes a second or two, in which Ctrl-C ends it silently."""

from __future__ import annotations

import atexit
import gc
import os
import signal
import sys
from contextlib import suppress


def main() -> int:
    """The exit code of the command that the arguments name."""
    interruptible = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if interruptible:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    atexit.register(_end_quietly)  # the first one registered runs last
    gc.disable()  # loaded modules are never garbage, and searching them takes a seventh of the start
    from runners.cli.main import main as run

    gc.freeze()
    gc.enable()

    if interruptible and sys.argv[1:2] != ["rebatch"]:  # rebatch handles its signals itself, without a gap
        signal.signal(signal.SIGINT, signal.default_int_handler)
    return run()


def _end_quietly() -> None:
    """Closes standard error for the end of the interpreter: DuckDB's bindings would print fifty lines there about
    frozen objects that outlive it. To release these would cost half a second."""
    with suppress(OSError):
        sys.stderr.flush()
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)


if __name__ == "__main__":
    sys.exit(main())
