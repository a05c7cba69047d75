from __future__ import annotations

import pickle

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from transforms.columnar.hashing import hash64_rows
from transforms.columnar.id_index import IdIndex, joined_key

IDS = st.text("ab", max_size=4) | st.text(st.characters(exclude_categories=["Cs"]), max_size=6) | st.none()
LISTS = st.lists(IDS, max_size=60)
FIELDS = st.text("a1:, 0é", max_size=6)


def three_hashes(column: pa.Array) -> npt.NDArray[np.uint64]:
    """A hash so bad that most different ids share theirs."""
    return hash64_rows(column) % np.uint64(3) << np.uint64(62)


def first_places(ids: list[str | None], column: list[str | None]) -> list[int]:
    return [-1 if one is None or one not in ids else ids.index(one) for one in column]


@given(LISTS, LISTS, st.sampled_from([pa.string(), pa.large_string()]), st.integers(0, 3))
def test_every_id_is_found_at_its_first_place(
    ids: list[str | None], others: list[str | None], kind: pa.DataType, skipped: int
) -> None:
    column = pa.array(others + ids, kind).slice(skipped)
    found = IdIndex(pa.array(ids, pa.string())).find(column)
    assert found.dtype == np.int64
    assert found.tolist() == first_places(ids, column.to_pylist())


@given(LISTS, LISTS)
def test_ids_of_one_hash_are_told_apart_by_their_texts(ids: list[str | None], others: list[str | None]) -> None:
    index = IdIndex(pa.array(ids, pa.string()), hashed=three_hashes)
    column = others + ids
    assert index.find(pa.array(column, pa.string())).tolist() == first_places(ids, column)


@given(LISTS, LISTS)
def test_contained_is_what_is_found(ids: list[str | None], column: list[str | None]) -> None:
    found = IdIndex(pa.array(ids, pa.string())).contains(pa.array(column, pa.string()))
    assert found.tolist() == [one is not None and one in ids for one in column]


def test_a_slice_of_a_list_counts_from_its_own_start() -> None:
    index = IdIndex(pa.array(["x", "a", None, "b"]).slice(1))
    assert len(index) == 3
    assert index.find(pa.array(["a", "b", "x"])).tolist() == [0, 2, -1]


def test_numbers_and_dictionaries_are_looked_up_as_text() -> None:
    index = IdIndex(pa.array([7, 8]))
    assert index.find(pa.array(["8", "7", None]).dictionary_encode()).tolist() == [1, 0, -1]


def test_an_index_travels_to_a_worker() -> None:
    index = pickle.loads(pickle.dumps(IdIndex(pa.array([f"c{number}" for number in range(100)]))))
    assert index.find(pa.array(["c42"])).tolist() == [42]


def test_a_hundred_thousand_ids_are_each_found_at_their_place() -> None:
    ids = pa.array([f"cust{number * 7 % 100_003:08d}" for number in range(100_000)])
    places = np.random.default_rng(5).permutation(100_000)
    index = IdIndex(ids)
    np.testing.assert_array_equal(index.find(ids.take(pa.array(places))), places)
    assert not index.contains(pa.array([f"Cust{number:08d}" for number in range(1000)])).any()


@given(st.lists(st.tuples(FIELDS, FIELDS, FIELDS), min_size=1, max_size=40))
def test_different_keys_never_join_to_one_text(rows: list[tuple[str, str, str]]) -> None:
    joined = joined_key(*(pa.array(column) for column in zip(*rows, strict=True))).to_pylist()
    assert len(set(joined)) == len(set(rows))


@pytest.mark.parametrize(
    ("one", "other"), [(("a:", "b"), ("a", ":b")), (("1", "1:x"), ("11", ":x")), (("", "0:"), ("0:", ""))]
)
def test_moving_a_character_to_the_next_column_makes_another_key(one: tuple[str, str], other: tuple[str, str]) -> None:
    joined = joined_key(*(pa.array(column) for column in zip(one, other, strict=True)))
    assert joined[0] != joined[1]


def test_a_key_carries_the_length_in_bytes_of_all_columns_but_the_last() -> None:
    joined = joined_key(pa.array(["é", None, "a"]), pa.array(["7", "7", None]), pa.array(["x", "x", "x"]))
    assert joined.to_pylist() == ["2:é1:7x", None, None]


def test_the_key_of_one_column_is_the_column() -> None:
    assert joined_key(pa.array([1, None])).to_pylist() == ["1", None]


def test_keys_of_long_and_short_offsets_are_equal() -> None:
    index = IdIndex(joined_key(pa.array(["r"], pa.large_string()), pa.array(["c"])))
    assert index.contains(joined_key(pa.array(["r"]), pa.array(["c"], pa.large_string()))).tolist() == [True]
