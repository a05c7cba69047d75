"""A store that hangs, is gone, refuses or holds something else: always a JobError that says what to do, never "nothing"."""

from __future__ import annotations

import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest
from redis import Redis
from support.feature_stores import any_row
from support.servers import needed

from runners.local.emulators import free_port
from runners.local.redis_server import RedisServer, redis_server
from schemas.features.stamps import Stamp
from schemas.problems import JobError
from stores.features.bigtable_store import BigtableStore
from stores.features.protocol import FeatureStore
from stores.features.redis_store import RedisStore

G = "g@1"
CALLS: list[Callable[[FeatureStore], object]] = [
    lambda store: store.read([(G, "a")]),
    lambda store: store.rows(G, 0, ["a"]),
    lambda store: store.write(G, 0, {"a": any_row(0, 1)}),
    lambda store: store.positions(G),
    lambda store: store.advance(G, 0, Stamp(0, 1)),
    lambda store: list(store.scan(G)),
    lambda store: store.delete(G, "a"),
]


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A port that accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as server:
        yield server.getsockname()[1]


@pytest.mark.parametrize("call", CALLS)
def test_redis_that_hangs_is_an_error(silent_port: int, call: Callable[[FeatureStore], object]) -> None:
    store = RedisStore(f"redis://:secret@127.0.0.1:{silent_port}/0", deadline_s=0.1)
    with pytest.raises(JobError, match=r"does not answer.*See whether the server runs") as raised:
        call(store)
    assert "secret" not in str(raised.value)
    store.close()


@pytest.mark.parametrize("call", CALLS)
def test_bigtable_that_hangs_is_an_error(
    silent_port: int, call: Callable[[FeatureStore], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BIGTABLE_EMULATOR_HOST", f"127.0.0.1:{silent_port}")
    store = BigtableStore("project-1", "instance-1", "t", deadline_s=0.2)
    with pytest.raises(JobError, match=r"does not answer.*See whether the instance runs"):
        call(store)
    store.close()


def test_a_server_that_is_not_there_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BIGTABLE_EMULATOR_HOST", f"127.0.0.1:{free_port()}")
    with pytest.raises(JobError, match="does not answer"):
        BigtableStore("project-1", "instance-1", "t", deadline_s=0.2).read([(G, "a")])
    with pytest.raises(JobError, match="does not answer"):
        RedisStore(f"redis://127.0.0.1:{free_port()}/0").read([(G, "a")])


def test_redis_that_stops_while_it_is_used_answers_again_when_it_goes_on() -> None:
    with needed(redis_server()) as server:
        store = RedisStore(server.uri, deadline_s=0.2)
        store.write(G, 0, {"a": any_row(0, 1)})
        server.process.send_signal(signal.SIGSTOP)
        with pytest.raises(JobError, match="does not answer"):
            store.read([(G, "a")])
        server.process.send_signal(signal.SIGCONT)
        assert _patiently(lambda: store.read([(G, "a")])) == [[any_row(0, 1)]]
        store.close()


def test_redis_that_was_started_again_is_used_without_an_error() -> None:
    port = free_port()
    with needed(redis_server(port)) as server:
        store = RedisStore(server.uri)
        store.write(G, 0, {"a": any_row(0, 1)})
    with needed(redis_server(port)):
        assert store.read([(G, "a")]) == [[]]
        assert store.write(G, 0, {"a": any_row(0, 1)}) == 1  # the script is not there any more
    store.close()


def test_a_missing_password_is_an_error_that_says_so() -> None:
    with needed(redis_server(password="right")) as server:
        for uri in (server.uri, server.uri.replace("//", "//:wrong@")):
            with pytest.raises(JobError, match=r"refused.*its password"):
                RedisStore(uri).read([(G, "a")])
        assert RedisStore(server.uri.replace("//", "//:right@")).read([(G, "a")]) == [[]]


def test_a_redis_without_memory_refuses(redis: RedisServer) -> None:
    admin: Any = Redis.from_url(redis.uri)
    admin.config_set("maxmemory", 1)
    try:
        with pytest.raises(JobError, match=r"refused.*memory left"):
            RedisStore(redis.uri).write(G, 0, {"a": any_row(0, 1)})
    finally:
        admin.config_set("maxmemory", 0)


def test_keys_of_another_program_are_not_read_as_rows(redis: RedisServer) -> None:
    admin: Any = Redis.from_url(redis.uri)
    key = b"features\0other@1\0\0a\0\0"
    admin.set(key, b"x")
    with pytest.raises(JobError, match="WRONGTYPE"):
        RedisStore(redis.uri).read([("other@1", "a")])
    admin.delete(key)
    admin.hset(key, b"\0\0", b"x")
    with pytest.raises(JobError, match="refused"):
        RedisStore(redis.uri).write("other@1", 0, {"a": any_row(0, 1)})


def test_rows_expire_when_they_are_not_written_any_more(redis: RedisServer) -> None:
    store = RedisStore(redis.uri, expire_s=1_000)
    store.write("expires@1", 0, {"a": any_row(0, 1)})
    store.advance("expires@1", 0, Stamp(0, 1))
    admin: Any = Redis.from_url(redis.uri)
    assert 0 < admin.ttl(b"features\0expires@1\0\0a\0\0") <= 1_000
    assert admin.ttl(b"features-positions\0expires@1\0\0") == -1


def test_a_table_that_is_not_there_is_an_error_with_the_command_that_makes_it(bigtable_uri: str) -> None:
    store = BigtableStore("project-1", "instance-1", "missing")
    for call in CALLS:
        with pytest.raises(JobError, match="cbt createtable missing families=f:maxversions=1"):
            call(store)
    store.close()


def test_a_position_that_bigtable_cannot_hold_is_refused(bigtable_uri: str) -> None:
    store = BigtableStore("project-1", "instance-1", "features")
    for position in (-1, 2**63 // 10**6):
        with pytest.raises(JobError, match="cannot hold position"):
            store.write("far@1", 0, {"a": any_row(0, position)})
    store.close()


def test_the_cells_of_earlier_epochs_go_with_the_next_write(bigtable_uri: str) -> None:
    """Of an erasure nothing stays: the row of the earlier epoch is removed with the same call."""
    store = BigtableStore("project-1", "instance-1", "features")
    for stamp in ((0, 5), (1, 5), (4, 0)):
        store.write("epochs@1", 0, {"a": any_row(*stamp)})
    (row,) = store._table.read_rows(_query("epochs@1", "a"))
    assert [cell.value for cell in row.cells] == [any_row(4, 0)]
    store.close()


def _query(group: str, entity: str) -> object:
    from google.cloud.bigtable.data import ReadRowsQuery

    from stores.features.keys import entity_prefix

    return ReadRowsQuery(row_keys=[entity_prefix(group, entity)])


def _patiently(call: Callable[[], object]) -> object:
    for _ in range(50):
        with suppress(JobError):
            return call()
    return call()
