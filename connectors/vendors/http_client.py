"""One POST over HTTP with a total timeout; its errors say for certain whether the request may have been sent."""

from __future__ import annotations

import io
import re
import socket
import ssl
import time
from collections import defaultdict
from collections.abc import Mapping
from functools import partial
from http import client
from threading import Lock, Thread
from typing import Any, NamedTuple, cast
from urllib.parse import SplitResult

from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import HTTPError
from urllib3.util.connection import create_connection

from schemas.addresses import forbidden_host, split_url
from schemas.delivery import Begin, SentFlag, always

MAX_ANSWER = 1 << 20
# Servers close idle connections after 5 s and more. A request that meets the closing is one whose answer never came,
# so a connection that has been idle for this long is not used again.
IDLE_S = 4.0
_KEPT = 64
_HEADER = re.compile(r"[\x20-\x7e]*")
Headers = Mapping[str, str]


class Reply(NamedTuple):
    """A vendor's reply; header names are lower case. `whole` is false when the body was cut short or over 1 MB;
    `to_all` is false when the reply came before the whole request was sent."""

    status: int
    headers: Headers
    body: bytes
    whole: bool
    to_all: bool = True


class CallError(Exception):
    """A call without a reply. The text never holds what was sent."""


class CannotSend(CallError):
    """A URL or a header that cannot be sent."""


class NotSent(CallError):
    """Nothing was sent."""


class Withdrawn(CallError):
    """Nothing was sent: the caller withdrew the call when the connection was ready."""


class NoAnswer(CallError):
    """The request may have been sent, in whole or in part."""


class HttpClient:
    """Posts over pooled connections; safe to use from several threads. Follows no redirects, retries nothing, uses no
    proxy of the environment."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._idle: dict[tuple[str, str], list[tuple[HTTPConnection, float]]] = defaultdict(list)
        self._tls = ssl.create_default_context()

    def post(self, url: str, body: bytes, headers: Headers, timeout_s: float, begin: Begin = always) -> Reply:
        """The reply, within `timeout_s` in all: name look-up, connection, request and reply. `begin` is asked once the
        connection is ready, right before the first byte of the request is sent; if it returns None, nothing is sent. A
        request is complete with its last byte: no server acts on less, so one that breaks earlier has sent nothing.

        Raises CannotSend, NotSent, Withdrawn and NoAnswer; what `begin` raises.
        """
        end = time.monotonic() + timeout_s
        parts = _checked(url, headers)
        place = (parts.scheme, parts.netloc)
        connection = self._take(place) or self._connected(parts, end)
        flag: SentFlag | None = None
        keep = False
        try:
            connection.timeout = _left(end)
            connection.sock.settimeout(connection.timeout)
            connection.response_class = cast(Any, partial(_Bounded, end))
            target = f"{parts.path or '/'}{'?' * bool(parts.query)}{parts.query}"
            request = _request(connection, target, body, headers)
            flag = begin()
            if flag is None:
                raise Withdrawn("the call was withdrawn before it began")
            _send(connection, request, flag)
            reply, keep = _read(connection)
            keep = keep and flag.is_set
            return reply._replace(to_all=flag.is_set)
        except (OSError, HTTPError, client.HTTPException, ValueError) as error:
            raise (NoAnswer if flag is not None and flag.is_set else NotSent)(_words(error)) from None
        finally:
            if keep:
                self._keep(place, connection)
            else:
                connection.close()

    def close(self) -> None:
        """Close the connections that are not in use."""
        with self._lock:
            kept = [connection for idle in self._idle.values() for connection, _ in idle]
            self._idle.clear()
        for connection in kept:
            connection.close()

    def _take(self, place: tuple[str, str]) -> HTTPConnection | None:
        """A kept connection that is still good."""
        while True:
            with self._lock:
                if not self._idle[place]:
                    return None
                connection, since = self._idle[place].pop()
            if time.monotonic() - since < IDLE_S and connection.is_connected:
                return connection
            connection.close()

    def _keep(self, place: tuple[str, str], connection: HTTPConnection) -> None:
        with self._lock:
            idle = self._idle[place]
            idle.append((connection, time.monotonic()))
            surplus = idle.pop(0)[0] if len(idle) > _KEPT else None
        if surplus is not None:
            surplus.close()

    def _connected(self, parts: SplitResult, end: float) -> HTTPConnection:
        """A new connection, opened in a thread: a name look-up has no timeout of its own, and each address and each
        step of a handshake would have the whole timeout."""
        settings: dict[str, Any] = {"host": parts.hostname, "port": parts.port, "timeout": _left(end)}
        secure = parts.scheme == "https"
        connection = _CheckedHttps(**settings, ssl_context=self._tls) if secure else _CheckedHttp(**settings)
        failure: list[BaseException] = []
        maker = Thread(target=_connect, args=(connection, failure), daemon=True)
        maker.start()
        maker.join(_left(end))
        if maker.is_alive():
            raise NotSent("connecting took too long")
        if failure and isinstance(failure[0], CannotSend):
            raise CannotSend(str(failure[0])) from None
        if failure:
            raise NotSent(_words(failure[0])) from None
        return connection


def _connect_checked(connection: HTTPConnection) -> socket.socket:
    """A socket to the first address of the host that answers; the name is looked up once, so that the checked address
    is the one that is connected to. Raises CannotSend when one of its addresses is forbidden."""
    entries = socket.getaddrinfo(connection._dns_host, connection.port, type=socket.SOCK_STREAM)
    addresses = list(dict.fromkeys(str(entry[4][0]) for entry in entries))
    for address in addresses:
        if why := forbidden_host(address):
            raise CannotSend(f"the address resolves to {address}, which {why}")
    failure: OSError = OSError("the name has no address")
    for address in addresses:
        try:
            place, options = (address, connection.port), connection.socket_options
            return create_connection(place, connection.timeout, socket_options=options)
        except OSError as error:
            failure = error
    raise failure


class _CheckedHttp(HTTPConnection):
    """A connection to checked addresses only: a name may resolve to a metadata service."""

    _new_conn = _connect_checked


class _CheckedHttps(HTTPSConnection):
    _new_conn = _connect_checked


def _connect(connection: HTTPConnection, failure: list[BaseException]) -> None:
    try:
        connection.connect()
    except Exception as error:  # whatever it is, nothing was sent
        failure.append(error)
        connection.close()


def _checked(url: str, headers: Headers) -> SplitResult:
    """The parts of a valid URL. Raises CannotSend for any other, and for invalid headers (the library's own error would
    quote the key)."""
    try:
        parts = split_url(url)
    except ValueError as error:
        raise CannotSend(f"the address {error}") from None
    if wrong := [name for name, text in headers.items() if not _HEADER.fullmatch(text)]:
        raise CannotSend(f"the header {wrong[0]} has characters that no header can have")
    return parts


def _left(end: float) -> float:
    return max(end - time.monotonic(), 0.001)


def _request(connection: HTTPConnection, target: str, body: bytes, headers: Headers) -> bytes:
    """The bytes of a request, none of which is sent."""
    parts = list[bytes]()
    connection.send = parts.append  # type: ignore[method-assign, assignment]
    try:
        connection.request("POST", target, body=body, headers=dict(headers), preload_content=False)
    finally:
        del connection.send
    return b"".join(parts)


def _send(connection: HTTPConnection, request: bytes, flag: SentFlag) -> None:
    """Sends all of a request but its last byte, then sets the flag and sends that. When the connection breaks before,
    the flag stays unset, and the server may have said why. Between the flag and the last byte the interpreter runs no
    other thread, so a kill hardly ever comes there."""
    try:
        connection.sock.sendall(memoryview(request)[:-1])
    except ConnectionError:
        return
    cells, at, value = flag
    send, last = connection.sock.send, request[-1:]
    cells[at] = value
    send(last)


def _read(connection: HTTPConnection) -> tuple[Reply, bool]:
    """The reply, and whether the connection can be used again."""
    response = connection.getresponse()
    headers = {name.lower(): text for name, text in response.headers.items()}
    try:
        body, whole = response.read(MAX_ANSWER, decode_content=True), True
        whole = not response.read(1, decode_content=True)
    except (OSError, HTTPError, client.HTTPException):
        body, whole = b"", False
    keep = whole and connection.sock is not None and response.headers.get("connection", "").lower() != "close"
    return Reply(response.status, headers, body, whole), keep


def _words(error: BaseException) -> str:
    """A text about an error, without any part of the request."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the certificate is not good: {error.verify_message}"
    reason = error.__cause__ or error
    if isinstance(error, TimeoutError):
        return "it took too long"
    text = reason.strerror if isinstance(reason, OSError) and reason.strerror else ""
    return f"{type(reason).__name__}{': ' * bool(text)}{text}"


class _Bounded(client.HTTPResponse):
    """A response whose reading ends at one time in all: a timeout of the socket bounds each read only."""

    def __init__(self, end: float, sock: socket.socket, *args: Any, **named: Any) -> None:
        super().__init__(sock, *args, **named)
        raw = self.fp.detach()
        self.fp = io.BufferedReader(_BoundedReading(raw, sock, end))


class _BoundedReading(io.RawIOBase):
    def __init__(self, raw: io.RawIOBase, sock: socket.socket, end: float) -> None:
        self._raw, self._sock, self._end = raw, sock, end

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        seconds = self._end - time.monotonic()
        if seconds <= 0:
            raise TimeoutError("timed out")
        self._sock.settimeout(seconds)
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()
