"""A small schema registry that speaks the three calls of Confluent's that are used, with a password if one is given."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any


class Registry:
    """What the server knows: schemas by id and GUID, the subjects they were registered under, every call, answers to give
    before any other (statuses)."""

    def __init__(self, login: str) -> None:
        self.login = login
        self.schemas: dict[int, dict[str, Any]] = {}
        self.guids: dict[str, dict[str, Any]] = {}
        self.subjects: dict[str, set[int]] = {}
        self.calls: list[str] = []
        self.first: list[int] = []
        self.url = ""

    def add(self, subject: str, made: dict[str, Any]) -> int:
        """The id of a schema, the same one for the same schema."""
        known = [number for number, one in self.schemas.items() if one == made]
        number = known[0] if known else 100_000 + len(self.schemas)
        self.schemas[number] = made
        self.subjects.setdefault(subject, set()).add(number)
        return number


@contextmanager
def running_registry(login: str = "") -> Iterator[Registry]:
    """A registry on a port of its own, which ends with the block. `login` is USER:PASSWORD."""
    state = Registry(login)

    class Handler(BaseHTTPRequestHandler):
        def answer(self, status: int, body: dict[str, Any]) -> None:
            data = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def refused(self) -> bool:
            state.calls.append(f"{self.command} {self.path}")
            wanted = f"Basic {base64.b64encode(state.login.encode()).decode()}"
            if state.first:
                self.answer(state.first.pop(0), {"message": "not now"})
            elif state.login and self.headers.get("Authorization") != wanted:
                self.answer(401, {"error_code": 40101, "message": "Unauthorized"})
            else:
                return False
            return True

        def do_GET(self) -> None:
            if self.refused():
                return
            _, _, kind, key = self.path.split("/")
            found = state.schemas.get(int(key)) if kind == "ids" else state.guids.get(key)
            self.answer(200, found) if found else self.answer(404, {"error_code": 40403, "message": "not found"})

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if not self.refused():
                self.answer(200, {"id": state.add(self.path.split("/")[2], body)})

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    state.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
