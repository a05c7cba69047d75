"""Reductions of many slices equal those of each slice alone, however they overlap."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from transforms.features.slices.ranks import Ranks
from transforms.features.slices.reduce import (
    add,
    add_spread,
    decayed,
    distinct_counts,
    greatest,
    least,
    ranked,
    reduce_slices,
    sums,
)

VALUES = st.lists(st.integers(0, 20), max_size=40)
PAIRS = st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)), max_size=20)


def slices(size: int, pairs: list[tuple[int, int]]) -> tuple[np.ndarray, np.ndarray]:
    """(low, high) of slices within so many elements; some are empty."""
    ends = [sorted((a % (size + 1), b % (size + 1))) for a, b in pairs]
    return np.array([one[0] for one in ends], np.int64), np.array([one[1] for one in ends], np.int64)


@given(VALUES, PAIRS)
def test_sums_extremes_and_variances(values: list[int], pairs: list[tuple[int, int]]) -> None:
    column, (low, high) = np.array(values, np.int64), slices(len(values), pairs)
    parts = [values[a:b] for a, b in zip(low, high, strict=True)]
    assert sums(column, low, high).tolist() == [sum(part) for part in parts]
    assert reduce_slices((column,), low, high, add, (0,))[0].tolist() == [sum(part) for part in parts]
    assert reduce_slices((column,), low, high, least, (99,))[0].tolist() == [min(part, default=99) for part in parts]
    assert reduce_slices((column,), low, high, greatest, (-1,))[0].tolist() == [max(part, default=-1) for part in parts]
    fields = (np.ones(len(values)), column.astype(np.float64), np.zeros(len(values)))
    counts, means, spread = reduce_slices(fields, low, high, add_spread, (0.0, 0.0, 0.0))
    for number, part in enumerate(parts):
        assert counts[number] == len(part)
        if part:
            assert means[number] == pytest.approx(np.mean(part))
            assert spread[number] / len(part) == pytest.approx(np.var(part))


@given(VALUES, PAIRS)
def test_decayed_sums_stand_at_the_latest_time(values: list[int], pairs: list[tuple[int, int]]) -> None:
    column, (low, high) = np.array(values, np.float64), slices(len(values), pairs)
    times = np.arange(len(values)) * 7
    found, totals = reduce_slices((times, column), low, high, decayed(10), (-(1 << 62), 0.0))
    for number, (a, b) in enumerate(zip(low.tolist(), high.tolist(), strict=True)):
        if a < b:
            assert found[number] == 7 * (b - 1)
            assert math.isclose(
                totals[number], sum(values[i] * 2 ** ((i - b + 1) * 0.7) for i in range(a, b)), abs_tol=1e-9
            )


@pytest.mark.parametrize("overlap", [0, 1_000])
@given(VALUES, PAIRS)
def test_distinct_values_and_order_statistics(overlap: int, values: list[int], pairs: list[tuple[int, int]]) -> None:
    codes, (low, high) = np.array(values, np.int64), slices(len(values), pairs)
    parts = [values[a:b] for a, b in zip(low, high, strict=True)]
    groups = np.zeros(len(values), np.int64)
    assert distinct_counts(groups, codes, low, high, overlap).tolist() == [len(set(part)) for part in parts]
    shares = (0.0, 0.5, 1.0)
    wanted = [[sorted(part)[math.floor(one * (len(part) - 1))] if part else 0 for one in shares] for part in parts]
    assert ranked(codes, low, high, shares, overlap).tolist() == wanted


@given(VALUES, PAIRS, st.integers(0, 21))
def test_values_below_a_limit(values: list[int], pairs: list[tuple[int, int]], limit: int) -> None:
    low, high = slices(len(values), pairs)
    found = Ranks(np.array(values, np.int64), 21).below(np.full(len(low), limit), low, high)
    assert found.tolist() == [sum(one < limit for one in values[a:b]) for a, b in zip(low, high, strict=True)]
