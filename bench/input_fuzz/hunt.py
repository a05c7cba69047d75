"""A worker runs the inputs of each number of a seed, the oracle judges; a find is kept as a folder to run again."""

from __future__ import annotations

import re
import shlex
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Any

from bench.input_fuzz.inputs import Files, Inputs, described
from bench.input_fuzz.oracle import Find, judge_files, judge_launch, judge_run, listing
from bench.input_fuzz.search import make_smaller, repeatable, use_inputs
from bench.input_fuzz.worker import Run, Worker

Say = Callable[[str], None]


@dataclass
class Counts:
    """What all hunts did; safe for several threads."""

    examples: int = 0
    runs: int = 0
    ends: Counter[str] = field(default_factory=Counter)
    bad: Counter[str] = field(default_factory=Counter)
    finds: dict[str, dict[str, Any]] = field(default_factory=dict)
    slowest: float = 0.0
    lock: Lock = field(default_factory=Lock)

    def count(self, inputs: Inputs, say: Say) -> None:
        """One example more."""
        with self.lock:
            self.examples += 1
            self.bad.update(re.sub(r" \(.*", "", name, flags=re.DOTALL) for name in inputs.bad or ["nothing"])
            if self.examples % 250 == 0:
                say(f"{self.examples:,} examples, {self.runs:,} runs, {len(self.finds)} finds")

    def as_json(self) -> dict[str, Any]:
        """Counts, and each find with the folder that shows it."""
        return {
            "examples": self.examples, "runs": self.runs, "ends": dict(self.ends.most_common()),
            "bad_parts": dict(self.bad.most_common()), "slowest_s": round(self.slowest, 1), "finds": self.finds,
        }  # fmt: skip


class Hunt:
    """Runs one input after the other in a worker of its own."""

    def __init__(self, keep: Path, counts: Counts) -> None:
        self._keep, self._counts, self._worker = keep, counts, Worker()
        self._base = Path(tempfile.mkdtemp(prefix="input-fuzz-"))

    def close(self) -> None:
        """End the worker and remove the folders."""
        self._worker.close()
        shutil.rmtree(self._base, ignore_errors=True)

    def judge(self, inputs: Inputs) -> Find | None:
        """What is wrong with the runs of one input, in a new folder."""
        base = self._base / "run"
        shutil.rmtree(base, ignore_errors=True)
        folder = base / "above" / "here"
        write(inputs.files(), folder)
        before = listing(base)
        damaged = not inputs.damage
        for argv in inputs.command_lines():
            if not damaged and argv[0] != "launch":
                damaged = True
                _damage(inputs, folder)
            run = self._worker.run(folder, argv)
            self._count(argv, run)
            if find := self._after(inputs, argv, run, base, folder, before, damaged):
                return find
            if not damaged:
                damaged = True
                _damage(inputs, folder)
        return None

    def _after(
        self, inputs: Inputs, argv: list[str], run: Run, base: Path, folder: Path, before: dict[str, bytes | None], damaged: bool
    ) -> Find | None:  # fmt: skip
        find = judge_run(inputs, argv, run) or judge_files(inputs, base, folder, before)
        if find is None and (left := sorted(base.glob("above/tmp/*")) + sorted(base.glob("above/home/*"))):
            find = Find(
                f"{argv[0]}: leaves {left[0].parent.name}/{left[0].name.rstrip('0123456789abcdefghijklmnopqrstuvwxyz_')}",
                str(left),
            )
        if (
            find is None
            and argv[0] == "launch"
            and inputs.must is not None
            and run.code != inputs.must
            and not (inputs.damage and not damaged)
        ):
            find = Find(
                f"launch: exit code {run.code} for: {', '.join(inputs.bad) or 'a sound input'}", run.out + run.err
            )
        if find is None and argv[0] == "launch" and run.code == 0:
            try:
                find = judge_launch(inputs, folder)
            except (OSError, ValueError, KeyError) as error:
                find = Find("a launch that ended with 0 lacks what it must have", repr(error))
        return find

    def _count(self, argv: list[str], run: Run) -> None:
        with self._counts.lock:
            self._counts.runs += 1
            self._counts.ends[f"{argv[0]} {run.code}"] += 1
            self._counts.slowest = max(self._counts.slowest, run.seconds)

    def keep(self, start: int, number: int, inputs: Inputs, find: Find) -> bool:
        """Write the input of a find to a folder, with the commands to run again.

        Of each find the lowest number is kept, so that it does not matter which worker is faster; False for another.
        """
        folder = self._keep / f"find-{number:05d}"
        again = f"python -m bench.input_fuzz --seed {start} --from {number} --examples 1"
        with self._counts.lock:
            before = self._counts.finds.get(find.rule)
            if before is not None and before["number"] < number:
                return False
            self._counts.finds[find.rule] = {
                "number": number, "again": again, "folder": str(folder), "bad": inputs.bad, "detail": find.detail[-600:],
            }  # fmt: skip
        if before is not None:
            shutil.rmtree(before["folder"], ignore_errors=True)
        write(inputs.files(), folder)
        lines = "\n".join(f"campaigns {shlex.join(argv)}" for argv in inputs.command_lines())
        for name, text in (("commands.sh", lines), ("find.txt", f"{again}\n{find.detail}\n\n{described(inputs)}")):
            (folder / name).write_text(f"# {find.rule}\n{text}\n", errors="backslashreplace")
        return True


def _damage(inputs: Inputs, folder: Path) -> None:
    for change in inputs.damage:
        change(folder)


def write(files: Files, folder: Path) -> None:
    """Write the files of an input."""
    for name, data in files.items():
        path = folder / name
        if name.endswith("/"):
            path.mkdir(parents=True, exist_ok=True)
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def hunt(numbers: range, start: int, until: float, keep: Path, counts: Counts, say: Say) -> None:
    """Run the inputs of so many numbers of a seed, or of as many as the time allows."""
    runner = Hunt(keep, counts)
    number = numbers.start

    def run(inputs: Inputs) -> None:
        find = runner.judge(inputs)
        counts.count(inputs, say)
        if find is not None and runner.keep(start, number, inputs, find):
            say(f"FOUND {find.rule}: {counts.finds[find.rule]['again']}")

    try:
        for number in numbers:
            if time.monotonic() > until:
                return
            use_inputs(start, number, run)
    finally:
        runner.close()


def _make_smaller(start: int, keep: Path, counts: Counts) -> None:
    """Replace the input of the find with the lowest number by the smallest that shows it."""
    rule, first = min(counts.finds.items(), key=lambda item: item[1]["number"])
    runner = Hunt(keep, counts)

    def shows(inputs: Inputs) -> bool:
        find = runner.judge(inputs)
        return find is not None and find.rule == rule and runner.keep(start, first["number"], inputs, find)

    try:
        make_smaller(start, first["number"], shows)
    finally:
        runner.close()


def fuzz(
    examples: int,
    start: int,
    *,
    first: int = 0,
    seconds: float = 1e9,
    workers: int = 2,
    keep: Path | None = None,
    say: Say = lambda text: None,
) -> dict[str, Any]:
    """What came of the inputs of so many numbers of a seed, or of as many as the seconds allow; the finds are kept in
    a folder. A number has the same inputs and the same verdict in every run, whatever runs before or beside it."""
    folder = keep or Path(tempfile.mkdtemp(prefix="input-finds-"))
    counts, until = Counts(), time.monotonic() + seconds
    shares = [range(first + n, first + examples, workers) for n in range(workers)]
    with repeatable():
        with ThreadPoolExecutor(workers) as pool:
            jobs = [pool.submit(hunt, share, start, until, folder, counts, say) for share in shares if share]
            for job in jobs:
                job.result()
        if counts.finds:
            _make_smaller(start, folder, counts)
    if not counts.finds and keep is None:
        shutil.rmtree(folder, ignore_errors=True)
    return {"seed": start, **counts.as_json()}
