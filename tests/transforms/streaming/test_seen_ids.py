"""What is remembered, against a plain set."""

from __future__ import annotations

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.columns.id_set import halves
from transforms.streaming.seen_ids import GENERATIONS, SeenIds, id_bytes, make_chunk

LISTS = st.lists(st.lists(st.integers(0, 400), min_size=1, max_size=80), max_size=40)


@given(LISTS)
def test_it_tells_first_from_repeated_as_a_set_does(lists: list[list[int]]) -> None:
    known, chunks, remembered = set[int](), [], SeenIds()
    for numbers in lists:
        ids = [id_bytes(f"{number:032x}") for number in numbers]
        places = remembered.first_seen(ids, 5)
        wanted = [at for at, number in enumerate(numbers) if number not in known and number not in numbers[:at]]
        assert places == wanted
        known |= set(numbers)
        chunks.append(make_chunk(5, [ids[at] for at in places]))
    again = SeenIds(chunks)
    assert len(again) == len(known) == len(remembered)
    assert again.first_seen([id_bytes(f"{number:032x}") for number in range(401)], 5) == [
        number for number in range(401) if number not in known
    ]


def test_thousands_of_ids_are_found_in_the_sorted_part_too() -> None:
    remembered = SeenIds()
    ids = [id_bytes(f"{number * 7919:032x}") for number in range(20_000)]
    for start in range(0, 20_000, 500):
        assert len(remembered.first_seen(ids[start : start + 500], 1)) == 500
    assert remembered.first_seen(ids, 1) == []


def test_ids_that_share_a_half_are_different() -> None:
    remembered = SeenIds()
    same_high = [id_bytes("a" * 16 + f"{number:016x}") for number in range(300)]
    assert len(remembered.first_seen(same_high, 1)) == 300
    assert remembered.first_seen([id_bytes("a" * 16 + "f" * 16)], 1) == [0]


def test_ids_that_are_sorted_by_the_same_number_are_different() -> None:
    mix = 0x9E3779B97F4A7C15
    alike = [
        (number * mix % 2**64).to_bytes(8, sys.byteorder) + number.to_bytes(8, sys.byteorder) for number in range(400)
    ]
    assert len(set(halves(b"".join(alike))[0].tolist())) == 1
    remembered = SeenIds()
    assert remembered.first_seen(alike[:300], 1) == list(range(300))
    assert remembered.first_seen(alike, 1) == list(range(300, 400))


@pytest.mark.parametrize(("later", "known"), [(0, True), (GENERATIONS - 1, True), (GENERATIONS, False)])
def test_a_generation_is_forgotten_as_a_whole(later: int, known: bool) -> None:
    remembered = SeenIds([make_chunk(3, [id_bytes("x")])])
    assert (remembered.first_seen([id_bytes("x")], 3 + later) == []) is known


def test_any_text_is_an_id() -> None:
    assert len({id_bytes(text) for text in ("", "a", "A" * 32, "é" * 32, "0" * 32, "0" * 31)}) == 6
    assert id_bytes("0f" * 16) == bytes([15] * 16)
