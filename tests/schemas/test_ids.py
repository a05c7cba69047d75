from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.columns.ids import exact_ids, id_type_problem

COLUMNS: list[tuple[str, Any, list[str | None], list[int]]] = [
    ("text", pa.array(["007", "1.10", " a", "", None]), ["007", "1.10", " a", "", None], []),
    ("whole numbers", pa.array([7, -1, None, 2**63 - 1]), ["7", "-1", None, "9223372036854775807"], []),
    ("large whole numbers", pa.array([2**64 - 1], pa.uint64()), ["18446744073709551615"], []),
    ("floats", pa.array([7.0, -0.0, None, 1.23e12, 2.0**53]), ["7", "0", None, "1230000000000", "9007199254740992"], []),
    ("fractions", pa.array([7.0, 12.5]), ["7", None], [1]),
    ("floats too large", pa.array([2.0**53 + 2, 1e300]), [None, None], [0, 1]),
    ("no numbers", pa.array([float("nan"), float("inf"), float("-inf"), 7.0]), [None, None, None, "7"], [0, 1, 2]),
    ("short floats", pa.array([16_777_216.0, 16_777_218.0], pa.float32()), ["16777216", None], [1]),
    ("half floats", pa.array([2048.0, 4096.0], pa.float16()), ["2048", None], [1]),
    ("decimals", pa.array([Decimal("7"), Decimal("1.10"), None, Decimal(0)], pa.decimal128(38, 9)), ["7", None, None, "0"], [1]),
    ("decimals without a scale", pa.array([Decimal(10**37)], pa.decimal128(38, 0)), [str(10**37)], []),
    ("decimals of thousands", pa.array([Decimal(7000)], pa.decimal128(5, -3)), ["7000"], []),
    ("short decimals", pa.array([Decimal("0.5"), Decimal(3)], pa.decimal32(5, 2)), [None, "3"], [0]),
    ("dictionaries", pa.array([1.5, 2.0, None, 1.5]).dictionary_encode(), [None, "2", None, None], [0, 3]),
    ("views of text", pa.array(["a"], pa.string_view()), ["a"], []),
    ("nothing", pa.nulls(2), [None, None], []),
]  # fmt: skip


@pytest.mark.parametrize(("column", "texts", "inexact"), [row[1:] for row in COLUMNS], ids=[row[0] for row in COLUMNS])
def test_the_ids_of(column: Any, texts: list[str | None], inexact: list[int]) -> None:
    found = exact_ids(column)
    assert (found.texts.to_pylist(), found.inexact.tolist()) == (texts, inexact)
    assert id_type_problem(column.type) is None
    half = len(column) // 2
    chunks = exact_ids(pa.chunked_array([column.slice(0, half), column.slice(half)], column.type))
    assert (chunks.texts.to_pylist(), chunks.inexact.tolist()) == (texts, inexact)


NEVER = [
    pa.bool_(), pa.binary(), pa.large_binary(), pa.binary(16), pa.date32(), pa.timestamp("us"), pa.time64("us"),
    pa.duration("s"), pa.list_(pa.int64()), pa.struct([("id", pa.int64())]), pa.map_(pa.string(), pa.string()),
    pa.dictionary(pa.int32(), pa.binary()),
]  # fmt: skip


@pytest.mark.parametrize("kind", NEVER, ids=str)
def test_no_ids_are_in_a_column_of(kind: pa.DataType) -> None:
    assert f"this is {kind.value_type if pa.types.is_dictionary(kind) else kind}" in str(id_type_problem(kind))


@given(st.lists(st.one_of(st.none(), st.integers(-(2**53), 2**53))))
def test_a_whole_number_has_one_id_whatever_it_is_stored_as(numbers: list[int | None]) -> None:
    texts = [None if number is None else str(number) for number in numbers]
    for kind in (pa.int64(), pa.float64(), pa.string()):
        column = pa.array(
            texts if kind == pa.string() else [n if n is None else kind_of(n, kind) for n in numbers], kind
        )
        assert exact_ids(column).texts.to_pylist() == texts


def kind_of(number: int, kind: pa.DataType) -> int | float:
    return float(number) if pa.types.is_floating(kind) else number
