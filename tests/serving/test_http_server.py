"""The HTTP server: what is plainly right is answered, anything else is refused, and nothing ends the server."""

from __future__ import annotations

import asyncio
import http.client
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.http_server import HttpConnection, Limits, Request, Response

LIMITS = Limits(body=1_000, request_s=0.3, idle_s=5.0)


def echo(request: Request) -> Response:
    """Answers with what came."""
    if request.path == "/bug":
        raise KeyError("a bug")
    return Response(200, orjson.dumps([request.method, request.path, request.body.decode("latin-1")]))


async def later(request: Request) -> Response:
    """Answers after a turn of the loop."""
    await asyncio.sleep(0.005)
    return echo(request)


class Server:
    """A server in a thread; `slow` answers later."""

    def __init__(self, slow: bool) -> None:
        self.opened = set[HttpConnection]()
        self._answer = later if slow else echo
        self._loop = asyncio.new_event_loop()
        ready = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(ready,))
        self._thread.start()
        ready.wait()

    def _run(self, ready: threading.Event) -> None:
        async def main() -> None:
            self._stop = asyncio.Event()
            server = await asyncio.get_running_loop().create_server(
                lambda: HttpConnection(self._answer, LIMITS, self.opened), "127.0.0.1", 0
            )
            self.port = server.sockets[0].getsockname()[1]
            ready.set()
            await self._stop.wait()
            server.close()

        self._loop.run_until_complete(main())

    def stop(self) -> None:
        """Ends it."""
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()


@pytest.fixture(scope="module", params=[False, True], ids=["at once", "later"])
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    started = Server(request.param)
    yield started
    started.stop()


@contextmanager
def connected(server: Server) -> Iterator[http.client.HTTPConnection]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    yield connection
    connection.close()


def exchange(server: Server, data: bytes, end: bool = True) -> bytes:
    """What the server sends for some bytes until it closes; `end` closes our side after them."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
        connection.sendall(data)
        if end:
            connection.shutdown(socket.SHUT_WR)
        received = b""
        try:
            while part := connection.recv(65_536):
                received += part
        except ConnectionResetError:
            pass
        return received


def test_requests_follow_each_other_on_a_connection(server: Server) -> None:
    with connected(server) as connection:
        for number in range(5):
            connection.request("POST", f"/a?{number}", body=b"x" * number)
            response = connection.getresponse()
            assert (response.status, orjson.loads(response.read())) == (200, ["POST", f"/a?{number}", "x" * number])
    with connected(server) as connection:
        connection.request("HEAD", "/a")
        assert connection.getresponse().read() == b""


def test_requests_that_come_at_once_are_answered_in_order(server: Server) -> None:
    one = b"POST /%d HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nab"
    last = b"GET /end HTTP/1.1\r\nConnection: close\r\n\r\n"
    received = exchange(server, b"".join(one % number for number in range(20)) + last, end=False)
    assert [part.split(b'"')[3] for part in received.split(b"\r\n\r\n")[1:]] == [
        *(b"/%d" % n for n in range(20)),
        b"/end",
    ]


def test_a_request_may_come_byte_by_byte(server: Server) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
        for byte in b"POST /slow HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc":
            connection.sendall(bytes([byte]))
        assert connection.recv(1_000).startswith(b"HTTP/1.1 200 OK\r\n")


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"\r\n\r\n", 400),
        (b"GET / HTTP/2\r\n\r\n", 400),
        (b"get / HTTP/1.1\r\n\r\n", 400),
        (b"GET  / HTTP/1.1\r\n\r\n", 400),
        (b"GET http://x/ HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nA : b\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nA: b\r\n folded\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nA: b\nC: d\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: +1\r\n\r\na", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\na", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: 1_0\r\n\r\n0123456789", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: 1, 1\r\n\r\na", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: 1001\r\n\r\n", 413),
        (b"POST / HTTP/1.1\r\nContent-Length: 99999999999999999999999\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n", 501),
        (b"POST / HTTP/1.1\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 501),
        (b"GET / HTTP/1.1\r\nX: " + b"y" * 20_000, 431),
        (b"GET /" + b"y" * 3_000 + b" HTTP/1.1\r\n\r\n", 400),
    ],
)
def test_what_is_not_plainly_right_is_refused_and_the_connection_closed(
    server: Server, data: bytes, status: int
) -> None:
    received = exchange(server, data + b"GET /smuggled HTTP/1.1\r\n\r\n", end=False)
    assert received.startswith(b"HTTP/1.1 %d " % status)
    assert received.count(b"HTTP/1.1 ") == 1
    assert b"Connection: close\r\n" in received
    assert orjson.loads(received.partition(b"\r\n\r\n")[2])["error"]


def test_a_bug_is_a_500_and_the_server_goes_on(server: Server) -> None:
    with connected(server) as connection:
        for path, status in (("/bug", 500), ("/well", 200)):
            connection.request("GET", path)
            response = connection.getresponse()
            response.read()
            assert response.status == status


def test_a_client_that_waits_to_be_told_to_continue_is_told_once(server: Server) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
        connection.sendall(b"POST / HTTP/1.1\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n")
        assert connection.recv(1_000) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(b"a")
        connection.sendall(b"b")
        assert connection.recv(1_000).startswith(b"HTTP/1.1 200 OK\r\n")


def test_a_request_that_never_ends_is_cut_off(server: Server) -> None:
    assert exchange(server, b"POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\nab", end=False) == b""


def test_http_1_0_closes_unless_it_asks_to_stay(server: Server) -> None:
    assert exchange(server, b"GET / HTTP/1.0\r\n\r\n", end=False).startswith(b"HTTP/1.1 200 OK\r\n")
    both = b"GET /1 HTTP/1.0\r\nConnection: keep-alive\r\n\r\nGET /2 HTTP/1.0\r\n\r\n"
    assert exchange(server, both, end=False).count(b"200 OK") == 2


PIECES = st.sampled_from([b"GET ", b"POST ", b"/", b" HTTP/1.1", b"\r\n", b"\r\n\r\n", b"Content-Length: ", b"5", b"\0", b"a", b": ", b"\xff", b"Transfer-Encoding: chunked", b"Connection: close", b"Expect: 100-continue"])  # fmt: skip


@given(data=st.lists(PIECES | st.binary(max_size=8), max_size=25).map(b"".join))
@settings(max_examples=150)
def test_no_bytes_end_the_server(server: Server, data: bytes) -> None:
    exchange(server, data)
    with connected(server) as connection:
        connection.request("GET", "/alive")
        assert connection.getresponse().read() == b'["GET","/alive",""]'


def test_connections_that_end_are_forgotten(server: Server) -> None:
    with connected(server) as connection:
        connection.request("GET", "/")
        connection.getresponse().read()
        assert server.opened
    for _ in range(500):
        if not server.opened:
            break
        threading.Event().wait(0.01)
    assert not server.opened
