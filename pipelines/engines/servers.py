"""Guards for the processes that Beam starts for a job, above all Prism: no stop signal reaches them, and they end with
this process.

Beam starts them in our process group, where a Ctrl-C or a SIGTERM ends them before the job has ended in order, and
leaves them behind when this process is killed.
"""

from __future__ import annotations

import atexit
import logging
import subprocess
import threading
import time
from typing import Any

import grpc
from apache_beam.runners.portability.job_server import StopOnExitJobServer
from apache_beam.utils import subprocess_server

from stores.local.child_process import end_child, start_guarded

_LOOK_S = 3.0  # a connection breaks some milliseconds before its process has ended
_guards = list[subprocess.Popen[bytes]]()


def guard_servers() -> None:
    """Makes Beam start its servers under guards, and without its handler of Ctrl-C, which would stop Prism first."""
    server = subprocess_server.SubprocessServer
    if server._cache._constructor is not _start:
        server._cache = subprocess_server._SharedCache(constructor=_start, destructor=_stop)
    StopOnExitJobServer.start = _start_until_exit


def lost_server(error: Exception) -> bool:
    """Whether an error was caused by a server that ended though nobody stopped it."""
    if not isinstance(error, grpc.RpcError):
        return False
    end = time.monotonic() + _LOOK_S
    while not any(guard.poll() is not None for guard in _guards):
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


def expect_lost_server() -> None:
    """Silences errors of lost connections: from now on a server may end before the job."""
    logging.getLogger("apache_beam.runners.worker").setLevel(logging.CRITICAL)
    before = threading.excepthook

    def ignore_lost(args: threading.ExceptHookArgs) -> None:
        if not isinstance(args.exc_value, grpc.RpcError):
            before(args)

    threading.excepthook = ignore_lost


def _start(command: tuple[str, ...], port: int | None, logger: logging.Logger) -> tuple[subprocess.Popen[bytes], str]:
    """Starts a server: its guard process, and the address where it will listen. Its output is logged."""
    port = port or subprocess_server.pick_port(None)[0]
    words = [word.replace("{{PORT}}", str(port)) for word in command]
    guard = start_guarded(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    threading.Thread(target=_log, args=(guard, logger), daemon=True).start()
    _guards.append(guard)
    return guard, f"localhost:{port}"


def _log(guard: subprocess.Popen[bytes], logger: logging.Logger) -> None:
    assert guard.stdout is not None
    for line in guard.stdout:
        logger.info(line.decode(errors="backslashreplace").rstrip())


def _stop(started: tuple[subprocess.Popen[bytes], str]) -> None:
    guard, _ = started
    if guard in _guards:
        _guards.remove(guard)
    end_child(guard)


def _start_until_exit(server: Any) -> Any:
    """Beam's own start, without its handler of Ctrl-C."""
    with server._lock:
        if not server._started:
            server._endpoint = server._job_server.start()
            server._started = True
            atexit.register(server.stop)
    return server._endpoint
