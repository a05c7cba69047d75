"""The feature server: one listening address, one or several workers that answer there, and what keeps them running."""

from __future__ import annotations

import logging
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass

import msgspec

from schemas.events.event_types import load_event_types
from schemas.problems import JobError
from serving.features.worker import WorkerSettings, load_layouts, run
from stores.features.open import open_store

_LOG = logging.getLogger(__name__)
_STOP_S = 10.0
_SOON_S = 5.0  # a worker that ends within so many seconds of its start is not started again


@dataclass(frozen=True)
class ServerSettings:
    """What is served and where: the store's URI, the folders of declarations and event types, the address, the ports
    (0: a free one; `grpc_port` None: no gRPC), the workers, the deadline of a call, the most bytes of a body, and the
    folder with the fuses of event types."""

    store: str
    features: str
    types: str | None = None
    host: str = "127.0.0.1"
    port: int = 6566
    grpc_port: int | None = None
    workers: int = 1
    deadline_s: float = 1.0
    most_body: int = 1 << 20
    fuses: str | None = None


@dataclass(frozen=True)
class Addresses:
    """Where a server answers: `http://HOST:PORT`, and HOST:PORT of gRPC."""

    http: str
    grpc: str | None


def load_columns(types: str | None) -> dict[str, dict[str, str]]:
    """The columns of the event types of a folder, or of those that come with the engine. Raises InputError."""
    return {name: dict(one.columns) for name, one in load_event_types(types).items()}


def serve(settings: ServerSettings, ready: Callable[[Addresses], None]) -> None:
    """Serves until SIGTERM or SIGINT, and calls `ready` once every worker answers. Raises InputError for mistakes in
    the declarations and URIs, JobError for an address that is taken or workers that end."""
    columns = load_columns(settings.types)
    load_layouts(settings.features, columns)
    open_store(settings.store, read_only=True).close()
    with _listen(settings.host, settings.port) as listening:
        host, port = listening.getsockname()[:2]
        grpc = None
        if settings.grpc_port is not None:
            with _listen(settings.host, settings.grpc_port) as probe:  # gRPC would share the port with another program
                grpc = f"{host}:{probe.getsockname()[1]}"
        own = WorkerSettings(
            settings.store, settings.features, columns, listening.fileno(), grpc, settings.deadline_s,
            settings.most_body, settings.fuses,
        )  # fmt: skip
        addresses = Addresses(f"http://{host}:{port}", grpc)
        if settings.workers == 1:
            run(msgspec.structs.replace(own, socket_fd=os.dup(listening.fileno())), lambda: ready(addresses))
        else:
            _Workers(own, settings.workers).serve(lambda: ready(addresses))


def _listen(host: str, port: int) -> socket.socket:
    try:
        return socket.create_server((host, port), backlog=1_024)
    except OSError as error:
        raise JobError(f"cannot listen on {host}:{port}: {error.strerror or error}", "Choose another port") from error


class _Workers:
    """Processes that answer on the same socket. One that ends is started again."""

    def __init__(self, settings: WorkerSettings, count: int) -> None:
        self._settings, self._count, self._stop = settings, count, threading.Event()
        self._running: list[tuple[subprocess.Popen[str], float]] = []

    def serve(self, ready: Callable[[], None]) -> None:
        """Runs the workers until a signal."""
        with ExitStack() as stack:
            metrics = stack.enter_context(tempfile.TemporaryDirectory(prefix="feature-server-"))
            for number in (signal.SIGTERM, signal.SIGINT):
                stack.callback(signal.signal, number, signal.signal(number, lambda *_: self._stop.set()))
            stack.callback(self._end)
            self._environment = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": metrics}
            for _ in range(self._count):
                self._start()
            for process, _ in self._running:
                assert process.stdout is not None
                if process.stdout.readline() != "ready\n" and not self._stop.is_set():
                    raise JobError("a worker of the feature server ended while it started", "Its error stands above")
            ready()
            while not self._stop.wait(0.2):
                self._restart()

    def _start(self) -> None:
        command = [sys.executable, "-m", "serving.features.worker", msgspec.json.encode(self._settings).decode()]
        process = subprocess.Popen(
            command, pass_fds=[self._settings.socket_fd], env=self._environment, text=True, stdout=subprocess.PIPE,
            stdin=subprocess.PIPE,  # its end tells a worker that this process has died
        )  # fmt: skip
        self._running.append((process, time.monotonic()))

    def _restart(self) -> None:
        for entry in [entry for entry in self._running if entry[0].poll() is not None]:
            process, started = entry
            if time.monotonic() - started < _SOON_S:
                raise JobError(
                    f"a worker of the feature server ended with {process.returncode}", "Its error stands above"
                )
            _LOG.warning("a worker of the feature server ended with %s and is started again", process.returncode)
            self._running.remove(entry)
            self._start()

    def _end(self) -> None:
        for process, _ in self._running:
            process.terminate()
        for process, _ in self._running:
            try:
                process.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
