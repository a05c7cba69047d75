"""What every feature store does: the same tests for LMDB, a real Redis, and Bigtable's emulator."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.feature_stores import any_row, start_writer

from schemas.features.stamps import Stamp, stamp_of
from stores.features.open import open_store
from stores.features.protocol import FeatureStore, RowKey

ODD_ENTITIES = [
    "",
    "\0",
    "\0\0",
    "a\0",
    "a",
    "a\0\0b",
    "a\xff",
    "ä|é ☕",
    "\ud800",
    "*?[x]",
    "h1\x1fs2",
    "x" * 380,
    "x" * 381,
    "x" * 4_000,
    "é" * 200 + "1",
    "é" * 200 + "2",
    "\0" * 300,
    "a" * 315 + "\0" * 60,
]


@pytest.fixture(params=["lmdb", "redis", "bigtable"])
def uri(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The URI of a store; tests share Redis and Bigtable, each has groups of its own."""
    if request.param == "lmdb":
        return f"lmdb:{tmp_path_factory.mktemp('features')}"
    if request.param == "redis":
        return str(request.getfixturevalue("redis").uri)
    return str(request.getfixturevalue("bigtable_uri"))


@pytest.fixture
def store(uri: str) -> Iterator[FeatureStore]:
    opened = open_store(uri)
    yield opened
    opened.close()


@pytest.fixture
def group() -> str:
    return f"g{uuid.uuid4().hex}@1"


def test_a_row_that_was_written_is_read_and_others_are_none(store: FeatureStore, group: str) -> None:
    assert store.write(group, 3, {"a": any_row(0, 1), "b": any_row(0, 2)}) == 2
    assert store.rows(group, 3, ["b", "x", "a"]) == [any_row(0, 2), None, any_row(0, 1)]
    assert store.rows(group, 4, ["a"]) == [None]
    assert store.rows(group, 3, []) == []
    assert store.write(group, 3, {}) == 0


def test_the_larger_stamp_stays_whichever_comes_last(store: FeatureStore, group: str) -> None:
    for stamp, written in [((0, 5), 1), ((0, 4), 0), ((1, 1), 1), ((0, 99), 0), ((1, 0), 0), ((1, 2), 1)]:
        assert store.write(group, 0, {"a": any_row(*stamp)}) == written
    assert store.rows(group, 0, ["a"]) == [any_row(1, 2)]
    assert store.read([(group, "a")]) == [[any_row(1, 2)]]


def test_a_row_of_an_equal_stamp_is_not_written_again(store: FeatureStore, group: str) -> None:
    store.write(group, 0, {"a": any_row(2, 5, b"first")})
    assert store.write(group, 0, {"a": any_row(2, 5, b"second"), "b": any_row(0, 0)}) == 1
    assert store.rows(group, 0, ["a", "b"]) == [any_row(2, 5, b"first"), any_row(0, 0)]


@pytest.mark.parametrize("stamp", [(0, 2**31), (0, 2**32 + 1), (0, 2**53 - 1), (2**32 - 1, 0), (2**31, 2**40)])
def test_stamps_are_compared_exactly_over_their_whole_range(
    store: FeatureStore, group: str, stamp: tuple[int, int]
) -> None:
    epoch, position = stamp
    if position >= 2**63 // 10**6:
        position = 2**63 // 10**6 - 1  # the largest that Bigtable holds
    before = (epoch, position - 1) if position else (epoch - 1, 2**40)
    store.write(group, 0, {"a": any_row(*before)})
    assert store.write(group, 0, {"a": any_row(epoch, position)}) == 1
    assert store.write(group, 0, {"a": any_row(*before)}) == 0
    assert store.rows(group, 0, ["a"]) == [any_row(epoch, position)]


def test_reading_gives_the_rows_of_all_partitions_in_their_order(store: FeatureStore, group: str) -> None:
    for partition in (65_535, 0, 256, 7):
        store.write(group, partition, {"a": any_row(0, partition), "b": any_row(1, partition)})
    rows = [any_row(0, partition) for partition in (0, 7, 256, 65_535)]
    asked = [(group, "a"), (group, "nobody"), ("nothing@1", "a"), (group, "a")]
    assert store.read(asked) == [rows, [], [], rows]
    assert store.read([]) == []


def test_an_entity_may_have_rows_of_partitions_up_to_65535(store: FeatureStore, group: str) -> None:
    partitions = sorted({*range(0, 65_536, 251), 65_535})
    for partition in partitions:
        store.write(group, partition, {"a": any_row(0, 1 + partition)})
    assert store.read([(group, "a")]) == [[any_row(0, 1 + partition) for partition in partitions]]
    assert store.delete(group, "a") == len(partitions)


def test_positions_only_move_forward(store: FeatureStore, group: str) -> None:
    assert store.positions(group) == {}
    for partition, stamp in [(0, (0, 7)), (65_535, (0, 0)), (0, (0, 6)), (0, (1, 2)), (0, (0, 9))]:
        store.advance(group, partition, Stamp(*stamp))
    assert store.positions(group) == {0: Stamp(1, 2), 65_535: Stamp(0, 0)}
    assert store.positions(group[:-1]) == {}
    assert list(store.scan(group)) == []


def test_a_scan_gives_every_row_of_its_group_once(store: FeatureStore, group: str) -> None:
    expected = dict[RowKey, bytes]()
    for partition in (0, 2):
        rows = {f"e{number}": any_row(0, number) for number in range(1_100)}
        store.write(group, partition, rows)
        store.write(group + "1", partition, rows)  # a group whose name goes on
        expected |= {RowKey(group, entity, partition): row for entity, row in rows.items()}
    scanned = list(store.scan(group))
    assert len(scanned) == len(expected)
    assert dict(scanned) == expected


def test_deleting_removes_all_rows_of_one_entity(store: FeatureStore, group: str) -> None:
    for partition in (0, 1):
        store.write(group, partition, {"a": any_row(0, 1), "ab": any_row(0, 1), "a\0": any_row(0, 1)})
    assert store.delete(group, "a") == 2
    assert store.delete(group, "a") == 0
    assert [len(rows) for rows in store.read([(group, "a"), (group, "ab"), (group, "a\0")])] == [0, 2, 2]
    assert store.write(group, 0, {"a": any_row(0, 1)}) == 1


def test_odd_and_very_long_entities_are_apart(store: FeatureStore, group: str) -> None:
    rows = {entity: any_row(0, 1 + place) for place, entity in enumerate(ODD_ENTITIES)}
    assert store.write(group, 9, rows) == len(rows)
    assert store.rows(group, 9, ODD_ENTITIES) == list(rows.values())
    assert store.read([(group, entity) for entity in ODD_ENTITIES]) == [[row] for row in rows.values()]
    scanned = {key.entity: row for key, row in store.scan(group)}
    assert sorted(scanned.values()) == sorted(rows.values())
    assert store.rows(group, 9, list(scanned)) == list(scanned.values())  # a shortened name has the same key
    assert [store.delete(group, entity) for entity in ODD_ENTITIES] == [1] * len(ODD_ENTITIES)


STAMPS = st.tuples(st.integers(0, 2), st.integers(0, 3))
WRITES = st.tuples(
    st.sampled_from("ab"), st.integers(0, 1), st.dictionaries(st.sampled_from("xyz"), STAMPS, min_size=1)
)


DELETES = st.tuples(st.just("delete"), st.sampled_from("xyz"))


@given(steps=st.lists(WRITES | DELETES, max_size=12))
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_writers_in_any_order_leave_what_a_plain_dictionary_says(uri: str, steps: list[tuple[Any, ...]]) -> None:
    group = f"g{uuid.uuid4().hex}@1"
    stores = {"a": open_store(uri), "b": open_store(uri)}
    plain: dict[tuple[str, int], tuple[int, int]] = {}
    for step in steps:
        if step[0] == "delete":
            present = [key for key in plain if key[0] == step[1]]
            assert stores["a"].delete(group, step[1]) == len(present)
            plain = {key: stamp for key, stamp in plain.items() if key not in present}
            continue
        writer, partition, stamps = step
        larger = {e: stamp for e, stamp in stamps.items() if stamp > plain.get((e, partition), (-1, -1))}
        assert stores[writer].write(group, partition, {e: any_row(*stamp) for e, stamp in stamps.items()}) == len(
            larger
        )
        plain |= {(e, partition): stamp for e, stamp in larger.items()}
    read = stores["b"].read([(group, entity) for entity in "xyz"])
    assert read == [[any_row(*plain[e, p]) for p in (0, 1) if (e, p) in plain] for e in "xyz"]
    assert {(key.entity, key.partition): row for key, row in stores["a"].scan(group)} == {
        key: any_row(*stamp) for key, stamp in plain.items()
    }
    for store in stores.values():
        store.close()


def test_a_process_reads_while_another_writes(uri: str, store: FeatureStore, group: str) -> None:
    """Every reader sees what the writer has reported, and no row goes back."""
    last = 0
    writer = start_writer(uri, group, 0, 50, 40)
    assert writer.stdout is not None
    for line in writer.stdout:
        positions = [stamp_of(row).position for (row,) in store.read([(group, f"e{n}") for n in range(50)])]
        assert min(positions) >= max(int(line), last)
        last = min(positions)
    assert writer.wait() == 0
    assert last == 40
    assert store.positions(group) == {0: Stamp(0, 40)}


def test_two_processes_may_write_the_same_rows(uri: str, store: FeatureStore, group: str) -> None:
    writers = [start_writer(uri, group, 0, 20, end) for end in (30, 60)]
    for writer in writers:
        writer.communicate()
    assert [writer.returncode for writer in writers] == [0, 0]
    assert store.read([(group, f"e{n}") for n in range(20)]) == [[any_row(0, 60)]] * 20


def test_what_a_writer_reported_survives_its_kill(uri: str, store: FeatureStore, group: str) -> None:
    reported = 0
    for kill in range(3, 12, 4):
        writer = start_writer(uri, group, 0, 200, 1_000_000)
        assert writer.stdout is not None
        for count, line in enumerate(writer.stdout):
            reported = max(reported, int(line))
            if count > kill:
                break
        writer.kill()
        writer.wait()
        rows = store.read([(group, f"e{n}") for n in range(200)])
        assert min(stamp_of(row).position for (row,) in rows) >= reported
    assert store.write(group, 0, {"e0": any_row(9, 0)}) == 1  # a killed writer locks nobody out


def test_a_row_without_a_stamp_is_refused_before_anything_is_written(store: FeatureStore, group: str) -> None:
    with pytest.raises(ValueError, match="only 3 bytes"):
        store.write(group, 0, {"a": any_row(0, 1), "b": b"abc"})
    assert store.rows(group, 0, ["a"]) == [None]


def test_a_large_row_is_kept_whole(store: FeatureStore, group: str) -> None:
    row = any_row(0, 1, bytes(range(256)) * 8_000)
    assert store.write(group, 0, {"a": row}) == 1
    assert store.read([(group, "a")]) == [[row]]
