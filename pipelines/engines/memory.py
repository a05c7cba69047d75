"""How often a worker looks for garbage."""

from __future__ import annotations

import atexit
import gc


def collect_rarely() -> None:
    """What is loaded stays; the messages on their way are looked through less often. With Python's own threshold a
    reader of Kafka has half the rate."""
    gc.freeze()
    gc.set_threshold(100_000, 50, 100)
    atexit.register(gc.unfreeze)  # or DuckDB reports what it takes for leaks
