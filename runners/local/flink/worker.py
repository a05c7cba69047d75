"""A Python SDK worker that ends in order on SIGTERM: it waits for the calls in flight and settles them.

Beam's pool ends a worker with SIGTERM when its job has ended, and kills it ten seconds later.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
from types import FrameType


def settle_at_sigterm() -> None:
    """Let SIGTERM run the exit handlers, then end the process with 0. Nothing waits for the running bundles: the engine
    knows that they have not ended."""
    signal.signal(signal.SIGTERM, _end)


def _end(number: int, frame: FrameType | None) -> None:
    signal.signal(number, signal.SIG_IGN)
    atexit._run_exitfuncs()
    os._exit(0)


def main() -> None:
    """Beam's worker, as the environment describes it."""
    from apache_beam.runners.worker import sdk_worker_main

    settle_at_sigterm()
    sdk_worker_main.main(sys.argv)


if __name__ == "__main__":
    main()
