"""Child processes that stop signals do not reach, and that end when this process does.

A terminal sends Ctrl-C to the foreground process group, a service manager SIGTERM to every process of the service. A
child that died of it would be missing when this process stops in order. So a child gets a session of its own, and
starts with the stop signals blocked; its own children inherit both.

`python child_process.py COMMAND …` is the guard of a program that does not watch its standard input: it runs the
command, and kills it with all its group when the guard's own input ends.
"""

from __future__ import annotations

import atexit
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from threading import Thread
from typing import Any
from weakref import WeakSet

_CHILDREN: WeakSet[subprocess.Popen[bytes]] = WeakSet()
_END_S = 60.0
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def start_child(command: Sequence[str], **settings: Any) -> subprocess.Popen[bytes]:
    """Starts a program that ends when its standard input does: a pipe, which closes when this process ends. `settings`
    are Popen's. No other child inherits our end of the pipe: Python makes it non-inheritable. The signals are blocked
    in this thread while it starts the child, which keeps the mask; they are pending then and not lost."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        child = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True, **settings)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    _CHILDREN.add(child)
    return child


def start_guarded(command: Sequence[str], **settings: Any) -> subprocess.Popen[bytes]:
    """The guard process of a program, which it starts. Close its `stdin` to kill the program; it has its exit code."""
    return start_child([sys.executable, "-I", "-S", __file__, *command], **settings)


def end_child(child: subprocess.Popen[bytes]) -> int:
    """Closes a child's input and waits for its end, or kills it after a minute; its exit code. May be called twice."""
    if child.stdin is not None:
        with suppress(OSError):  # it has ended without reading all
            child.stdin.close()
    try:
        return child.wait(_END_S)
    except subprocess.TimeoutExpired:  # it is stopped, and does not see that its input is closed
        child.kill()
        return child.wait()


@atexit.register  # as this module is loaded: after all that was registered since, which may still need the children
def _end_children() -> None:
    for child in list(_CHILDREN):
        end_child(child)


def ignore_stop_signals() -> None:
    """Ignore the stop signals, in a child that is started or signalled by hand."""
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def _guard(command: Sequence[str]) -> int:
    """The exit code of the command; 128 plus the signal that killed it; 127 if it could not start."""
    ignore_stop_signals()
    try:
        program = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)
    except OSError as error:
        print(f"{command[0]} cannot be started: {error.strerror}", flush=True)
        return 127
    Thread(target=_kill_at_end_of_input, args=(program,), daemon=True).start()
    code = program.wait()
    return code if code >= 0 else 128 - code


def _kill_at_end_of_input(program: subprocess.Popen[bytes]) -> None:
    while os.read(0, 4096):
        pass
    if program.poll() is None:
        os.killpg(program.pid, signal.SIGKILL)  # a session of its own: its pid is its group's


if __name__ == "__main__":
    os._exit(_guard(sys.argv[1:]))  # without waiting for the thread that reads the input
