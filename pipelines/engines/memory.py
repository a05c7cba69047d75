"""How a worker uses its memory: how often it looks for garbage, and how much of what it freed it keeps."""

from __future__ import annotations

import atexit
import ctypes
import gc

_ARENA_MAX, _ARENAS = -8, 2  # M_ARENA_MAX of malloc.h


def collect_rarely() -> None:
    """What is loaded stays; the messages on their way are looked through less often. With Python's own threshold a
    reader of Kafka has half the rate."""
    gc.freeze()
    gc.set_threshold(100_000, 50, 100)
    atexit.register(gc.unfreeze)  # or DuckDB reports what it takes for leaks
    _share_arenas()


def _share_arenas() -> None:
    """glibc gives threads that allocate up to 16 arenas on two cores, and each keeps the largest bodies and requests
    that it ever held: with a hundred threads and bodies of 200 kB that is a third of the memory."""
    try:
        ctypes.CDLL(None).mallopt(_ARENA_MAX, _ARENAS)
    except (OSError, AttributeError):  # no glibc
        return
