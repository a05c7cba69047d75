"""The program `campaigns`. Loading takes a second or two, in which Ctrl-C ends it silently."""

from __future__ import annotations

import atexit
import gc
import signal
import sys


def main() -> int:
    """The exit code of the command that the arguments name."""
    interruptible = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if interruptible:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    gc.disable()  # loaded modules are never garbage, and searching them takes a seventh of the start
    from runners.cli.main import main as run

    gc.freeze()
    atexit.register(gc.unfreeze)  # DuckDB prints a complaint about objects that outlive the interpreter
    gc.enable()

    if interruptible and sys.argv[1:2] != ["rebatch"]:  # rebatch handles its signals itself, without a gap
        signal.signal(signal.SIGINT, signal.default_int_handler)
    return run()


if __name__ == "__main__":
    sys.exit(main())
