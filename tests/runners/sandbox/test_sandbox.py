"""The sandbox as a process: started, asked, scripted anew, killed."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import urllib3

from runners.sandbox.command import main
from runners.sandbox.process import Sandbox, SandboxError, running_sandbox

HEADERS = {"Authorization": "Bearer key-1", "Content-Type": "application/json"}


def post(sandbox: Sandbox, *names: str, workspace: str = "shop", **headers: str) -> int:
    """The status of a call to these recipients."""
    recipients = [{"external_user_id": name, "trigger_properties": {"event_id": f"event-{name}"}} for name in names]
    body = json.dumps({"campaign_id": "c", "recipients": recipients})
    url = f"{sandbox.workspace(workspace)}/campaigns/trigger/send"
    return urllib3.request("POST", url, body=body, headers=HEADERS | headers, retries=False, timeout=5).status


@pytest.fixture(scope="module")
def _running() -> Iterator[Sandbox]:
    with running_sandbox(keep=3) as sandbox:
        yield sandbox


@pytest.fixture
def sandbox(_running: Sandbox) -> Sandbox:
    _running.script([])
    _running.reset()
    return _running


def test_it_counts_what_it_accepted_and_what_twice(sandbox: Sandbox) -> None:
    assert [post(sandbox, "a", "b"), post(sandbox, "b", workspace="other"), post(sandbox)] == [201, 201, 400]
    summary = sandbox.summary()
    assert {name: summary[name] for name in ("calls", "by_status", "accepted", "events", "accepted_twice")} == {
        "calls": 3,
        "by_status": {"201": 2, "400": 1},
        "accepted": 3,
        "events": 2,
        "accepted_twice": 1,
    }
    assert summary["by_workspace"] == {"other": {"calls": 1, "accepted": 1}, "shop": {"calls": 2, "accepted": 2}}
    assert sandbox.accepted() == {"event-a": 1, "event-b": 2}


def test_the_last_calls_are_kept_without_the_key(sandbox: Sandbox) -> None:
    for name in "abcde":
        post(sandbox, name)
    calls = sandbox.calls()
    assert [json.loads(call["body"])["recipients"][0]["external_user_id"] for call in calls] == ["e", "d", "c"]
    assert len(sandbox.calls(1)) == 1
    assert "key-1" not in repr(calls)


def test_the_script_changes_while_it_runs(sandbox: Sandbox) -> None:
    sandbox.script([{"match": {"workspace": "shop"}, "answer": 503, "first": 1}])
    assert [post(sandbox, "a"), post(sandbox, "a", workspace="other"), post(sandbox, "a")] == [503, 201, 201]
    with pytest.raises(SandboxError, match=r"rule 0\.answer"):
        sandbox.script([{"answer": "bogus"}])
    sandbox.reset()
    assert post(sandbox, "a") == 503


def test_each_answer_has_the_limit_headers(sandbox: Sandbox) -> None:
    reply = urllib3.request("POST", f"{sandbox.url}/campaigns/trigger/send", body=b"{}", headers=HEADERS)
    assert {name for name in reply.headers if name.startswith("x-ratelimit")} == {
        "x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset"
    }  # fmt: skip


def test_people_see_a_page(sandbox: Sandbox) -> None:
    post(sandbox, "a", workspace="<b>")
    reply = urllib3.request("GET", sandbox.url)
    assert reply.headers["content-type"] == "text/html; charset=utf-8"
    assert b"<td>messages accepted</td><td>1</td>" in reply.data
    assert b"<b>" not in reply.data


@pytest.mark.parametrize(("method", "path"), [("GET", "/users/track"), ("GET", "/_sandbox/odd"), ("POST", "/odd")])
def test_other_paths_are_not_there(sandbox: Sandbox, method: str, path: str) -> None:
    assert urllib3.request(method, sandbox.url + path).status == 404


@pytest.mark.parametrize(
    ("data", "start"),
    [
        (b"nonsense\r\n\r\n", b"HTTP/1.1 400 "),
        (b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n", b"HTTP/1.1 400 "),
        (b"POST /odd HTTP/1.1\r\nexpect: 100-continue\r\ncontent-length: 2\r\n\r\n{}", b"HTTP/1.1 100 "),
        (b"GET /odd HTTP/1.1\r\n\r\nGET /odd HTTP/1.1\r\nconnection: close\r\n\r\n", b"HTTP/1.1 404 "),
    ],
)
def test_it_speaks_http(sandbox: Sandbox, data: bytes, start: bytes) -> None:
    host, port = sandbox.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=5) as connection:
        for at in range(0, len(data), max(1, len(data) // 7)):
            connection.sendall(data[at : at + max(1, len(data) // 7)])
        assert connection.recv(65536).startswith(start)


def test_a_head_without_an_end_ends_the_connection(sandbox: Sandbox) -> None:
    host, port = sandbox.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=5) as connection, suppress(ConnectionError):
        for _ in range(1000):
            connection.sendall(b"x" * 10_000)
        pytest.fail("it read 10 MB")
    assert post(sandbox, "a") == 201


def test_a_kill_loses_no_send_and_the_next_one_counts_on(tmp_path: Path) -> None:
    record = tmp_path / "new" / "record.ndjson"
    with running_sandbox([{"answer": "lose", "every": 2}], record, bodies=True) as first:
        post(first, "a")
        with pytest.raises(urllib3.exceptions.ProtocolError):
            post(first, "b")
        before = first.summary()
        first.process.kill()
        first.process.wait()
    lines = [json.loads(line) for line in record.read_text().splitlines()]
    assert [(line["status"], line["accepted"]) for line in lines] == [(201, ["event-a"]), ("lost", ["event-b"])]
    assert json.loads(lines[0]["body"])["campaign_id"] == "c"
    assert "key-1" not in record.read_text()
    with running_sandbox(record=record) as second:
        assert second.summary() == {**before, "connections": 0}
        assert post(second, "b") == 201
        assert second.summary()["accepted_twice"] == 1


def test_keys_say_whose_a_call_is() -> None:
    with running_sandbox(keys={"shop": "key-1", "other": "key-2"}, calls_per_hour=1) as sandbox:
        assert [post(sandbox, "a"), post(sandbox, "a", workspace="other"), post(sandbox, "a")] == [201, 401, 429]


def test_sigterm_ends_it_also_while_calls_hang() -> None:
    with running_sandbox([{"answer": "hang"}]) as sandbox:
        host, port = sandbox.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port))) as connection:
            connection.sendall(b"POST /webhook HTTP/1.1\r\ncontent-length: 0\r\n\r\n")
            assert sandbox.stop() == 0


@pytest.mark.parametrize(
    ("option", "text", "problem"),
    [
        ("--script", "- {answer: bogus}", "rule 0.answer"),
        ("--script", None, "No such file"),
        ("--keys", "- a", "give workspace: key"),
        ("--keys", None, "cannot be read"),
        ("--record", "no record\n", "earlier record"),
    ],
)
def test_a_wrong_file_is_told_and_nothing_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], option: str, text: Any, problem: str
) -> None:
    file = tmp_path / "file"
    if text is not None:
        file.write_text(text)
    assert main([option, str(file), "--port", "0"]) == 2
    told = capsys.readouterr().err
    assert problem in told
    assert str(file) in told


def test_a_port_that_is_taken_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main(["--port", str(port)]) == 1
    assert f"cannot listen on 127.0.0.1:{port}: " in capsys.readouterr().err


def test_a_sandbox_that_does_not_start_is_an_error() -> None:
    with pytest.raises(SandboxError, match="did not start"), running_sandbox([{"answer": 0}]):
        pass
