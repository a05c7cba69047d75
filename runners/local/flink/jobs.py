"""List, cancel and stop the jobs of a Flink cluster by its REST interface."""

from __future__ import annotations

import time
from typing import Any

import orjson
import urllib3

from runners.local.emulators import EmulatorError

OVER = frozenset({"CANCELED", "FAILED", "FINISHED"})  # the final states of a job
_PATIENCE_S = 120.0


class FlinkError(EmulatorError):
    """A failure that waiting does not repair."""


class FlinkJobs:
    """The jobs of the cluster whose JobManager answers at `address` (HOST:PORT). Raises EmulatorError."""

    def __init__(self, address: str, logs: str = "") -> None:
        self.address, self._logs = address, logs
        self._http = urllib3.PoolManager(retries=False, timeout=20.0)

    def rest(self, method: str, path: str, body: Any = None) -> Any:
        """The answer of the REST interface, decoded."""
        data, headers = None if body is None else orjson.dumps(body), {"Content-Type": "application/json"}
        answer = self._http.request(method, f"http://{self.address}{path}", body=data, headers=headers)
        if answer.status >= 300:
            raise EmulatorError(f"Flink answers {answer.status} to {method} {path}: {answer.data[:500]!r}")
        return orjson.loads(answer.data or b"null")

    def jobs(self) -> dict[str, str]:
        """Job id to state, as Flink says."""
        return {job["jid"]: job["state"] for job in self.rest("GET", "/jobs/overview")["jobs"]}

    def cancel(self, job: str) -> None:
        """Cancel a job and wait until it has ended: a job that Beam calls cancelled may still run."""
        self.rest("PATCH", f"/jobs/{job}?mode=cancel")
        self._until("cancelled job", lambda: self.jobs()[job] in OVER)

    def stop_with_savepoint(self, job: str, folder: str | None = None) -> str:
        """Stop a job; the savepoint to start the next one from, in a folder or where the cluster keeps them. Without
        `drain`, which never ended."""
        body = {"drain": False, **({"targetDirectory": folder} if folder else {})}
        request = self.rest("POST", f"/jobs/{job}/stop", body)["request-id"]

        def ended() -> Any:
            answer = self.rest("GET", f"/jobs/{job}/savepoints/{request}")
            return answer["operation"] if answer["status"]["id"] == "COMPLETED" else None

        operation = self._until("savepoint", ended)
        if "location" not in operation:
            raise FlinkError(f"no savepoint of job {job}, which goes on: {_cause(operation)}")
        return str(operation["location"])

    def _until(self, what: str, ready: Any) -> Any:
        end = time.monotonic() + _PATIENCE_S
        while time.monotonic() < end:
            try:
                if result := ready():
                    return result
            except FlinkError:
                raise
            except (EmulatorError, urllib3.exceptions.HTTPError, KeyError):
                pass  # it is not up yet
            time.sleep(0.2)
        raise FlinkError(f"Flink's {what} did not come in {_PATIENCE_S:.0f} s{self._logs}")


def stop_job(address: str, job: str | None, folder: str | None) -> tuple[str, str]:
    """Stop the named job, or the only one that runs; (job, savepoint)."""
    cluster = FlinkJobs(address)
    try:
        running = [name for name, state in cluster.jobs().items() if state not in OVER]
    except (urllib3.exceptions.HTTPError, orjson.JSONDecodeError) as error:
        todo = "give the JobManager's --address HOST:PORT"
        raise EmulatorError(f"no Flink answers at {address} ({error}); {todo}") from error
    if job is None and len(running) == 1:
        job = running[0]
    if job not in running:
        names = ", ".join(running) or "none"
        wrong = f"{job} does not run there" if job else "which job?"
        raise EmulatorError(f"{wrong} (running: {names}); name one of them")
    return job, cluster.stop_with_savepoint(job, folder)


def _cause(operation: Any) -> str:
    """The last line of Flink's trace that says why."""
    trace = str(operation.get("failure-cause", {}).get("stack-trace", operation))
    causes = [line for line in trace.splitlines() if line.startswith("Caused by:")]
    return (causes or trace.splitlines() or ["it does not say why"])[-1][:500]
