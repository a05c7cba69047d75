"""Hypothesis makes inputs, a worker runs them, the oracle judges; what is found is kept as a folder to run again."""

from __future__ import annotations

import contextlib
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

from hypothesis import HealthCheck, Phase, Verbosity, given, seed, settings
from hypothesis import strategies as st
from hypothesis.errors import Flaky

from bench.input_fuzz.grammar import build
from bench.input_fuzz.inputs import Files, Inputs, described
from bench.input_fuzz.oracle import Find, judge_files, judge_launch, judge_run, listing
from bench.input_fuzz.worker import Run, Worker

SHRINKS = 60  # runs in which a find is made smaller
Say = Callable[[str], None]


class Found(Exception):
    """A run that is not as it must be; Hypothesis makes its input smaller."""


class Enough(BaseException):
    """Ends Hypothesis's search at once: no exception that it would catch."""


@dataclass
class Counts:
    """What all hunts did; safe for several threads."""

    examples: int = 0
    runs: int = 0
    ends: Counter[str] = field(default_factory=Counter)
    bad: Counter[str] = field(default_factory=Counter)
    finds: dict[str, dict[str, Any]] = field(default_factory=dict)
    slowest: float = 0.0
    first: str = ""
    lock: Lock = field(default_factory=Lock)

    def count(self, inputs: Inputs, say: Say) -> None:
        """One example more."""
        with self.lock:
            self.examples += 1
            self.bad.update(re.sub(r" \(.*", "", name, flags=re.DOTALL) for name in inputs.bad or ["nothing"])
            if self.examples % 250 == 0:
                say(f"{self.examples:,} examples, {self.runs:,} runs, {len(self.finds)} finds")

    def may_shrink(self, find: Find) -> bool:
        """Whether this is the first find of all."""
        with self.lock:
            self.first = self.first or find.rule
            return self.first == find.rule

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

    def keep(self, inputs: Inputs, find: Find, say: Say) -> None:
        """Write the input of a find to a folder, with the commands to run again."""
        with self._counts.lock:
            folder = self._keep / f"find-{len(self._counts.finds):03d}"
            self._counts.finds[find.rule] = {"folder": str(folder), "bad": inputs.bad, "detail": find.detail[-600:]}
        shutil.rmtree(folder, ignore_errors=True)
        write(inputs.files(), folder)
        lines = "\n".join(f"campaigns {shlex.join(argv)}" for argv in inputs.command_lines())
        for name, text in (("commands.sh", lines), ("find.txt", f"{find.detail}\n\n{described(inputs)}")):
            (folder / name).write_text(f"# {find.rule}\n{text}\n", errors="backslashreplace")
        say(f"FOUND {find.rule}: {folder}")


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


def hunt(examples: int, start: int, until: float, keep: Path, counts: Counts, say: Say) -> None:
    """So many examples, or until a time: after a find it goes on with other examples, and counts that find once."""
    runner, left, number = Hunt(keep, counts), examples, start
    try:
        while left > 0 and time.monotonic() < until:
            left -= _until_find(runner, left, number, until, counts, say)
            number += 1_000_003
    finally:
        runner.close()


def _until_find(runner: Hunt, examples: int, number: int, until: float, counts: Counts, say: Say) -> int:
    """Examples up to the first new find, which Hypothesis makes smaller when it is the first of all; how many."""
    made, small = 0, Smallest()

    @seed(number)
    @settings(max_examples=examples, database=None, deadline=None, phases=(Phase.generate, Phase.shrink),
              verbosity=Verbosity.quiet, suppress_health_check=list(HealthCheck), report_multiple_bugs=False)  # fmt: skip
    @given(st.data())
    def test(data: st.DataObject) -> None:
        nonlocal made
        if time.monotonic() > until:
            raise Enough
        inputs = build(data.draw)
        find = runner.judge(inputs)
        if small.find is None:
            made += 1
            counts.count(inputs, say)
        small.tried += small.find is not None
        if find is not None and small.is_of(find, counts):
            small.inputs, small.find = inputs, find
            if counts.may_shrink(find) and small.tried < SHRINKS:
                raise Found(find.rule)
            raise Enough
        if small.find is not None and small.tried >= SHRINKS:
            raise Enough

    with contextlib.suppress(Found, Enough, Flaky):
        test()
    if small.find is not None and small.inputs is not None:
        runner.keep(small.inputs, small.find, say)
    return max(1, made)


@dataclass
class Smallest:
    """The smallest input of a find so far, and in how many runs it was sought."""

    inputs: Inputs | None = None
    find: Find | None = None
    tried: int = 0

    def is_of(self, find: Find, counts: Counts) -> bool:
        """Whether a find is new, or that which is made smaller."""
        return find.rule not in counts.finds if self.find is None else find.rule == self.find.rule


def fuzz(
    examples: int,
    start: int,
    *,
    seconds: float = 1e9,
    workers: int = 2,
    keep: Path | None = None,
    say: Say = lambda text: None,
) -> dict[str, Any]:
    """What came of so many inputs, or of as many as the seconds allow; the finds are kept in a folder."""
    folder = keep or Path(tempfile.mkdtemp(prefix="input-finds-"))
    counts, until = Counts(), time.monotonic() + seconds
    shares = [len(range(n, examples, workers)) for n in range(workers)]
    with ThreadPoolExecutor(workers) as pool:
        jobs = [pool.submit(hunt, share, start + n, until, folder, counts, say) for n, share in enumerate(shares)]
        for job in jobs:
            job.result()
    if not counts.finds and keep is None:
        shutil.rmtree(folder, ignore_errors=True)
    return {"seed": start, **counts.as_json()}
