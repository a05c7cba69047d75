from __future__ import annotations

import math

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from transforms.experiments.assignment import (
    SCHEMES,
    bucket,
    choose,
    in_namespace,
    in_ranges,
    normalise,
    scheme_ranges,
)
from transforms.experiments.hash_schemes_arrow import (
    bucket_column,
    choose_column,
    in_ranges_column,
    normalise_column,
)
from transforms.reconciliation.sample_ratio import ALARM, chi_square_survival

NAMES = st.sampled_from(sorted(SCHEMES))
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20) | st.sampled_from(["", "7", "😀", "a😀b"])


@st.composite
def columns(draw: st.DrawFn) -> pa.Array:
    column = pa.array(
        draw(st.lists(TEXTS | st.none(), max_size=50)), draw(st.sampled_from([pa.string(), pa.large_string()]))
    )
    return column.slice(draw(st.integers(0, 3)) if len(column) > 3 else 0)


@settings(max_examples=400)
@given(NAMES, TEXTS, columns())
def test_a_column_has_the_buckets_of_its_units(scheme: str, seed: str, column: pa.Array) -> None:
    expected = [bucket(scheme, seed, unit) for unit in column.to_pylist()]
    found = bucket_column(scheme, seed, column)
    assert found.dtype == np.float64
    assert [None if math.isnan(one) else one for one in found.tolist()] == expected


@given(NAMES, columns(), st.lists(st.integers(0, 9), min_size=1, max_size=5).filter(any), st.floats(0, 1))
def test_a_column_is_assigned_as_its_units_are(
    scheme: str, column: pa.Array, parts: list[int], coverage: float
) -> None:
    weights = [part / sum(parts) for part in parts]
    ranges = scheme_ranges(scheme, len(weights), coverage, weights)
    buckets = [bucket(scheme, "seed", unit) for unit in column.to_pylist()]
    found = choose_column(ranges, bucket_column(scheme, "seed", column))
    assert found.dtype == np.int32
    assert found.tolist() == [choose(ranges, one) for one in buckets]


@given(NAMES, columns(), st.floats(0, 1), st.floats(0, 1))
def test_a_columns_namespace_is_that_of_its_units(scheme: str, column: pa.Array, lo: float, hi: float) -> None:
    units = column.to_pylist()
    several = [(lo, hi), (0.0, 0.1)]
    assert in_ranges_column("growthbook/1", "__n", column, [(lo, hi)]).tolist() == [
        in_namespace(unit, ("n", lo, hi)) for unit in units
    ]
    assert in_ranges_column(scheme, "s", column, several).tolist() == [
        in_ranges(scheme, "s", unit, several) for unit in units
    ]


@given(NAMES, columns())
def test_a_columns_buckets_are_normalised_as_single_ones(scheme: str, column: pa.Array) -> None:
    buckets = bucket_column(scheme, "s", column)
    expected = [normalise(scheme, None if math.isnan(one) else one) for one in buckets.tolist()]
    found = normalise_column(scheme, buckets).tolist()
    assert [None if math.isnan(one) else one for one in found] == expected


def test_the_closed_end_of_a_space_is_told_as_a_share_below_one() -> None:
    ends = normalise_column("launchdarkly", np.array([0.0, 1.0]))
    assert ends.tolist() == [normalise("launchdarkly", 0.0), normalise("launchdarkly", 1.0)]


@pytest.mark.parametrize("long", ["x" * 10_000_000, "日" * 1_000_000])
@pytest.mark.parametrize("scheme", ["growthbook/2", "eppo"])
def test_one_long_unit_among_many_changes_nothing(scheme: str, long: str) -> None:
    units = [None, "", long, *(f"c{number}" for number in range(200))]
    found = bucket_column(scheme, "s", pa.array(units))
    assert np.isnan(found[:2]).all()
    assert found[[2, 3, -1]].tolist() == [bucket(scheme, "s", unit) for unit in (long, "c0", "c199")]


def test_what_lies_under_a_null_is_not_read() -> None:
    offsets = pa.array([0, 2, 4], pa.int32()).buffers()[1]
    column = pa.Array.from_buffers(pa.string(), 2, [pa.py_buffer(b"\x02"), offsets, pa.py_buffer(b"\xff\xfeab")])
    assert column.to_pylist() == [None, "ab"]
    found = bucket_column("growthbook/2", "s", column)
    assert math.isnan(found[0])
    assert found[1] == bucket("growthbook/2", "s", "ab")


def test_an_unknown_scheme_names_those_there_are() -> None:
    with pytest.raises(ValueError, match="the schemes are growthbook/1"):
        bucket_column("braze", "s", pa.array(["a"]))


def test_the_first_of_overlapping_ranges_wins() -> None:
    assert choose_column([(0.5, 1.0), (0.0, 1.0)], np.array([0.7, 0.2, np.nan, 1.0])).tolist() == [0, 1, -1, -1]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("exp-a", "exp-b"),
        ("spring", "spring:holdout"),
        ("global-holdout", "global-holdout:r1"),
        ("global-holdout", "spring"),
    ],
)
def test_growthbook_2_of_one_seed_says_nothing_about_another(one: str, other: str) -> None:
    assert _meeting("growthbook/2", one, other) > ALARM


def test_growthbook_1_of_two_seeds_alike_is_as_biased_as_it_is_known_to_be() -> None:
    assert _meeting("growthbook/1", "exp-a", "exp-b") < 1e-100


def _meeting(scheme: str, one: str, other: str) -> float:
    """The p-value of independence between the tenths of two seeds over numbered ids."""
    ids = pa.array([f"cust-{number}" for number in range(100_000)])
    tenths = [(bucket_column(scheme, seed, ids) * 10).astype(int) for seed in (one, other)]
    table = np.bincount(tenths[0] * 10 + tenths[1], minlength=100).reshape(10, 10)
    expected = np.outer(table.sum(axis=1), table.sum(axis=0)) / table.sum()
    return chi_square_survival(float(((table - expected) ** 2 / expected).sum()), 81)
