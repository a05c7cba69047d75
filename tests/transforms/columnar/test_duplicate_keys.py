from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from transforms.columnar import duplicate_keys as repeats
from transforms.columnar.duplicate_keys import codes_of, find_duplicate_keys

Batches = list[dict[str, list[str | None]]]
KEY = st.none() | st.text(alphabet="ab é😀", max_size=3)
BATCHES = st.lists(st.lists(st.tuples(KEY, KEY), max_size=12), max_size=4)


def taken(columns: tuple[pa.Array, pa.Array], rows: pa.Array | None) -> tuple[pa.Array, pa.Array]:
    return columns if rows is None else (columns[0].take(rows), columns[1].take(rows))


def found(batches: list[list[tuple[str | None, str | None]]], folder: Path) -> list[tuple[object, ...]]:
    def scan() -> Iterator[tuple[str, dict[str, pa.Array]]]:
        for number, rows in enumerate(batches):
            groups = pa.array(["g"] * len(rows), pa.string())
            columns = [(groups, pa.array([row[place] for row in rows], pa.string())) for place in range(2)]
            yield f"b{number}", {"x": partial(taken, columns[0]), "y": partial(taken, columns[1])}

    table = find_duplicate_keys(scan, ["x", "y"], sum(map(len, batches)), folder)
    return [tuple(row.values()) for row in table.to_pylist()]


def expected(batches: list[list[tuple[str | None, str | None]]]) -> set[tuple[object, ...]]:
    counts = {kind: Counter(row[place] for rows in batches for row in rows) for place, kind in enumerate("xy")}
    return {
        (kind, f"1:g{row[place]}", f"b{number}", at)
        for number, rows in enumerate(batches)
        for at, row in enumerate(rows)
        for place, kind in enumerate("xy")
        if row[place] is not None and counts[kind][row[place]] > 1
    }


@given(BATCHES)
def test_exactly_the_rows_whose_key_stands_twice_are_found(batches: list[list[tuple[str | None, str | None]]]) -> None:
    rows = found(batches, Path("/nonexistent"))
    assert len(rows) == len(set(rows))
    assert set(rows) == expected(batches)


@given(BATCHES)
@settings(max_examples=30)
def test_many_rows_are_parted_into_files_with_the_same_answer(
    batches: list[list[tuple[str | None, str | None]]],
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(repeats, "IN_MEMORY", 4)
        assert set(found(batches, Path.cwd())) == expected(batches)


def test_keys_of_one_hash_are_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        repeats, "hash64_rows", lambda column: pa.array([7] * len(column), pa.uint64()).to_numpy().copy()
    )
    assert found([[("a", None), ("b", None), ("a", None)]], tmp_path) == [
        ("x", "1:ga", "b0", 0),
        ("x", "1:ga", "b0", 2),
    ]


def test_rows_of_one_key_have_one_number() -> None:
    table = pa.table({"kind": ["x", "y", "x", "x"], "key": ["a", "a", "b", "a"]})
    one, two, three, four = codes_of(table)
    assert one == four
    assert len({one, two, three}) == 3
