"""A process that runs commands of `campaigns`, one after the other: to start one anew for each takes two seconds."""

from __future__ import annotations

import contextlib
import gc
import json
import os
import select
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import IO, NamedTuple

from bench.input_fuzz.inputs import SECRET

ROOT = Path(__file__).resolve().parents[2]
LIMIT_S = 60.0
RUNS = 400  # of one process, so that what a run leaves behind does not add up


class Run(NamedTuple):
    """How a command ended: exit code (None: it did not), what it said, and the exception that it let through."""

    code: int | None
    out: str = ""
    err: str = ""
    raised: str = ""
    seconds: float = 0.0


class Worker:
    """Runs commands in a process that is started anew when it has died, has hanged, or is old."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._runs = 0

    def run(self, folder: Path, argv: list[str]) -> Run:
        """How a command ended that runs in a folder; its home and its temporary folder stand beside."""
        process = self._ready()
        assert process.stdin is not None
        assert process.stdout is not None
        began = time.monotonic()
        try:
            process.stdin.write(json.dumps({"folder": str(folder), "argv": argv}).encode() + b"\n")
            process.stdin.flush()
            line = process.stdout.readline() if select.select([process.stdout], [], [], LIMIT_S)[0] else b""
        except OSError:
            line = b""
        seconds = time.monotonic() - began
        if not line:
            died = process.poll() is not None or seconds < LIMIT_S
            self.close()
            return Run(None, raised="the process died" if died else f"no end after {LIMIT_S:g} s", seconds=seconds)
        return Run(**json.loads(line), seconds=seconds)

    def _ready(self) -> subprocess.Popen[bytes]:
        self._runs += 1
        if self._process is None or self._process.poll() is not None or self._runs % RUNS == 0:
            self.close()
            self._process = subprocess.Popen(
                [sys.executable, "-m", "bench.input_fuzz.worker"], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                env={**os.environ, "PYTHONPATH": str(ROOT), "CAMPAIGNS_CODE_SECRET": SECRET, "LANGUAGE": "C", "COLUMNS": "80"}, stderr=subprocess.DEVNULL,
            )  # fmt: skip
        return self._process

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            for pipe in (self._process.stdin, self._process.stdout):
                if pipe is not None:
                    with contextlib.suppress(OSError):
                        pipe.close()
        self._process = None


def _answer(folder: Path, argv: list[str]) -> Run:
    """A command, run in this process with what it writes caught, also what a library writes past Python."""
    from runners.cli.main import main

    for name in ("home", "tmp"):
        (folder.parent / name).mkdir(exist_ok=True)
    os.environ["HOME"], os.environ["TMPDIR"] = str(folder.parent / "home"), str(folder.parent / "tmp")
    tempfile.tempdir = None
    os.chdir(folder)
    code, raised = None, ""
    with open(folder.parent / "stdout", "wb+") as out, open(folder.parent / "stderr", "wb+") as err:
        sys.stdout.flush()
        sys.stderr.flush()
        os.dup2(out.fileno(), 1)
        os.dup2(err.fileno(), 2)
        try:
            code = main(argv)
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 1
        except BaseException:
            raised = traceback.format_exc()
        sys.stdout.flush()
        sys.stderr.flush()
        out_text, err_text = _text(out), _text(err)
    os.chdir(ROOT)
    return Run(code, out_text, err_text, raised)


def _text(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode("utf-8", "backslashreplace")


def serve() -> None:
    """Answer every line on the standard input with one line."""
    import runners.cli.main  # noqa: F401 (loaded before the first command, and never looked at by the collector)

    gc.freeze()
    answers = os.fdopen(os.dup(1), "wb", buffering=0)
    quiet = os.open(os.devnull, os.O_RDWR)
    os.dup2(quiet, 1)
    for line in sys.stdin:
        asked = json.loads(line)
        told = _answer(Path(asked["folder"]), asked["argv"])._asdict()
        told.pop("seconds")
        answers.write(json.dumps(told).encode() + b"\n")


if __name__ == "__main__":
    serve()
