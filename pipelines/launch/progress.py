"""The progress of a launch, read from the files of its finished batches: the same on every engine."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from pipelines.command_line.logs import say
from pipelines.launch.inputs import LaunchJob
from transforms.customers.read_customers import batch_name

_LOG_EVERY_S = 10.0


class Progress:
    """Measures the seconds of each phase of a launch, and shows nothing."""

    def __init__(self) -> None:
        self._phases: list[tuple[str, float]] = []

    def phase(self, name: str, total: int | None = None) -> None:
        """A phase begins, over `total` customers."""
        self._phases.append((name, time.perf_counter()))

    def at(self, done: int) -> None:
        """`done` customers are done."""

    def stop(self) -> None:
        """Nothing more is shown."""

    def seconds(self) -> dict[str, float]:
        """The seconds of each phase so far."""
        ends = [start for _, start in self._phases[1:]] + [time.perf_counter()]
        return {name: round(end - start, 3) for (name, start), end in zip(self._phases, ends, strict=True)}


class LoggedProgress(Progress):
    """Logs the phases of a launch, and every ten seconds how many customers are done: for logs in JSON."""

    def __init__(self) -> None:
        super().__init__()
        self._total, self._logged = 0, 0.0

    def phase(self, name: str, total: int | None = None) -> None:
        super().phase(name, total)
        self._total = total or 0
        say(f"phase: {name}")

    def at(self, done: int) -> None:
        now = time.monotonic()
        if now - self._logged > _LOG_EVERY_S or done == self._total:
            self._logged = now
            say(f"{done:,} of {self._total:,} customers", counts={"customers": done, "total": self._total})


@contextmanager
def repeated(seconds: float, do: Callable[[], None]) -> Iterator[None]:
    """Does something again and again, so many seconds apart, until the block ends."""
    over = threading.Event()

    def run() -> None:
        while not over.wait(seconds):
            do()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


@contextmanager
def watched(job: LaunchJob, progress: Progress) -> Iterator[None]:
    """Show the progress of a running launch until the block ends."""
    rows = {
        batch_name(part.number, n): min(part.batch_rows, part.rows - n * part.batch_rows)
        for part in job.parts
        for n in range(part.batches)
    }

    def update() -> None:
        progress.at(sum(rows.get(name, 0) for name in job.folder.done()))

    try:
        with repeated(0.25, update):
            yield
    finally:
        update()
