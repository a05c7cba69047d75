"""A Python SDK worker that a SIGTERM ends in order: it waits for the calls that are out and settles them.

Beam's pool ends a worker with SIGTERM when its job has ended, and kills it ten seconds later.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
from types import FrameType


def settle_at_sigterm() -> None:
    """From now on SIGTERM runs what was registered for the exit, then ends the process with 0. Nothing waits for the
    bundles under way: their engine knows that they have not ended."""
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
