from __future__ import annotations

import doctest
import math
from itertools import pairwise
from pathlib import Path

import growthbook.core
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from transforms.experiments.assignment import (
    SCHEMES,
    bucket,
    bucket_ranges,
    choose,
    in_namespace,
    in_ranges,
    in_space,
    normalise,
    scheme_named,
    scheme_ranges,
    unit_text,
)

WEIGHTS = st.lists(st.integers(1, 100), min_size=1, max_size=6).map(lambda parts: [part / sum(parts) for part in parts])
SHARES = st.floats(0, 1)
NAMES = st.sampled_from(sorted(SCHEMES))


@pytest.mark.parametrize(
    ("seed", "unit", "first", "second"),
    [
        ("seed", "é", 0.137, 0.8663),
        ("кампания", "пользователь-7", 0.291, 0.2399),
        ("seed", "😀", 0.429, 0.4346),
        ("s", "日本", 0.885, 0.0984),
    ],
)
def test_growthbook_hashes_utf16_units(seed: str, unit: str, first: float, second: float) -> None:
    assert bucket("growthbook/1", seed, unit) == first
    assert bucket("growthbook/2", seed, unit) == second


@pytest.mark.parametrize("missing", [None, "", math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_missing_unit_gets_no_bucket_and_no_variant(scheme: str, missing: object) -> None:
    assert bucket(scheme, "seed", missing) is None
    assert choose(scheme_ranges(scheme, 2), None) == -1
    assert normalise(scheme, None) is None
    assert not in_ranges(scheme, "seed", missing, [(0.0, 1.0)])


@pytest.mark.parametrize(
    ("unit", "text"),
    [
        ("7", "7"), (7, "7"), (7.0, "7"), (-7.0, "-7"), (0, "0"), (-0.0, "0"), (True, "true"), (False, "false"),
        (2**70, "1180591620717411303424"), (1.5, "1.5"), (0.1, "0.1"), (-2.5e-6, "-0.0000025"), (1e-7, "1e-7"),
        (1.5e-10, "1.5e-10"), (1e20, "100000000000000000000"), (1e21, "1e+21"), (1.25e300, "1.25e+300"),
        (2.0**60, "1152921504606847000"), (123456.789, "123456.789"),
    ],
)  # fmt: skip
def test_a_unit_is_written_as_javascript_writes_it(unit: object, text: str) -> None:
    assert unit_text(unit) == text
    assert bucket("growthbook/2", "s", unit) == bucket("growthbook/2", "s", text)


@given(st.floats(allow_nan=False, allow_infinity=False).filter(bool))
def test_a_float_is_written_as_the_growthbook_sdk_writes_it(number: float) -> None:
    assert unit_text(number) == growthbook.core._hash_string(number)


def test_a_unit_of_another_kind_is_refused_with_what_to_do() -> None:
    with pytest.raises(TypeError, match="not bytes; cast it to text"):
        bucket("eppo", "s", b"7")


def test_an_unknown_scheme_names_those_there_are() -> None:
    with pytest.raises(ValueError, match=r"'growthbook/3'; the schemes are growthbook/1, growthbook/2.*statsig"):
        bucket("growthbook/3", "s", "u")


@given(NAMES, st.text(max_size=8), st.text(min_size=1, max_size=12))
def test_a_bucket_lies_in_the_space_of_its_scheme(scheme: str, seed: str, unit: str) -> None:
    space, found = scheme_named(scheme).space, bucket(scheme, seed, unit)
    share = normalise(scheme, found)
    assert found is not None
    assert share is not None
    assert space.lowest <= found <= space.lowest + space.size
    assert 0 <= share < 1
    assert isinstance(found, int) == space.integer


@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_ends_of_a_space_are_told_as_shares_below_one(scheme: str) -> None:
    space = scheme_named(scheme).space
    last = space.lowest + space.size - (1 if space.integer else 0)
    assert normalise(scheme, space.lowest) == 0
    assert 0.98 < normalise(scheme, last) < 1  # type: ignore[operator]


@pytest.mark.parametrize("n", [-1, 0])
def test_there_are_no_weights_for_no_variants(n: int) -> None:
    assert bucket_ranges(n) == []


@pytest.mark.parametrize(
    "weights",
    [None, [], [1.0], [0.5, 0.5, 0.0], [0.4, 0.58], [0.6, 0.42], [1.2, -0.2], [math.nan, 1.0], [math.inf, 0.0]],
)
def test_unusable_weights_become_equal(weights: list[float] | None) -> None:
    assert bucket_ranges(2, 1.0, weights) == [(0.0, 0.5), (0.5, 1.0)]


@pytest.mark.parametrize("weights", [[0.49, 0.5], [0.5, 0.51]])
def test_weights_that_nearly_sum_to_one_are_taken_as_they_are(weights: list[float]) -> None:
    assert bucket_ranges(2, 1.0, weights) == [(0.0, weights[0]), (weights[0], sum(weights))]


@pytest.mark.parametrize(("coverage", "used"), [(-1.0, 0.0), (0.0, 0.0), (0.5, 0.5), (1.0, 1.0), (2.0, 1.0)])
def test_coverage_is_clamped_and_cuts_the_end_of_each_range(coverage: float, used: float) -> None:
    assert bucket_ranges(2, coverage, [0.25, 0.75]) == [(0.0, used * 0.25), (0.25, 0.25 + used * 0.75)]


def test_edges_are_growthbooks_running_float_sum() -> None:
    assert bucket_ranges(3, 1.0, [0.1, 0.2, 0.7])[1] == (0.1, 0.1 + 0.2)
    assert choose(bucket_ranges(3, 1.0, [0.1, 0.2, 0.7]), 0.3) == 1


@pytest.mark.parametrize(
    ("scheme", "edges"),
    [
        ("eppo", [0, 1000, 3000, 10000]), ("optimizely", [0, 1000, 3000, 10000]),
        ("statsig", [0, 1000, 3000, 10000]), ("unleash/variant", [1, 101, 301, 1001]),
        ("unleash/rollout", [1, 11, 31, 101]),
    ],
)  # fmt: skip
def test_whole_edges_do_not_suffer_from_float_sums(scheme: str, edges: list[int]) -> None:
    assert scheme_ranges(scheme, 3, 1.0, [0.1, 0.2, 0.7]) == list(pairwise(edges))


def test_a_statsig_percentage_passes_what_lies_below_it_in_floats() -> None:
    assert scheme_ranges("statsig", 1, 0.011) == [(0, 111)]
    assert 1.1 * 100 > 110


@pytest.mark.parametrize("scheme", ["launchdarkly", "planout"])
def test_the_last_variant_takes_the_closed_end(scheme: str) -> None:
    assert choose(scheme_ranges(scheme, 10), 1.0) == 9
    assert choose(scheme_ranges(scheme, 2, 0.5), 1.0) == -1


def test_planout_gives_a_weight_itself_to_its_variant() -> None:
    assert choose(scheme_ranges("planout", 2), 0.5) == 0
    assert choose(scheme_ranges("launchdarkly", 2), 0.5) == 1


@given(NAMES, WEIGHTS, st.text(max_size=8), st.text(min_size=1, max_size=12))
def test_ranges_partition_the_space_at_full_coverage(scheme: str, weights: list[float], seed: str, unit: str) -> None:
    ranges = scheme_ranges(scheme, len(weights), 1.0, weights)
    chosen = [lo <= bucket(scheme, seed, unit) < hi for lo, hi in ranges]  # type: ignore[operator]
    assert sum(chosen) == 1


@given(NAMES, WEIGHTS, SHARES, SHARES, st.text(min_size=1, max_size=12))
def test_raising_coverage_never_moves_a_customer_between_variants(
    scheme: str, weights: list[float], one: float, other: float, unit: str
) -> None:
    found = bucket(scheme, "seed", unit)
    before = choose(scheme_ranges(scheme, len(weights), min(one, other), weights), found)
    after = choose(scheme_ranges(scheme, len(weights), max(one, other), weights), found)
    assert before in (-1, after)


@given(NAMES, WEIGHTS, st.text(min_size=1, max_size=12))
def test_no_coverage_takes_nobody(scheme: str, weights: list[float], unit: str) -> None:
    found = bucket(scheme, "seed", unit)
    assert choose(scheme_ranges(scheme, len(weights), 0.0, weights), found) == -1


@given(NAMES, SHARES, SHARES, st.text(min_size=1, max_size=12))
def test_neighbouring_shares_neither_overlap_nor_leave_a_gap(scheme: str, lo: float, hi: float, unit: str) -> None:
    assume(lo <= hi)
    parts = [(0.0, lo), (lo, hi), (hi, 1.0)]
    assert sum(in_ranges(scheme, "seed", unit, [part]) for part in parts) == 1
    assert in_ranges(scheme, "seed", unit, parts)
    assert len(in_space(scheme, parts)) == 3


def test_the_first_of_overlapping_ranges_wins() -> None:
    assert choose([(0.5, 1.0), (0.0, 1.0)], 0.7) == 0


@given(st.text(min_size=1, max_size=12))
def test_experiments_with_disjoint_ranges_of_a_namespace_share_nobody(unit: str) -> None:
    found = bucket("growthbook/1", "__spring", unit)
    within = [in_namespace(unit, ("spring", start, start + 0.5)) for start in (0.0, 0.5)]
    assert within == [found < 0.5, found >= 0.5]  # type: ignore[operator]


def test_the_examples_of_the_document_give_what_it_says() -> None:
    page = Path(__file__).parents[3] / "docs" / "experiments.md"
    failed, tried = doctest.testfile(str(page), module_relative=False)
    assert (failed, tried > 15) == (0, True)
