"""The feature server as a command: over HTTP and gRPC, one worker or several, and how it ends."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import msgspec
import orjson
import pytest
from support.feature_server import row_at, running_server, write_declarations
from support.servers import needed

from runners.cli.main import main
from runners.local.redis_server import redis_server
from serving.features.server import load_columns
from serving.features.worker import GRPC_METHOD, load_layouts
from stores.features.open import open_store

BODY = {"groups": {"spend": {"entities": ["h1", "x"], "features": ["lines_7d"]}}}


@pytest.fixture(scope="module")
def declared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_declarations(tmp_path_factory.mktemp("declared") / "f")


@pytest.fixture(scope="module")
def store(declared: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    uri = f"lmdb:{tmp_path_factory.mktemp('store')}"
    layouts, store = load_layouts(str(declared), load_columns(None)), open_store(uri)
    hour_ago = int(time.time() * 1000) - 3_600_000
    store.write("spend@1", 0, {"h1": row_at(layouts["spend@1"], [hour_ago])})
    store.close()
    return uri


def ask(url: str, path: str, body: Any = None) -> tuple[int, bytes]:
    """The status and the body of a call on a connection of its own."""
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=10)
    connection.request("GET" if body is None else "POST", path, None if body is None else orjson.dumps(body))
    response = connection.getresponse()
    answer = response.status, response.read()
    connection.close()
    return answer


def until(holds: Callable[[], bool]) -> None:
    """Waits for something that must come."""
    while not holds():
        time.sleep(0.02)


@pytest.fixture(params=["1", "2"], ids=["one worker", "two workers"], scope="module")
def addresses(request: pytest.FixtureRequest, store: str, declared: Path) -> Iterator[tuple[str, str]]:
    with running_server(store, declared, "--workers", request.param, "--grpc-port", "0") as (_, words):
        yield words[2], words[4].removeprefix("grpc://")


def test_it_answers_over_http(addresses: tuple[str, str]) -> None:
    status, body = ask(addresses[0], "/v1/features", BODY)
    assert (status, orjson.loads(body)["groups"]["spend"]["values"]) == (200, [[1, 0]])
    feast = {"features": ["spend:lines_7d"], "entities": {"household_id": ["h1"]}}
    status, body = ask(addresses[0], "/get-online-features", feast)
    assert (status, orjson.loads(body)["results"][1]["values"]) == (200, [1])
    assert ask(addresses[0], "/health")[0] == 200
    assert ask(addresses[0], "/v1/features", {"groups": {"spent": {"entities": []}}})[0] == 400
    assert ask(addresses[0], "/v1/features", {"groups": {}, "much": "x" * (1 << 20)})[0] == 413


def test_it_answers_over_grpc(addresses: tuple[str, str]) -> None:
    with grpc.insecure_channel(addresses[1]) as channel:
        read = channel.unary_unary(GRPC_METHOD, msgspec.msgpack.encode, msgspec.msgpack.decode)
        answer = read(BODY, timeout=10)
        assert answer["groups"]["spend"]["values"] == [[1, 0]]
        assert answer["groups"]["spend"]["qualities"] == ["fd"]
        with pytest.raises(grpc.RpcError) as raised:
            read({"groups": {"spent": {"entities": []}}}, timeout=10)
        assert raised.value.code() == grpc.StatusCode.INVALID_ARGUMENT
        assert "a group is one of peaks@1, sales@2, spend@1" in raised.value.details()


def test_its_metrics_are_those_of_all_workers(addresses: tuple[str, str]) -> None:
    def counted() -> float:
        lines = ask(addresses[0], "/metrics")[1].decode().splitlines()
        return sum(
            float(line.split()[-1])
            for line in lines
            if line.startswith('features_requests_total{call="compact",outcome="ok"}')
        )

    before = counted()
    for _ in range(8):  # each on a connection of its own, so that any worker may answer
        assert ask(addresses[0], "/v1/features", BODY)[0] == 200
    assert counted() == before + 8


def test_a_store_that_hangs_is_an_error_within_the_deadline_and_never_a_default(declared: Path) -> None:
    with needed(redis_server()) as redis:
        store = open_store(redis.uri)
        layouts, hour_ago = load_layouts(str(declared), load_columns(None)), int(time.time() * 1000) - 3_600_000
        store.write("spend@1", 0, {"h1": row_at(layouts["spend@1"], [hour_ago])})
        store.close()
        with running_server(redis.uri, declared, "--deadline", "0.3") as (_, words):
            assert ask(words[2], "/v1/features", BODY)[0] == 200
            redis.process.send_signal(signal.SIGSTOP)
            status, body = ask(words[2], "/v1/features", BODY)
            assert (status, orjson.loads(body)["error"]) == (504, "the feature store did not answer within 300 ms")
            assert ask(words[2], "/health")[0] == 200
            redis.process.send_signal(signal.SIGCONT)
            until(lambda: ask(words[2], "/v1/features", BODY)[0] == 200)
            redis.process.kill()
            redis.process.wait()
            status, body = ask(words[2], "/v1/features", BODY)
            assert status == 503
            assert orjson.loads(body)["groups"]["spend"]["qualities"] == ["ee"]


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_signal_ends_it_with_0_and_frees_the_port(store: str, declared: Path, workers: str) -> None:
    with running_server(store, declared, "--workers", workers) as (process, words):
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
        with pytest.raises(ConnectionError):
            ask(words[2], "/health")


def test_a_worker_that_is_killed_is_started_again(store: str, declared: Path) -> None:
    with running_server(store, declared, "--workers", "2") as (process, words):
        time.sleep(5.5)  # a worker that ends sooner ends the server
        first = children(process.pid)
        os.kill(first[0], signal.SIGKILL)
        until(lambda: len(children(process.pid)) == 2 and first[0] not in children(process.pid))
        assert ask(words[2], "/v1/features", BODY)[0] == 200


def test_workers_end_with_the_process_that_started_them(store: str, declared: Path) -> None:
    with running_server(store, declared, "--workers", "2") as (process, _):
        workers = children(process.pid)
        assert len(workers) == 2
        process.kill()
        process.wait()
        until(lambda: not any(is_running(worker) for worker in workers))


def children(parent: int) -> list[int]:
    """The processes that a process started and that run."""
    found = subprocess.run(
        ["ps", "-o", "pid=,stat=", "--ppid", str(parent)], capture_output=True, text=True, check=False
    )
    return [int(line.split()[0]) for line in found.stdout.splitlines() if "Z" not in line.split()[1]]


def is_running(process: int) -> bool:
    """Whether a process runs."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(declared: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """`campaigns features` with these words: the exit code, what it printed, and its errors."""

    def run(*words: str, features: Path = declared) -> tuple[int, str, str]:
        code = main(["features", *words, "--features", str(features)])
        return code, *capsys.readouterr()

    return run


def test_a_port_that_is_taken_is_told(store: str, run: Run) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        code, printed, told = run("serve", "--store", store, "--port", port)
        assert (code, printed) == (1, "")
        assert f"cannot listen on 127.0.0.1:{port}: Address already in use" in told
        assert "Choose another port" in told
        assert run("serve", "--store", store, "--port", "0", "--grpc-port", port)[0] == 1


def test_mistakes_in_arguments_and_declarations_are_told_before_it_listens(tmp_path: Path, run: Run) -> None:
    declaration = (
        "from schemas.features.declarations import *\nG = FeatureGroup('g', 1, 'order_line', ('nobody',), (), 'me')\n"
    )
    (tmp_path / "wrong.py").write_text(declaration)
    code, _, told = run("serve", "--store", "lmdb:x", features=tmp_path)
    assert (code, "nobody" in told) == (2, True)
    wrong = ("--workers", "0", "--deadline", "0", "--max-body", "1", "--port", "70000")
    code, _, told = run("serve", "h1", "--store", "lmdb:x", *wrong)
    assert (code, told.startswith("5 mistakes in the input")) == (2, True)
    code, _, told = run("serve", "--store", "mysql:x")
    assert (code, "lmdb:DIR" in told) == (2, True)


def test_get_shows_the_features_of_an_entity(store: str, run: Run) -> None:
    code, printed, _ = run("get", "household_id=h1", "--store", store, "--json")
    assert code == 0
    assert orjson.loads(printed)["spend@1"]["features"]["lines_7d"] == [1, "fresh"]
    _, printed, _ = run("get", "store_id=s1", "product_id=2", "--store", store)
    assert printed.startswith("sales@2: no event is known\n  sold_7d                0  default\n")
    code, _, told = run("get", "store_id=s1", "--store", store)
    assert (code, "no group has this key" in told) == (2, True)
    code, _, told = run("get", "h1", "--store", store)
    assert (code, "write COLUMN=VALUE" in told) == (2, True)
    code, _, told = run("get", "household_id=h1", "household_id=h2", "--store", store)
    assert (code, "one entity at a time" in told) == (2, True)
    assert run("get", "--store", store)[0] == 2


def test_get_tells_a_store_that_is_not_there_from_an_entity_that_is_not_known(tmp_path: Path, run: Run) -> None:
    _, printed, _ = run("get", "household_id=h1", "--store", f"lmdb:{tmp_path}/no")
    assert "there is no feature store here" in printed
    assert "  lines_7d            None  error\n" in printed


def test_erase_removes_an_entity_and_says_what_was_done(declared: Path, tmp_path: Path, run: Run) -> None:
    layouts, store = load_layouts(str(declared), load_columns(None)), open_store(f"lmdb:{tmp_path}")
    store.write("spend@1", 0, {"h1": row_at(layouts["spend@1"], [int(time.time() * 1000)])})
    store.close()
    code, printed, _ = run("erase", "household_id=h1", "--store", f"lmdb:{tmp_path}")
    assert (code, printed) == (0, "spend@1: 1 rows of 1 entities erased\nsales@2: not kept by household_id\n")
    assert "spend@1: no event is known" in run("get", "household_id=h1", "--store", f"lmdb:{tmp_path}")[1]
