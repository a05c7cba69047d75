"""A live progress bar with rate and remaining time; plain lines where there is no terminal."""

from __future__ import annotations

from rich import progress
from rich.console import Console

from pipelines.launch.progress import Progress

LABELS = {
    "read and check": "Reading and checking",
    "survey": "Looking for duplicates, shared addresses, queues",
    "look for warnings": "Looking for warnings",
    "launch": "Launching",
    "sum up": "Summing up",
}


class Bar(Progress):
    """Shows the phases of a launch on stderr, so that stdout stays for results."""

    def __init__(self) -> None:
        super().__init__()
        self._console = Console(stderr=True)
        self._task: progress.TaskID | None = None
        self._bar = progress.Progress(
            progress.TextColumn("{task.description}"),
            progress.BarColumn(),
            progress.MofNCompleteColumn(),
            progress.TextColumn("{task.fields[rate]}"),
            progress.TimeElapsedColumn(),
            progress.TimeRemainingColumn(),
            console=self._console,
            transient=True,
        )

    def phase(self, name: str, total: int | None = None) -> None:
        super().phase(name, total)
        label = LABELS.get(name, name)
        if not self._console.is_terminal:
            self._console.print(f"{label} …")
            return
        self._bar.start()
        if self._task is not None:
            self._bar.remove_task(self._task)
        self._task = self._bar.add_task(label, total=total, rate="")

    def at(self, done: int) -> None:
        if self._task is not None:
            elapsed = self._bar.tasks[0].elapsed or 0.0
            rate = f"{done / elapsed:,.0f} customers/s" if elapsed > 0.5 and done else ""
            self._bar.update(self._task, completed=done, rate=rate)

    def stop(self) -> None:
        self._bar.stop()
