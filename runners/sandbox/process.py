"""Run the sandbox in a process of its own, for tests and benchmarks."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import urllib3

from runners.sandbox.stand_in import CALLS_PER_HOUR

Rules = Sequence[Mapping[str, Any]]
_ROOT = Path(__file__).resolve().parents[2]


class SandboxError(RuntimeError):
    """The sandbox could not start, or refused a request."""


class Sandbox:
    """A running sandbox at `url`, asked over HTTP."""

    def __init__(self, url: str, process: subprocess.Popen[str]) -> None:
        self.url, self.process = url, process
        self._http = urllib3.PoolManager(retries=False, timeout=60)

    def workspace(self, name: str) -> str:
        """The URL of a workspace, as its retailer's account has it."""
        return f"{self.url}/w/{name}"

    def summary(self) -> dict[str, Any]:
        """The counts, as GET /_sandbox/summary tells them."""
        return dict(self._ask("GET", "summary"))

    def accepted(self) -> dict[str, int]:
        """How many times each event was accepted."""
        return dict(self._ask("GET", "accepted"))

    def calls(self, limit: int = 50) -> list[dict[str, Any]]:
        """The last calls, newest first."""
        return list(self._ask("GET", f"calls?limit={limit}"))

    def script(self, rules: Rules) -> None:
        """New rules in place of the old ones. Raises SandboxError for rules that cannot be read."""
        self._ask("POST", "script", json.dumps(list(rules)).encode())

    def reset(self) -> None:
        """Forget all calls; the rules start again."""
        self._ask("POST", "reset", b"")

    def stop(self) -> int:
        """Ends it with SIGTERM; the exit code."""
        self._http.clear()
        self.process.terminate()
        return self.process.wait(10)

    def _ask(self, method: str, path: str, body: bytes | None = None) -> Any:
        answer = self._http.request(method, f"{self.url}/_sandbox/{path}", body=body)
        if answer.status != 200:
            raise SandboxError(answer.data.decode())
        return json.loads(answer.data)


@contextmanager
def running_sandbox(
    script: Rules = (),
    record: str | Path | None = None,
    keys: Mapping[str, str] | None = None,
    *,
    port: int = 0,
    bodies: bool = False,
    keep: int = 200,
    calls_per_hour: int = CALLS_PER_HOUR,
) -> Iterator[Sandbox]:
    """A sandbox that listens, and ends with the block (a test may kill it before). Raises SandboxError."""
    with TemporaryDirectory() as folder:
        files = {"script": list(script), "keys": dict(keys or {})}
        command = [sys.executable, "-m", "runners.sandbox", f"--port={port}", f"--keep={keep}"]
        command.append(f"--calls-per-hour={calls_per_hour}")
        for name, data in files.items():
            if data:
                (Path(folder) / name).write_text(json.dumps(data))
                command.append(f"--{name}={folder}/{name}")
        if record is not None:
            command.append(f"--record={Path(record).resolve()}")
        if bodies:
            command.append("--bodies")
        process = subprocess.Popen(command, cwd=_ROOT, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        try:
            line = process.stdout.readline()
            if "http://" not in line:
                raise SandboxError(f"the sandbox did not start (exit code {process.wait(10)})")
            yield Sandbox(line.split()[-1], process)
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            process.stdout.close()
