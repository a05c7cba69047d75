"""A small HTTP/1.1 server on asyncio: keep-alive, pipelining, limits and deadlines; no chunks, no TLS (a proxy's job).

Of two readings of a request it takes none: what is not plainly right is refused and the connection closed, so that
nothing can be smuggled past a proxy in front.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import NamedTuple

import orjson

_LOG = logging.getLogger(__name__)
_REQUEST_LINE = re.compile(rb"([A-Z]{1,16}) (/[!-~]{0,2000}) HTTP/1\.([01])")
_FIELD = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([^\r\n\0]*)")
_MOST_HEAD = 16 << 10
_LINGER_S = 2.0  # for the client to read a refusal and to close


class Request(NamedTuple):
    """A request; the names of its fields are in lower case."""

    method: str
    path: str
    fields: dict[str, str]
    body: bytes


class Response(NamedTuple):
    """What is answered."""

    status: int
    body: bytes
    content_type: str = "application/json"


Answer = Callable[[Request], Response | Awaitable[Response]]


@dataclass(frozen=True)
class Limits:
    """Bytes of a body; seconds in which a request must have arrived, and for which a connection may idle."""

    body: int = 1 << 20
    request_s: float = 10.0
    idle_s: float = 75.0


def problem_response(status: int, **details: object) -> Response:
    """A JSON object that says what is wrong."""
    return Response(status, orjson.dumps(details))


class HttpConnection(asyncio.Protocol):
    """A connection. `answer` gives the response, or an awaitable of it; the next request waits for it."""

    def __init__(self, answer: Answer, limits: Limits, opened: set[HttpConnection]) -> None:
        self._answer, self._limits, self._opened = answer, limits, opened
        self._buffer = bytearray()
        self._task: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._closing = self._continued = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """asyncio: begin."""
        assert isinstance(transport, asyncio.Transport)
        self._transport, self._loop = transport, asyncio.get_running_loop()
        self._opened.add(self)
        self._wait(self._limits.idle_s)

    def connection_lost(self, error: Exception | None) -> None:
        """asyncio: the end; a request that is being answered is abandoned."""
        self._opened.discard(self)
        self._closing = True
        if self._timer:
            self._timer.cancel()
        if self._task:
            self._task.cancel()

    def data_received(self, data: bytes) -> None:
        """asyncio: more bytes."""
        if self._closing:
            return
        if not self._buffer and not self._task:
            self._wait(self._limits.request_s)
        self._buffer += data
        if self._task:
            if len(self._buffer) > self._limits.body + _MOST_HEAD:
                self._transport.pause_reading()
            return
        self._advance()

    def close_when_done(self) -> None:
        """Closes the connection, after the answer to a request that has arrived."""
        if self._task:
            self._closing = True
        else:
            self._transport.close()

    def _advance(self) -> None:
        """Answers the requests that are complete."""
        while self._buffer and not self._task and not self._closing and not self._transport.is_closing():
            head_end = self._buffer.find(b"\r\n\r\n", 0, _MOST_HEAD)
            if head_end < 0:
                if len(self._buffer) >= _MOST_HEAD:
                    self._refuse(431, f"the head is larger than {_MOST_HEAD:,} bytes")
                return
            head = _parse_head(bytes(self._buffer[:head_end]), self._limits.body)
            if isinstance(head, Response):
                self._send(head, keep=False)
                return
            request, length, keep = head
            end = head_end + 4 + length
            if len(self._buffer) < end:
                if request.fields.get("expect", "").lower() == "100-continue" and not self._continued:
                    self._continued = True
                    self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
                return
            body = bytes(self._buffer[head_end + 4 : end])
            del self._buffer[:end]
            self._continued = False
            self._wait(None)
            self._respond(request._replace(body=body), keep)

    def _respond(self, request: Request, keep: bool) -> None:
        try:
            answer = self._answer(request)
        except Exception:
            _LOG.exception("%s %s", request.method, request.path)
            answer = problem_response(500, error="this is a bug in the server; its log has the details")
        if isinstance(answer, Response):
            self._send(answer, keep, head_only=request.method == "HEAD")
        else:
            self._task = self._loop.create_task(self._finish(request, answer, keep))

    async def _finish(self, request: Request, answer: Awaitable[Response], keep: bool) -> None:
        try:
            response = await answer
        except Exception:
            _LOG.exception("%s %s", request.method, request.path)
            response = problem_response(500, error="this is a bug in the server; its log has the details")
        self._task = None
        self._send(response, keep and not self._closing, head_only=request.method == "HEAD")
        if not self._closing and not self._transport.is_closing():
            self._transport.resume_reading()
            self._advance()

    def _send(self, response: Response, keep: bool, head_only: bool = False) -> None:
        reason = HTTPStatus(response.status).phrase
        head = (
            f"HTTP/1.1 {response.status} {reason}\r\nContent-Type: {response.content_type}\r\n"
            f"Content-Length: {len(response.body)}\r\n{'' if keep else 'Connection: close' + chr(13) + chr(10)}\r\n"
        )
        self._transport.write(head.encode("latin-1") + (b"" if head_only else response.body))
        if keep:
            self._wait(self._limits.request_s if self._buffer else self._limits.idle_s)
        else:
            self._close_after_reading()

    def _close_after_reading(self) -> None:
        """Ends our half of the connection and drops what still comes: closed at once, a client that still sends would
        get a reset instead of the answer."""
        self._closing = True
        self._buffer.clear()
        if self._transport.can_write_eof():
            self._transport.write_eof()
        self._transport.resume_reading()
        self._wait(_LINGER_S)

    def _refuse(self, status: int, error: str) -> None:
        self._send(problem_response(status, error=error), keep=False)

    def _wait(self, seconds: float | None) -> None:
        """Closes the connection if nothing else happens for so long."""
        if self._timer:
            self._timer.cancel()
        self._timer = None if seconds is None else self._loop.call_later(seconds, self._transport.abort)


def _parse_head(head: bytes, most_body: int) -> tuple[Request, int, bool] | Response:
    """(the request without its body, the length of that, whether the connection stays), or why it is refused."""
    first, *lines = head.split(b"\r\n")
    line = _REQUEST_LINE.fullmatch(first)
    if line is None:
        return problem_response(400, error="this is no request of HTTP/1.1")
    fields: dict[str, str] = {}
    for text in lines:
        field = _FIELD.fullmatch(text)
        if field is None:
            return problem_response(400, error="a field of the head is malformed")
        name, value = field[1].decode("ascii").lower(), field[2].decode("latin-1").strip(" \t")
        if name in fields and name in ("content-length", "transfer-encoding", "host"):
            return problem_response(400, error=f"the field {name} is there twice")
        fields[name] = value
    if "transfer-encoding" in fields:
        return problem_response(501, error="chunks are not accepted; send Content-Length")
    length = fields.get("content-length", "0")
    if not re.fullmatch(r"[0-9]{1,18}", length):
        return problem_response(400, error="Content-Length is no number")
    if int(length) > most_body:
        return problem_response(413, error=f"the body has more than {most_body:,} bytes; send fewer entities in a call")
    stays = {"close": False, "keep-alive": True}.get(fields.get("connection", "").lower(), line[3] == b"1")
    return Request(line[1].decode(), line[2].decode(), fields, b""), int(length), stays
