"""sample_ratio_test: whether the counts of an experiment's variants fit their weights."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

ALARM = 0.001
"""The usual level of this test: a split that is less likely by chance is a fault of the assignment."""
_Z = 1.959963984540054
"""The 97.5 % quantile of the normal distribution."""


class SampleRatio(NamedTuple):
    """Pearson's statistic, its degrees of freedom, the p-value, and whether it is below ALARM."""

    statistic: float
    df: int
    p_value: float
    mismatch: bool


def sample_ratio_test(observed: Sequence[int], weights: Sequence[float]) -> SampleRatio:
    """The chi-square test of counts against weights, which need not sum to 1.

    A variant of weight 0 is left out when it is empty; any unit in it is a mismatch (statistic inf, p 0). Without
    units, or with one variant left, nothing is tested (statistic 0, p 1).
    ValueError for unequal lengths, a negative count, and a weight that is negative or not finite.
    """
    if len(observed) != len(weights):
        raise ValueError(f"{len(observed)} counts do not fit {len(weights)} weights")
    if any(count < 0 for count in observed):
        raise ValueError(f"a count is negative: {list(observed)}")
    if any(not 0 <= weight < math.inf for weight in weights):
        raise ValueError(f"a weight is negative or not finite: {list(weights)}")
    df = max(sum(weight > 0 for weight in weights) - 1, 0)
    if any(count and not weight for count, weight in zip(observed, weights, strict=True)):
        return SampleRatio(math.inf, df, 0.0, True)
    scale = sum(observed) / sum(weights) if any(weights) else 0.0
    expected = [weight * scale for weight in weights]
    pairs = zip(observed, expected, strict=True)
    statistic = math.fsum((count - share) ** 2 / share for count, share in pairs if share)
    p_value = chi_square_survival(statistic, df)
    return SampleRatio(statistic, df, p_value, p_value < ALARM)


def ratio_summary(observed: Sequence[int], weights: Sequence[float]) -> dict[str, Any]:
    """The sample-ratio test as summary.json has it."""
    test = sample_ratio_test(observed, weights)
    return {"p_value": test.p_value, "mismatch": test.mismatch}


def chi_square_survival(statistic: float, df: int) -> float:
    """The chance that a chi-square variable of whole `df` exceeds a statistic; 1 for df 0.

    Abramowitz and Stegun 26.4.4 and 26.4.5: exp(-x/2) times a finite sum of powers of x/2, for odd df plus
    erfc(√(x/2)). All terms are positive; each is formed from its logarithm, so that none overflows.
    """
    half = statistic / 2
    if df <= 0 or half <= 0:
        return 1.0
    if math.isinf(half):
        return 0.0
    offset = 0.5 if df % 2 else 0.0
    powers = [step + offset for step in range(df // 2)]
    terms = [math.exp(power * math.log(half) - half - math.lgamma(power + 1)) for power in powers]
    return min(math.fsum([math.erfc(math.sqrt(half)) if df % 2 else 0.0, *terms]), 1.0)


def share_interval(k: int, n: int) -> tuple[float, float]:
    """The 95 % interval of a share of which k of n are seen; (0, 1) for n = 0. ValueError unless 0 ≤ k ≤ n.

    Wilson's score interval (1927), without correction for continuity; Newcombe's method 3 (1998).
    """
    if not 0 <= k <= n:
        raise ValueError(f"{k} of {n} is no share")
    if n == 0:
        return 0.0, 1.0
    share, square = k / n, _Z * _Z
    middle = share + square / (2 * n)
    spread = _Z * math.sqrt(share * (1 - share) / n + square / (4 * n * n))
    low, high = ((middle + sign * spread) / (1 + square / n) for sign in (-1, 1))
    return (0.0 if k == 0 else low), (1.0 if k == n else high)
