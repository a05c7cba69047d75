from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transforms.reconciliation.sample_ratio import SampleRatio, chi_square_survival, sample_ratio_test, share_interval


@pytest.mark.parametrize(
    ("df", "at_5_percent", "at_1_per_mille"),
    [
        (1, 3.841, 10.828), (2, 5.991, 13.816), (3, 7.815, 16.266), (4, 9.488, 18.467), (5, 11.070, 20.515),
        (10, 18.307, 29.588), (29, 42.557, 58.301), (30, 43.773, 59.703), (100, 124.342, 149.449),
    ],
)  # fmt: skip
def test_the_survival_function_gives_the_published_table(df: int, at_5_percent: float, at_1_per_mille: float) -> None:
    assert chi_square_survival(at_5_percent, df) == pytest.approx(0.05, rel=4e-4)
    assert chi_square_survival(at_1_per_mille, df) == pytest.approx(0.001, rel=4e-4)


@pytest.mark.parametrize(
    ("statistic", "df", "expected"),
    [
        (0.001, 1, 0.97477287936996039), (1, 1, 0.3173105078629141), (10.5, 1, 0.0011937454448720053),
        (700, 1, 2.9902269751246203e-154), (0.1, 2, 0.95122942450071401), (30, 2, 3.0590232050182579e-7),
        (2.5, 3, 0.47529108334302059), (60, 3, 5.8782307279069123e-13), (1e-6, 4, 0.999999999999875),
        (9.25, 5, 0.099498462380876763), (200, 7, 1.1477812240142598e-39), (12, 12, 0.44567964136461124),
        (500, 12, 2.2163399192195771e-99), (99, 99, 0.4810969124082639), (1000, 99, 7.2296079024912631e-149),
        (2000, 2000, 0.49579475581978449),
    ],
)  # fmt: skip
def test_the_survival_function_is_exact_to_twelve_digits(statistic: float, df: int, expected: float) -> None:
    # Expected: the regularised incomplete gamma function in 40 digits (mpmath).
    assert chi_square_survival(statistic, df) == pytest.approx(expected, rel=1e-12)


@given(st.floats(0, 5e3), st.floats(0, 5e3), st.integers(1, 200))
def test_a_larger_statistic_is_never_likelier(one: float, other: float, df: int) -> None:
    low, high = sorted((one, other))
    below, above = chi_square_survival(high, df), chi_square_survival(low, df)
    assert 0 <= below <= above * (1 + 1e-12) <= 1 + 1e-12


@pytest.mark.parametrize(("statistic", "df", "expected"), [(0.0, 3, 1.0), (math.inf, 3, 0.0), (5.0, 0, 1.0)])
def test_the_survival_function_has_its_limits(statistic: float, df: int, expected: float) -> None:
    assert chi_square_survival(statistic, df) == expected


def test_a_fair_split_raises_no_alarm() -> None:
    found = sample_ratio_test([5_050, 4_950], [0.5, 0.5])
    assert (found.statistic, found.df, found.mismatch) == (1.0, 1, False)
    assert found.p_value == pytest.approx(0.3173105078629141)


def test_a_half_that_became_a_quarter_raises_the_alarm() -> None:
    found = sample_ratio_test([500, 1_500], [0.5, 0.5])
    assert (found.statistic, found.df, found.mismatch) == (500.0, 1, True)
    assert found.p_value == pytest.approx(9.505e-111, rel=1e-3)


@pytest.mark.parametrize(("count", "mismatch"), [(1_073, False), (1_074, True)])
def test_the_alarm_is_below_one_per_mille(count: int, mismatch: bool) -> None:
    # The statistic of 1,000 + d of 2,000 is d² / 500, and reaches 10.828 at d = 73.6.
    assert sample_ratio_test([count, 2_000 - count], [1, 1]).mismatch is mismatch


@pytest.mark.parametrize(
    ("observed", "weights", "df"),
    [([0, 0], [0.5, 0.5], 1), ([7], [1.0], 0), ([], [], 0), ([7, 0], [1.0, 0.0], 0), ([0, 0], [0.0, 0.0], 0)],
)
def test_without_a_choice_there_is_nothing_to_test(observed: list[int], weights: list[float], df: int) -> None:
    assert sample_ratio_test(observed, weights) == SampleRatio(0.0, df, 1.0, False)


def test_a_variant_of_weight_zero_with_nobody_is_left_out() -> None:
    assert sample_ratio_test([60, 0, 40], [0.5, 0.0, 0.5]) == sample_ratio_test([60, 40], [0.5, 0.5])


@pytest.mark.parametrize("weights", [[1.0, 0.0], [0.0, 0.0]])
def test_anybody_in_a_variant_of_weight_zero_is_a_mismatch(weights: list[float]) -> None:
    assert sample_ratio_test([99, 1], weights) == SampleRatio(math.inf, 0, 0.0, True)


@given(st.lists(st.tuples(st.integers(0, 10**7), st.integers(1, 100)), min_size=2, max_size=6), st.floats(0.01, 100))
def test_only_the_ratio_of_weights_counts(rows: list[tuple[int, int]], factor: float) -> None:
    observed, weights = [row[0] for row in rows], [float(row[1]) for row in rows]
    found = sample_ratio_test(observed, weights)
    scaled = sample_ratio_test(observed, [weight * factor for weight in weights])
    assert scaled.statistic == pytest.approx(found.statistic, rel=1e-9, abs=1e-6)
    assert found.mismatch == (found.p_value < 0.001)


@pytest.mark.parametrize(
    ("observed", "weights", "message"),
    [
        ([1], [0.5, 0.5], "1 counts do not fit 2 weights"), ([-1, 2], [0.5, 0.5], "a count is negative"),
        ([1, 2], [-0.5, 1.5], "negative or not finite"), ([1, 2], [math.nan, 1.0], "negative or not finite"),
        ([1, 2], [math.inf, 1.0], "negative or not finite"),
    ],
)  # fmt: skip
def test_counts_and_weights_that_make_no_sense_are_refused(
    observed: list[int], weights: list[float], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        sample_ratio_test(observed, weights)


@pytest.mark.parametrize(
    ("k", "n", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_intervals_are_those_of_newcombes_table(k: int, n: int, low: float, high: float) -> None:
    assert [round(end, 4) for end in share_interval(k, n)] == [low, high]


@given(st.integers(0, 10**9).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_an_interval_holds_its_share(pair: tuple[int, int]) -> None:
    k, n = pair
    low, high = share_interval(k, n)
    assert 0 <= low <= (k / n if n else 0.5) <= high <= 1


@pytest.mark.parametrize("n", range(1, 60))
def test_a_share_of_none_or_all_is_possible_to_the_last_bit(n: int) -> None:
    assert share_interval(0, n)[0] == 0
    assert share_interval(n, n)[1] == 1


@pytest.mark.parametrize(("k", "n"), [(-1, 5), (6, 5), (0, -1)])
def test_a_share_of_more_than_all_is_refused(k: int, n: int) -> None:
    with pytest.raises(ValueError, match="is no share"):
        share_interval(k, n)
