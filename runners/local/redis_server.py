"""A Redis server on this machine, for tests and benchmarks."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from runners.local.emulators import EmulatorError, free_port, run_server
from runners.local.install import ENGINES, PARTS, installed


class RedisServer(NamedTuple):
    """A running server: its `host:port`, and its process."""

    host: str
    process: subprocess.Popen[bytes]

    @property
    def uri(self) -> str:
        return f"redis://{self.host}/0"


@contextmanager
def redis_server(port: int | None = None, password: str = "") -> Iterator[RedisServer]:
    """An empty server that keeps all data in memory, and is killed when the block ends. Raises EmulatorError when Redis
    is not installed or does not answer within a minute."""
    port = port or free_port()
    command = [find_redis(), "--bind", "127.0.0.1", "--port", str(port), "--save", "", "--appendonly", "no"]
    command += ["--requirepass", password] if password else []
    with run_server(command, "Redis", f"127.0.0.1:{port}", lambda: _answers(port), os.devnull) as process:
        yield RedisServer(f"127.0.0.1:{port}", process)


def find_redis() -> str:
    """The server's program: that of `make engines`, or one on the PATH. Raises EmulatorError when there is none."""
    if installed(PARTS["redis"]):
        return str(ENGINES / PARTS["redis"].proof)
    if (program := shutil.which("redis-server")) is None:
        raise EmulatorError("needs Redis, run `make engines` or install redis-server")
    return program


def _answers(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(8)[:1] in (b"+", b"-")  # PONG, or the password is missing
    except OSError:
        return False
