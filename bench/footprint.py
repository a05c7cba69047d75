"""Sample the memory and processor time of a running job and its children."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import psutil

_EVERY_S = 0.2


@dataclass
class Footprint:
    """The largest memory of all processes of a job together (bytes, resident), and the processor seconds of each."""

    peak: int = 0
    seconds: dict[int, float] = field(default_factory=dict)

    @property
    def peak_mb(self) -> int:
        """The peak in millions of bytes."""
        return round(self.peak / 1e6)

    @property
    def cpu_s(self) -> float:
        """Processor seconds, user and system, of all that were seen."""
        return sum(self.seconds.values())

    def look(self, pid: int) -> None:
        """Takes a sample of a process and its children."""
        memory = 0
        try:
            root = psutil.Process(pid)
            for one in [root, *root.children(recursive=True)]:
                memory += one.memory_info().rss
                times = one.cpu_times()
                self.seconds[one.pid] = times.user + times.system
        except psutil.NoSuchProcess:
            pass
        self.peak = max(self.peak, memory)


def observe(
    job: subprocess.Popen[bytes], most_s: float, over: Callable[[], bool] = lambda: False, seen: Footprint | None = None
) -> Footprint:
    """Samples a job until it ends, `over` says so, or so many seconds have passed."""
    found, end = seen or Footprint(), time.monotonic() + most_s
    while job.poll() is None and time.monotonic() < end and not over():
        found.look(job.pid)
        time.sleep(_EVERY_S)
    return found
