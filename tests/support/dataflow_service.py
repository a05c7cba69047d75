"""A server that speaks the calls of the Dataflow API that a job's life takes: create, get, update, list, messages."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any
from urllib.parse import urlsplit

_JOBS = re.compile(
    r"/v1b3/projects/(?P<project>[^/]+)/locations/(?P<region>[^/]+)/jobs(?:/(?P<job>[^/]+)(?P<more>/\w+)?)?"
)
_ALL = re.compile(r"/v1b3/projects/(?P<project>[^/]+)/jobs(:aggregated)?")
_NEXT = {"JOB_STATE_PENDING": "JOB_STATE_RUNNING", "JOB_STATE_DRAINING": "JOB_STATE_DRAINED",
         "JOB_STATE_CANCELLING": "JOB_STATE_CANCELLED"}  # fmt: skip
_ON_THE_WAY = {"JOB_STATE_DRAINED": "JOB_STATE_DRAINING", "JOB_STATE_DRAINING": "JOB_STATE_DRAINING",
               "JOB_STATE_CANCELLED": "JOB_STATE_CANCELLING"}  # fmt: skip
ENDED = {"JOB_STATE_DRAINED", "JOB_STATE_CANCELLED", "JOB_STATE_DONE", "JOB_STATE_FAILED", "JOB_STATE_UPDATED"}


@dataclass
class Service:
    """The jobs by id. A job goes one state on each time somebody looks; `runs` runs a job and gives its end state."""

    port: int = 0
    jobs: dict[str, dict[str, Any]] = field(default_factory=dict)
    runs: Callable[[dict[str, Any]], str] | None = None
    refuses: tuple[int, str] | None = None

    @property
    def endpoint(self) -> str:
        return f"http://localhost:{self.port}"

    def create(self, job: dict[str, Any], project: str, region: str) -> dict[str, Any]:
        active = [one for one in self.jobs.values() if one["name"] == job["name"] and one["currentState"] not in ENDED]
        replaced = self.jobs.get(job.get("replaceJobId", ""))
        if replaced is not None:
            replaced["currentState"] = "JOB_STATE_UPDATED"
        elif active:
            return active[0]
        made = {**job, "id": f"job-{len(self.jobs) + 1}", "projectId": project, "location": region,
                "currentState": "JOB_STATE_PENDING", "createTime": "2026-04-01T00:00:00Z"}  # fmt: skip
        self.jobs[made["id"]] = made
        return made

    def look(self, name: str) -> dict[str, Any]:
        job = self.jobs[name]
        if self.runs is not None and job["currentState"] == "JOB_STATE_RUNNING":
            job["currentState"] = self.runs(job)
        job["currentState"] = _NEXT.get(job["currentState"], job["currentState"])
        return job

    def update(self, name: str, asked: dict[str, Any]) -> dict[str, Any]:
        job, wanted = self.jobs[name], asked["requestedState"]
        job["asked"] = [*job.get("asked", []), wanted]
        if job["currentState"] not in ENDED:
            job["currentState"] = _ON_THE_WAY[wanted]
        return {**job, "requestedState": wanted}


def _answer(service: Service, method: str, path: str, body: dict[str, Any]) -> Any:
    if service.refuses:
        return None
    if _ALL.fullmatch(path):
        return {"jobs": list(service.jobs.values())}
    found = _JOBS.fullmatch(path)
    if found is None:
        raise KeyError(path)
    if method == "POST":
        return service.create(body, found["project"], found["region"])
    if found["job"] is None:
        return {"jobs": [service.look(name) for name in service.jobs]}
    if method == "PUT":
        return service.update(found["job"], body)
    if found["more"] == "/messages":
        failed = service.jobs[found["job"]]["currentState"] == "JOB_STATE_FAILED"
        text, weight = ("The workflow failed.", "ERROR") if failed else ("Worker pool started.", "BASIC")
        return {"jobMessages": [{"id": "1", "time": "2026-04-01T00:00:00Z", "messageText": text,
                                 "messageImportance": f"JOB_MESSAGE_{weight}"}]}  # fmt: skip
    return service.look(found["job"])


@contextmanager
def dataflow_service() -> Iterator[Service]:
    """A running service, ended with the block."""
    service = Service()

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            try:
                code, said = 200, _answer(service, self.command, urlsplit(self.path).path, json.loads(body or b"{}"))
            except KeyError:
                code, said = 404, {"error": {"code": 404, "status": "NOT_FOUND", "message": f"no {self.path}"}}
            if service.refuses:
                code, said = service.refuses[0], {"error": {"code": service.refuses[0], "message": service.refuses[1]}}
            data = json.dumps({key: value for key, value in said.items() if key != "asked"}).encode()
            self.send_response(code)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = do_PUT = answer

        def log_message(self, *args: Any) -> None:
            """Nothing is logged."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        service.port = server.server_address[1]
        Thread(target=server.serve_forever, daemon=True).start()
        yield service
        server.shutdown()
