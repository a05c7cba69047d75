"""Child processes: no stop signal reaches them, and they end when their parent does."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from stores.local import child_process
from stores.local.child_process import STOP_SIGNALS, end_child, start_child, start_guarded

ROOT = Path(__file__).resolve().parents[3]
SLEEPS = "import sys, time; print('here', flush=True); time.sleep(600)"
FORKS = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {SLEEPS!r}])"
READS = "import sys; print('here', flush=True); sys.stdin.read(); print('the end')"
PARENT = """
import os, signal, subprocess, sys
from stores.local.child_process import start_child, start_guarded
for start, program in ((start_guarded, sys.argv[1]), (start_child, sys.argv[2])):
    child = start([sys.executable, "-c", program], stdout=subprocess.PIPE)
    child.stdout.readline()
print("here", flush=True)
signal.pause()
"""


def line_of(process: subprocess.Popen[bytes]) -> bytes:
    assert process.stdout is not None
    return process.stdout.readline()


def family(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    """What a process has started, and what that has."""
    return list(psutil.Process(process.pid).children(recursive=True))


def test_a_child_has_a_session_of_its_own_and_stop_signals_do_not_end_it() -> None:
    child = start_child([sys.executable, "-c", READS], stdout=subprocess.PIPE)
    assert line_of(child) == b"here\n"
    assert os.getsid(child.pid) == child.pid != os.getsid(0)
    for number in STOP_SIGNALS:
        child.send_signal(number)
    assert child.poll() is None
    assert end_child(child) == 0
    assert line_of(child) == b"the end\n"
    assert end_child(child) == 0


def test_the_signals_of_this_process_are_as_before() -> None:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    end_child(start_child([sys.executable, "-c", READS], stdout=subprocess.PIPE))
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before


def test_a_guarded_program_and_what_it_started_end_with_the_guards_input() -> None:
    guard = start_guarded([sys.executable, "-c", FORKS], stdout=subprocess.PIPE)
    assert line_of(guard) == b"here\n"
    programs = family(guard)
    assert len(programs) == 2
    for number in STOP_SIGNALS:
        guard.send_signal(number)
    assert guard.poll() is None
    assert end_child(guard) == 128 + signal.SIGKILL
    assert not psutil.wait_procs(programs, timeout=60)[1]


@pytest.mark.parametrize(
    ("command", "code"),
    [
        ([sys.executable, "-c", "raise SystemExit(3)"], 3),
        ([sys.executable, "-c", "import os; os.abort()"], 128 + signal.SIGABRT),
        (["/none/such"], 127),
    ],
)
def test_a_guard_ends_with_the_exit_code_of_its_program(command: list[str], code: int) -> None:
    guard = start_guarded(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert guard.wait(60) == code
    assert line_of(guard).startswith(b"/none/such cannot be started" if code == 127 else b"")


def test_children_end_when_their_parent_is_killed_or_exits() -> None:
    for end in (signal.SIGKILL, signal.SIGINT):
        command = [sys.executable, "-c", PARENT, FORKS, READS]
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as parent:
            assert line_of(parent) == b"here\n"
            children = family(parent)
            assert len(children) == 4  # the guard, its program and what that started; the child that reads
            parent.send_signal(end)
            parent.wait(60)
        assert not psutil.wait_procs(children, timeout=60)[1]


def test_a_child_that_is_stopped_is_killed_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child_process, "_END_S", 0.5)
    child = start_child(["cat"])
    child.send_signal(signal.SIGSTOP)
    assert end_child(child) == -signal.SIGKILL
