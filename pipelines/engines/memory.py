"""The memory settings of a worker: how often it collects garbage, and how much freed memory it keeps."""

from __future__ import annotations

import atexit
import ctypes
import gc

_ARENA_MAX, _ARENAS = -8, 2  # M_ARENA_MAX of malloc.h


def collect_rarely() -> None:
    """Freezes what is loaded, and collects garbage less often. With Python's own threshold a reader of Kafka has half
    the rate."""
    gc.freeze()
    gc.set_threshold(100_000, 50, 100)
    atexit.register(gc.unfreeze)  # or DuckDB reports what it takes for leaks
    _share_arenas()


def _share_arenas() -> None:
    """Limits glibc to two arenas. On two cores it gives threads up to 16, and each keeps the largest bodies and
    requests that it ever held: with a hundred threads and bodies of 200 kB that is a third of the memory."""
    try:
        ctypes.CDLL(None).mallopt(_ARENA_MAX, _ARENAS)
    except (OSError, AttributeError):  # no glibc
        return
