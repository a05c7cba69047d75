"""Serve the sandbox on a port: a small HTTP/1.1 server in one thread, and the paths under /_sandbox about itself."""

from __future__ import annotations

import asyncio
import signal
import socket
import struct
from collections.abc import Callable, Mapping
from html import escape
from typing import Any
from urllib.parse import parse_qs

import msgspec

from runners.sandbox.script import ScriptError, read_script
from runners.sandbox.stand_in import Reply, Request, StandIn

_LONGEST_HEAD, _LONGEST_BODY = 64 << 10, 64 << 20
_JSON = {"content-type": "application/json"}
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER for no time at all: close sends RST
_STYLE = "body{font:16px system-ui;margin:2em}td,th{padding:.2em 1em;text-align:right}td:first-child{text-align:left}"
_LABELS = {
    "calls": "calls",
    "accepted": "messages accepted",
    "events": "different events accepted",
    "accepted_twice": "events accepted more than once",
    "rejected": "recipients rejected",
    "collapsed": "repeated recipients in a call",
    "repeated_calls": "calls repeated with their idempotency key",
    "connections": "connections",
}


def ask(stand_in: StandIn, method: str, target: str, body: bytes) -> Reply | None:
    """The answer to a question about the sandbox itself; None for a path that is the vendor's."""
    path, _, query = target.partition("?")
    limit = parse_qs(query).get("limit", ["50"])[0]
    answers: dict[tuple[str, str], Callable[[], Any]] = {
        ("GET", "/_sandbox/summary"): stand_in.book.summary,
        ("GET", "/_sandbox/accepted"): stand_in.book.accepted,
        ("GET", "/_sandbox/calls"): lambda: list(stand_in.book.calls(int(limit) if limit.isdigit() else 50)),
        ("GET", "/_sandbox/script"): lambda: [rule.model_dump(exclude_none=True) for rule in stand_in.script.rules],
        ("POST", "/_sandbox/reset"): stand_in.reset,
        ("POST", "/_sandbox/script"): lambda: _changed(stand_in, body),
    }
    if (method, path) == ("GET", "/"):
        html = _page(stand_in.book.summary(), len(stand_in.script.rules))
        return Reply(200, {"content-type": "text/html; charset=utf-8"}, html.encode())
    if (method, path) in answers:
        try:
            return Reply(200, _JSON, msgspec.json.encode(answers[method, path]()))
        except ScriptError as error:
            return Reply(400, _JSON, msgspec.json.encode({"message": str(error)}))
    if method != "POST" or path.startswith("/_sandbox/"):
        return Reply(404, _JSON, b'{"message":"Not Found"}')
    return None


def _page(summary: Mapping[str, Any], rules: int) -> str:
    """The summary as HTML, which loads itself anew every two seconds."""
    workspaces = [(name, one["calls"], one["accepted"]) for name, one in summary["by_workspace"].items()]
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><meta http-equiv="refresh" content="2">'
        f"<title>Vendor sandbox</title><style>{_STYLE}</style><h1>Vendor sandbox</h1>"
        f"<p>A stand-in: nothing is sent to anybody. {rules} rules are in force.</p>"
        + _table(("", "count"), [(text, summary[key]) for key, text in _LABELS.items()])
        + _table(("answer", "calls"), list(summary["by_status"].items()))
        + _table(("workspace", "calls", "accepted"), workspaces)
        + "</html>"
    )


def _table(head: tuple[str, ...], rows: list[tuple[Any, ...]]) -> str:
    shown = "".join(f"<tr>{''.join(f'<td>{escape(_cell_text(cell))}</td>' for cell in row)}</tr>" for row in rows)
    return f"<table><tr>{''.join(f'<th>{cell}</th>' for cell in head)}</tr>{shown}</table>"


def _cell_text(cell: Any) -> str:
    return f"{cell:,}" if isinstance(cell, int) else str(cell)


def _changed(stand_in: StandIn, body: bytes) -> dict[str, int]:
    stand_in.script = read_script(body)
    return {"rules": len(stand_in.script.rules)}


class _Head:
    """The head of a request: method, target, headers, and the length of the body that follows."""

    def __init__(self, data: bytes) -> None:
        first, *lines = data.decode("latin-1").split("\r\n")
        self.method, self.target, _ = first.split(" ", 2)
        pairs = (line.partition(":") for line in lines)
        self.headers = {name.strip().lower(): text.strip() for name, _, text in pairs}
        self.length = int(self.headers.get("content-length", "0"))
        self.keeps = self.headers.get("connection", "").lower() != "close"
        if "transfer-encoding" in self.headers or not 0 <= self.length <= _LONGEST_BODY:
            raise ValueError("a body without a length, or too long a one")


class _Connection(asyncio.Protocol):
    """One connection: a request at a time, in the order they come."""

    def __init__(self, stand_in: StandIn, open_ones: set[asyncio.Transport]) -> None:
        self._stand_in, self._open = stand_in, open_ones
        self._buffer = bytearray()
        self._head: _Head | None = None
        self._busy = self._counted = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._open.add(transport)

    def connection_lost(self, _: Exception | None) -> None:
        self._open.discard(self._transport)
        self._busy = True

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        try:
            self._work()
        except ValueError:
            self._transport.write(b"HTTP/1.1 400 \r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
            self._transport.close()

    def _work(self) -> None:
        while not self._busy:
            if self._head is None:
                end = self._buffer.find(b"\r\n\r\n")
                if end < 0:
                    if len(self._buffer) > _LONGEST_HEAD:
                        raise ValueError("too long a head")
                    return
                self._head = _Head(bytes(self._buffer[:end]))
                del self._buffer[: end + 4]
                if self._head.headers.get("expect", "").lower() == "100-continue":
                    self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            head = self._head
            if len(self._buffer) < head.length:
                return
            body = bytes(self._buffer[: head.length])
            del self._buffer[: head.length]
            self._head = None
            self._take(head, body)

    def _take(self, head: _Head, body: bytes) -> None:
        reply = ask(self._stand_in, head.method, head.target, body)
        if reply is None:
            self._stand_in.book.connections += not self._counted
            self._counted = True
            path = head.target.partition("?")[0]
            reply = self._stand_in.answer(Request(path, head.headers, body))
        if reply.how == "hang":
            self._busy = True
        elif reply.delay_s:
            self._busy = True
            asyncio.get_running_loop().call_later(reply.delay_s, self._finish, head, reply)
        else:
            self._send(head, reply)

    def _finish(self, head: _Head, reply: Reply) -> None:
        if not self._transport.is_closing():
            self._busy = False
            self._send(head, reply)
            self._work()

    def _send(self, head: _Head, reply: Reply) -> None:
        if reply.how == "reset":
            self._busy = True
            self._transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            self._transport.abort()
            return
        lines = [f"HTTP/1.1 {reply.status} ", *(f"{name}: {text}" for name, text in reply.headers.items())]
        lines += [f"content-length: {len(reply.body)}", "", ""]
        body = reply.body[: len(reply.body) // 2] if reply.how == "half" else reply.body
        self._transport.write("\r\n".join(lines).encode("latin-1") + body)
        if reply.how == "half" or not head.keeps:
            self._busy = True
            self._transport.close()


async def serve(stand_in: StandIn, host: str, port: int, listening: Callable[[str], None]) -> None:
    """Serves until SIGTERM, or SIGINT unless a shell ignores it in the background; `listening` gets the address.
    Raises OSError when the port is taken."""
    open_ones: set[asyncio.Transport] = set()
    loop, ended = asyncio.get_running_loop(), asyncio.Event()
    server = await loop.create_server(lambda: _Connection(stand_in, open_ones), host, port, backlog=1024)
    for one in (signal.SIGTERM, signal.SIGINT):
        if signal.getsignal(one) != signal.SIG_IGN:
            loop.add_signal_handler(one, ended.set)
    listening(f"http://{host}:{server.sockets[0].getsockname()[1]}")
    await ended.wait()
    server.close()
    for transport in list(open_ones):
        transport.abort()
    stand_in.book.close()
