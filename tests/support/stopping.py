"""Jobs that are stopped from a terminal, by a service manager or by kill, with their children and their output."""

from __future__ import annotations

import fcntl
import os
import pty
import signal
import subprocess
import sys
import termios
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Thread

import psutil
from support.delivering import KEY, Delivery, any_events, eventually

from bench.deliveries import ROOT, Wire
from runners.sandbox.process import Rules, Sandbox

EVENTS = 4000
RETAILERS = tuple(f"store-{number}" for number in range(8))
SLOW: Rules = [{"answer": "slow", "seconds": 0.3}]  # accepted at once, answered later: what is killed between is lost


class Job:
    """A running job. `said` is its output so far."""

    def __init__(self, process: subprocess.Popen[bytes], output: int) -> None:
        self.process, self.said, self._output = process, "", output
        self._reader = Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        with suppress(OSError):  # a terminal that nobody has open any more
            while data := os.read(self._output, 65536):
                self.said += data.decode(errors="replace")

    def children(self) -> list[psutil.Process]:
        """All child processes, also of children."""
        return list(psutil.Process(self.process.pid).children(recursive=True))

    def press(self, key: bytes) -> None:
        """Press a key on its terminal."""
        os.write(self._output, key)

    def hang_up(self) -> None:
        """Close its terminal."""
        os.close(self._output)

    def ended(self) -> int:
        """The exit code, once it has ended."""
        code = self.process.wait(timeout=120)
        self._reader.join(10)
        return code


def _take_terminal() -> None:
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


@contextmanager
def started(delivery: Delivery, *more: str, terminal: bool = False, program: Sequence[str] = ()) -> Iterator[Job]:
    """A job in a session of its own, with a terminal or a pipe for its output; killed at the end of the block."""
    command = [*(program or (sys.executable, "-m", "runners.cli.main")), "rebatch", *delivery.argv(*more)]
    ours, theirs = pty.openpty() if terminal else os.pipe()
    process = subprocess.Popen(
        command, cwd=ROOT, env={**os.environ, **KEY, "COLUMNS": "200"}, start_new_session=True,
        stdin=theirs if terminal else subprocess.DEVNULL, stdout=theirs, stderr=theirs,
        preexec_fn=_take_terminal if terminal else None,
    )  # fmt: skip
    os.close(theirs)
    try:
        yield Job(process, ours)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def in_the_middle(sandbox: Sandbox, job: Job, accepted: int = 600) -> list[psutil.Process]:
    """The job's children, once so many events were accepted while others are still to come."""
    eventually(lambda: sandbox.summary()["accepted"] >= accepted or job.process.poll() is not None, "the first calls")
    assert job.process.poll() is None, job.said
    return job.children()


def gone(children: Sequence[psutil.Process]) -> None:
    """Wait until these have ended by themselves."""
    _, alive = psutil.wait_procs(children, timeout=60)
    assert not alive


def many(count: int = EVENTS) -> dict[str, Wire]:
    """Events for a delivery that takes a while."""
    return any_events(count, retailers=RETAILERS)


def rest_is_delivered_once(delivery: Delivery, sandbox: Sandbox, events: dict[str, Wire], *more: str) -> None:
    """Check that a second run delivers the rest: nobody is accepted twice, and nothing is unknown."""
    before = sandbox.summary()["accepted"]
    assert 0 < before < len(events)
    sandbox.script([])
    assert delivery.run("--drain", *more) == 0
    assert sandbox.summary()["accepted_twice"] == 0
    assert sandbox.accepted() == dict.fromkeys(events, 1)
    assert delivery.outcomes() == dict.fromkeys(events, "accepted")


def slow_delivery(root: Path, sandbox: Sandbox) -> Delivery:
    """Thousands of events in a file, to a vendor that answers slowly."""
    delivery = Delivery(root, sandbox.url).configure(lease="PT60S", timeout="PT30S")
    delivery.put("part-0", many())
    sandbox.script(SLOW)
    return delivery


def later(delivery: Delivery) -> dict[str, Wire]:
    """One more file; all events."""
    more = any_events(50, "later")
    delivery.put("part-1", more)
    return {**many(), **more}
