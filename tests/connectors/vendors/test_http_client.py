"""The HTTP client against servers that misbehave."""

from __future__ import annotations

import gzip
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from support.plain_server import says, server
from support.vendor_calls import KEY

from connectors.vendors import http_client
from connectors.vendors.http_client import MAX_ANSWER, CallError, CannotSend, HttpClient, NoAnswer, NotSent, Withdrawn
from runners.sandbox.process import Sandbox
from schemas.delivery import SentFlag, always

LONG_S = 60.0  # for what comes at once
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"
SECRET = {"Authorization": f"Bearer {KEY}"}


@pytest.fixture
def http() -> Iterator[HttpClient]:
    made = HttpClient()
    yield made
    made.close()


def trickles(head: bytes, again: bytes) -> Callable[[socket.socket], None]:
    """Says the head and then the same again for ever, until the client hangs up."""

    def behave(connection: socket.socket) -> None:
        connection.sendall(head)
        while True:
            connection.sendall(again)
            time.sleep(0.05)

    return behave


def test_a_call_that_is_withdrawn_sends_no_byte_and_the_next_one_does(http: HttpClient, sandbox: Sandbox) -> None:
    url, body = f"{sandbox.url}/webhook", b"{}"
    with pytest.raises(Withdrawn):
        http.post(url, body, {}, 20.0, begin=lambda: None)
    assert sandbox.summary()["calls"] == 0
    flag = always()
    http.post(url, body, {}, 20.0, begin=lambda: flag)
    assert sandbox.summary()["calls"] == 1
    assert flag.cells[flag.at] == flag.value


def test_what_begin_raises_comes_out_and_no_byte_goes_out(http: HttpClient, sandbox: Sandbox) -> None:
    def begin() -> SentFlag:
        raise KeyError("a bug")

    with pytest.raises(KeyError):
        http.post(f"{sandbox.url}/webhook", b"{}", {}, 20.0, begin=begin)
    assert sandbox.summary()["calls"] == 0


def test_a_reply_has_status_headers_and_body(http: HttpClient) -> None:
    with server(says(b"HTTP/1.1 201 Created\r\nX-Name: a\r\ncontent-length: 2\r\n\r\n{}")) as url:
        reply = http.post(url, b"{}", {}, LONG_S)
    assert reply[:4] == (201, {"x-name": "a", "content-length": "2"}, b"{}", True)


@pytest.mark.parametrize(
    ("head", "again"), [(b"", b"H"), (b"HTTP/1.1 200 OK\r\n", b"a: b\r\n"), (b"", b"HTTP/1.1 100 \r\n\r\n")]
)
def test_a_server_that_trickles_its_head_is_left_when_the_time_is_over(
    http: HttpClient, head: bytes, again: bytes
) -> None:
    with server(trickles(head, again)) as url, pytest.raises(NoAnswer):
        http.post(url, b"{}", {}, 0.4)


def test_a_body_that_trickles_is_cut_off_and_the_status_known(http: HttpClient) -> None:
    with server(trickles(b"HTTP/1.1 500 \r\ncontent-length: 1000000\r\n\r\n", b"x")) as url:
        reply = http.post(url, b"{}", {}, 2)
    assert (reply.status, reply.whole) == (500, False)


@pytest.mark.parametrize(
    "data",
    [b"", b"HTTP/1.1 2", b"nonsense\r\n\r\n", b"HTTP/1.1 abc OK\r\n\r\n", b"\x16\x03\x01", b"HTTP/1.1 200 OK\r\n" + b"a" * 100_000],
)  # fmt: skip
def test_what_is_no_reply_is_no_answer(http: HttpClient, data: bytes) -> None:
    with server(says(data, ends=True)) as url, pytest.raises(NoAnswer):
        http.post(url, b"{}", {}, LONG_S)


@pytest.mark.parametrize("zipped", [False, True])
def test_a_body_is_read_up_to_1_mb(http: HttpClient, zipped: bool) -> None:
    body = b"x" * (MAX_ANSWER + 1)
    encoding, sent = (b"content-encoding: gzip\r\n", gzip.compress(body)) if zipped else (b"", body)
    head = b"HTTP/1.1 200 OK\r\n%scontent-length: %d\r\n\r\n" % (encoding, len(sent))
    with server(says(head + sent)) as url:
        reply = http.post(url, b"{}", {}, LONG_S)
    assert (len(reply.body), reply.whole) == (MAX_ANSWER, False)


@pytest.mark.parametrize("head", [b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n", b"HTTP/1.0 200 OK\r\n\r\n"])
def test_a_reply_that_ends_with_its_connection_is_whole(http: HttpClient, head: bytes) -> None:
    with server(says(head + b"{}", ends=True)) as url:
        assert [http.post(url, b"{}", {}, LONG_S).body for _ in range(2)] == [b"{}", b"{}"]


def test_a_chunked_reply_is_whole(http: HttpClient) -> None:
    with server(says(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n")) as url:
        assert http.post(url, b"{}", {}, LONG_S)[2:4] == (b"{}", True)


def test_a_kept_connection_that_the_server_closed_is_not_used(http: HttpClient) -> None:
    with server(says(OK, ends=True)) as url:
        for _ in range(5):
            assert http.post(url, b"{}", {}, LONG_S).status == 200
            while any(kept.is_connected for idle in http._idle.values() for kept, _ in idle):
                time.sleep(0.01)


def test_a_connection_that_was_idle_for_long_is_not_used(
    http: HttpClient, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_client, "IDLE_S", 0.05)
    for _ in range(2):
        http.post(f"{sandbox.url}/webhook", b"{}", {}, LONG_S)
        time.sleep(0.1)
    assert sandbox.summary()["connections"] == 2


def test_a_server_that_does_not_read_is_left_when_the_time_is_over(http: HttpClient) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=1) as deaf, pytest.raises(NotSent):
        http.post(f"http://127.0.0.1:{deaf.getsockname()[1]}/", b"x" * (64 << 20), {}, 2)


def test_a_name_look_up_that_takes_long_is_not_waited_for(http: HttpClient, monkeypatch: pytest.MonkeyPatch) -> None:
    over = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: over.wait())
    with pytest.raises(NotSent, match="connecting took too long"):
        http.post("http://example.com/", b"{}", {}, 0.2)
    over.set()


@pytest.mark.parametrize(
    "url",
    ["ftp://host/", "file:///etc/passwd", "host/path", "", "http://", "http://a:b@host/", "http://host:99999/",
     "http://[bad/", "http://host/a b", "http://host/\r\nX: y", "http://höst/"],
)  # fmt: skip
def test_an_address_that_is_none_of_http_is_not_called(http: HttpClient, url: str) -> None:
    with pytest.raises(CannotSend):
        http.post(url, b"{}", SECRET, LONG_S)


def certificate(folder: Path, name: str) -> tuple[Path, Path]:
    """A certificate for a host, signed by itself, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=1))
    made = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), False).sign(key, hashes.SHA256())
    files = folder / "cert.pem", folder / "key.pem"
    files[0].write_bytes(made.public_bytes(serialization.Encoding.PEM))
    pem = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    files[1].write_bytes(key.private_bytes(serialization.Encoding.PEM, *pem))
    return files


@pytest.mark.parametrize(("name", "trusted", "good"), [
    ("localhost", True, True), ("localhost", False, False), ("elsewhere", True, False),
])  # fmt: skip
def test_nothing_is_sent_to_a_server_whose_certificate_is_not_good(
    http: HttpClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, trusted: bool, good: bool
) -> None:
    cert, key = certificate(tmp_path, name)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    if trusted:
        monkeypatch.setattr(http, "_tls", ssl.create_default_context(cafile=str(cert)))
    received = []

    def serve(listening: socket.socket) -> None:
        with suppress(OSError):
            connection = context.wrap_socket(listening.accept()[0], server_side=True)
            with connection.makefile("rb") as request:  # to its end: what is closed with unread bytes is reset
                received.append(b"".join(iter(request.readline, b"\r\n")) + request.read(2))
            connection.sendall(OK)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        threading.Thread(target=serve, args=(listening,), daemon=True).start()
        url = f"https://localhost:{listening.getsockname()[1]}/"
        if good:
            assert http.post(url, b"{}", SECRET, LONG_S).status == 200
        else:
            with pytest.raises(NotSent, match="the certificate is not good"):
                http.post(url, b"{}", SECRET, LONG_S)
    assert bool([data for data in received if data]) == good


def test_the_text_of_an_error_holds_no_key(http: HttpClient) -> None:
    expected = []
    with server(says(b"nonsense\r\n\r\n", ends=True)) as url:
        for address, headers in [(url, SECRET), ("http://127.0.0.1:1/", SECRET), (url, {"A": f"{KEY}\r\n"})]:
            with pytest.raises(CallError) as error:
                http.post(address, KEY.encode(), headers, LONG_S)
            expected.append((repr(error.value), str(error.value), error.value.__cause__))
    assert KEY not in repr(expected)
    assert all(cause is None for *_, cause in expected)


@pytest.mark.parametrize(
    "addresses",
    [["169.254.169.254"], ["::ffff:169.254.169.254"], ["fe80::1%1"], ["0.0.0.0"], ["fd00:ec2::254"], ["127.0.0.1", "169.254.1.1"]],
)  # fmt: skip
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_name_that_resolves_to_a_metadata_address_is_not_connected_to(
    http: HttpClient, monkeypatch: pytest.MonkeyPatch, scheme: str, addresses: list[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in addresses]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
        with pytest.raises(CannotSend, match=r"the address resolves to .*, which is a"):
            http.post(f"{scheme}://vendor.example:{port}/", b"{}", SECRET, LONG_S)
        listening.settimeout(0)
        with pytest.raises(BlockingIOError):
            listening.accept()


def test_a_name_is_looked_up_once_and_what_was_checked_is_connected_to(
    http: HttpClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, names = socket.getaddrinfo, []

    def once(host: str, *given: object, **named: object) -> object:
        names.append(host)
        return real("127.0.0.1" if names.count(host) == 1 else "169.254.169.254", *given, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(socket, "getaddrinfo", once)
    with server(says(OK)) as url:
        assert http.post(url.replace("127.0.0.1", "vendor.example"), b"{}", {}, LONG_S).status == 200
    assert names.count("vendor.example") == 1


def test_the_next_address_of_a_name_is_tried_when_one_does_not_answer(
    http: HttpClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = socket.getaddrinfo

    def both(host: str, port: int, *given: object, **named: object) -> object:
        if host != "vendor.example":
            return real(host, port, *given, **named)  # type: ignore[arg-type]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (one, port)) for one in ("127.0.0.9", "127.0.0.1")]

    monkeypatch.setattr(socket, "getaddrinfo", both)
    with server(says(OK)) as url:
        assert http.post(url.replace("127.0.0.1", "vendor.example"), b"{}", {}, LONG_S).status == 200
