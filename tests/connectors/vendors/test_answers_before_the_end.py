"""An answer that comes before the request was complete says nothing of a request that never arrived."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Thread

import pytest
from support.vendor_calls import any_account

from connectors.vendors.answers import answer_of
from connectors.vendors.http_client import HttpClient, NotSent, Reply


@contextmanager
def hasty(status: int) -> Iterator[str]:
    """A server that answers after the first bytes of a request and closes."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            with listening.accept()[0] as connection:
                connection.recv(2_000)
                connection.sendall(f"HTTP/1.1 {status} \r\ncontent-length: 0\r\n\r\n".encode())

        thread = Thread(target=serve, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        thread.join(60)


@pytest.mark.parametrize("status", [200, 401, 503])
def test_a_request_that_never_left_whole_has_no_answer_that_counts_as_one(status: int) -> None:
    http = HttpClient()
    with hasty(status) as url:
        try:
            reply = http.post(url, b"x" * (64 << 20), {}, 60.0)
        except NotSent:
            return  # the reset came before the answer could be read
    assert not reply.to_all


@pytest.mark.parametrize(("status", "kind"), [(200, "failed"), (503, "failed"), (401, "blocked"), (429, "slow_down")])
def test_before_the_request_is_complete_only_an_answer_that_sends_nothing_counts(status: int, kind: str) -> None:
    reply = Reply(status, {}, b"", True, to_all=False)
    assert answer_of("braze", reply, any_account("http://localhost"), 0.0).kind == kind
