from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from transforms.columnar import hashing

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
COLUMNS = st.lists(TEXTS | st.text("ab7-", max_size=12), max_size=80)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("", 0x811C9DC5), ("a", 0xE40C292C), ("foobar", 0xBF9CF968)],
)
def test_fnv_gives_the_published_vectors(text: str, expected: int) -> None:
    assert hashing.fnv1a32(text) == expected


def test_a_text_beyond_ascii_is_hashed_by_its_utf16_units() -> None:
    assert list(hashing.code_units("é😀")) == [0xE9, 0xD83D, 0xDE00]


def test_a_lone_surrogate_counts_as_it_stands() -> None:
    assert list(hashing.code_units("\ud83d")) == [0xD83D]


@given(TEXTS, TEXTS)
def test_a_hash_goes_on_from_its_state(first: str, second: str) -> None:
    assert hashing.fnv1a32(second, hashing.fnv1a32(first)) == hashing.fnv1a32(first + second)


@given(COLUMNS, TEXTS, st.sampled_from([pa.string(), pa.large_string()]), st.integers(0, 5))
def test_a_column_hashes_as_its_rows_do(texts: list[str], prefix: str, kind: pa.DataType, skipped: int) -> None:
    column = pa.array(texts, kind).slice(min(skipped, len(texts)))
    hashes = hashing.FnvRows(column).hashed(hashing.fnv1a32(prefix))
    assert hashes.tolist() == [hashing.fnv1a32(prefix + text) for text in column.to_pylist()]


@given(COLUMNS, TEXTS)
def test_a_suffix_hashes_as_part_of_the_text(texts: list[str], suffix: str) -> None:
    hashes = hashing.fnv1a32_suffixed(hashing.FnvRows(pa.array(texts, pa.string())).hashed(hashing.FNV_BASIS), suffix)
    assert hashes.tolist() == [hashing.fnv1a32(text + suffix) for text in texts]


@pytest.mark.parametrize("long", ["x" * 1_000_000, "é" * 100_000, "x" * 300])
def test_one_long_text_among_many_is_hashed_like_the_others(long: str) -> None:
    texts = [f"c{number}" for number in range(500)] + [long, ""]
    hashes = hashing.FnvRows(pa.array(texts)).hashed(hashing.FNV_BASIS)
    assert hashes[[0, 499, 500, 501]].tolist() == [hashing.fnv1a32(t) for t in ("c0", "c499", long, "")]


@given(st.lists(st.integers(0, 2**32 - 1) | st.sampled_from([10**power for power in range(10)])))
def test_digits_are_hashed_as_the_number_is_written(numbers: list[int]) -> None:
    hashes = hashing.fnv1a32_of_digits(np.array(numbers, np.uint32))
    assert hashes.tolist() == [hashing.fnv1a32(str(number)) for number in numbers]


@given(COLUMNS, st.integers(0, 5))
def test_sixty_four_bits_depend_on_the_text_alone(texts: list[str], skipped: int) -> None:
    column = pa.array(texts, pa.string()).slice(min(skipped, len(texts)))
    hashes = hashing.hash64_rows(column)
    one_by_one = [int(hashing.hash64_rows(pa.array([text]))[0]) for text in column.to_pylist()]
    assert hashes.tolist() == one_by_one


@pytest.mark.parametrize("length", [1, 7, 8, 9, 16, 247, 248, 255, 256, 257, 300])
def test_every_character_that_is_read_changes_the_sixty_four_bits(length: int) -> None:
    text = "a" * length
    read = [place for place in range(length) if place < 248 or place >= length - 8]
    changed = [f"{text[:place]}b{text[place + 1 :]}" for place in read]
    hashes = hashing.hash64_rows(pa.array([text, *changed, text + "a", text + "\0"]))
    assert len(set(hashes.tolist())) == len(read) + 3


def test_sixty_four_bits_of_many_ids_do_not_collide() -> None:
    ids = pa.array([f"cust{number:08d}" for number in range(200_000)])
    assert len(np.unique(hashing.hash64_rows(ids))) == 200_000


def test_sixty_four_bits_are_the_same_in_another_process() -> None:
    program = "import pyarrow as pa, transforms.columnar.hashing as h; print(h.hash64_rows(pa.array(['a', 'é' * 200])).tolist())"
    root = Path(__file__).parents[3]
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=root)
    assert told.stdout.strip() == str(hashing.hash64_rows(pa.array(["a", "é" * 200])).tolist())
