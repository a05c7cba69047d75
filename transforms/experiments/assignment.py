"""bucket and choose: assign a unit to a variant by published hash schemes, pure functions of (scheme, seed, unit).

A bucket is a number in the space of its scheme. `bucket_ranges` gives the variants' shares of [0, 1), `scheme_ranges`
the same in the scheme's space, where the SDK of the scheme's product chooses the same variant.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any, NamedTuple

import mmh3

from transforms.columnar.hashing import fnv1a32

Range = tuple[float, float]
_BELOW_ONE = math.nextafter(1.0, 0.0)
_ABOVE_ONE = math.nextafter(1.0, 2.0)
_ROUNDING = 1e-12
_SIXTY_BITS = 1 << 60
"""The divisor of LaunchDarkly and PlanOut: 0xFFFFFFFFFFFFFFF as a float."""


class Space(NamedTuple):
    """The buckets of a scheme: `steps` values from `lowest` to below `lowest + size`.

    They are whole numbers where `integer`. Where `closed`, rounding to a float can also give `lowest + size`.
    """

    lowest: int
    size: int
    steps: int
    integer: bool = True
    closed: bool = False


class Scheme(NamedTuple):
    """A published formula of a bucket: `place(number(before + unit + after))`, (before, after) = `affixes(seed)`.

    `place` takes a number or an array of them; `edge` gives the first bucket at or past a share of [0, 1).
    """

    space: Space
    affixes: Callable[[str], tuple[str, str]]
    number: Callable[[str], int]
    place: Callable[[Any], Any]
    edge: Callable[[float], float]


def _growthbook2(text: str) -> int:
    return fnv1a32(str(fnv1a32(text)))


def _murmur(seed: int) -> Callable[[str], int]:
    return lambda text: int(mmh3.hash(_utf8(text), seed, signed=False))


def _md5(text: str) -> int:
    return int.from_bytes(hashlib.md5(_utf8(text), usedforsecurity=False).digest()[:4], "big")


def _sha1(text: str) -> int:
    return int.from_bytes(hashlib.sha1(_utf8(text), usedforsecurity=False).digest()[:8], "big") >> 4


def _sha256(text: str) -> int:
    return int.from_bytes(hashlib.sha256(_utf8(text)).digest()[:8], "big")


def _utf8(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _before(separator: str) -> Callable[[str], tuple[str, str]]:
    return lambda seed: (seed + separator, "")


def _after(seed: str) -> tuple[str, str]:
    return "", seed


def _nearest(space: Space) -> Callable[[float], float]:
    """The nearest whole bucket, for products that keep their edges as whole numbers."""
    return lambda share: space.lowest + math.floor(share * space.size + 0.5)


def _statsig_edge(share: float) -> float:
    """A bucket is inside when it is below percentage × 100 in floats; nine digits undo the rounding of the sum."""
    return math.ceil(round(share * 100, 9) * 100)


def _launchdarkly_edge(share: float) -> float:
    """The running sum; a bucket past the last sum gets the last variation."""
    return share if share < 1 - _ROUNDING else _ABOVE_ONE


def _planout_edge(share: float) -> float:
    """The bucket after the cumulative weight: a bucket equal to the weight still belongs."""
    return math.nextafter(share, 2.0) if 0 < share < 1 - _ROUNDING else _launchdarkly_edge(share)


def _same(share: float) -> float:
    return share


_CENT, _MILLE, _MYRIAD = Space(1, 100, 100), Space(1, 1_000, 1_000), Space(0, 10_000, 10_000)
_SHARE = Space(0, 1, _SIXTY_BITS, integer=False, closed=True)
SCHEMES: Mapping[str, Scheme] = {
    "growthbook/1": Scheme(Space(0, 1, 1_000, integer=False), _after, fnv1a32, lambda n: n % 1_000 / 1_000, _same),
    "growthbook/2": Scheme(
        Space(0, 1, 10_000, integer=False), _before(""), _growthbook2, lambda n: n % 10_000 / 10_000, _same
    ),
    "unleash/rollout": Scheme(_CENT, _before(":"), _murmur(0), lambda n: n % 100 + 1, _nearest(_CENT)),
    "unleash/variant": Scheme(_MILLE, _before(":"), _murmur(86_028_157), lambda n: n % 1_000 + 1, _nearest(_MILLE)),
    "eppo": Scheme(_MYRIAD, _before("-"), _md5, lambda n: n % 10_000, _nearest(_MYRIAD)),
    "optimizely": Scheme(_MYRIAD, _after, _murmur(1), lambda n: n * 10_000 >> 32, _nearest(_MYRIAD)),
    "launchdarkly": Scheme(_SHARE, _before("."), _sha1, lambda n: n / _SIXTY_BITS, _launchdarkly_edge),
    "planout": Scheme(_SHARE, _before("."), _sha1, lambda n: n / _SIXTY_BITS, _planout_edge),
    "statsig": Scheme(_MYRIAD, _before("."), _sha256, lambda n: n % 10_000, _statsig_edge),
}


def scheme_named(name: str) -> Scheme:
    """The scheme of a name; ValueError, with the known names, for an unknown one."""
    if name not in SCHEMES:
        raise ValueError(f"unknown scheme {name!r}; the schemes are {', '.join(SCHEMES)}")
    return SCHEMES[name]


def bucket(scheme: str, seed: str, unit: object) -> float | int | None:
    """The bucket of a unit in the scheme's own space; None for a missing or empty unit.

    Sources of the formulas: docs/experiments.md. ValueError for an unknown scheme, TypeError for a unit
    that is no text, number or boolean.
    """
    chosen = scheme_named(scheme)
    text = unit_text(unit)
    if not text:
        return None
    before, after = chosen.affixes(seed)
    return chosen.place(chosen.number(before + text + after))


def unit_text(unit: object) -> str | None:
    """The hashed text of a unit: whole numbers as digits, other numbers as JavaScript's String() writes them.

    None for None, NaN and the infinities, which identify nobody.
    """
    if unit is None or isinstance(unit, str):
        return unit
    if isinstance(unit, bool):
        return "true" if unit else "false"
    if isinstance(unit, int):
        return str(unit)
    if isinstance(unit, float):
        return _number_text(unit) if math.isfinite(unit) else None
    raise TypeError(f"a unit is a text, a number or a boolean, not {type(unit).__name__}; cast it to text")


def _number_text(number: float) -> str:
    """ECMAScript's Number::toString: the shortest digits, with an exponent below 1e-6 and from 1e21."""
    _, figures, exponent = Decimal(repr(abs(number))).normalize().as_tuple()
    digits, power = "".join(map(str, figures)), int(exponent)
    point = len(digits) + power
    if power >= 0 and point <= 21:
        text = digits + "0" * power
    elif 0 < point <= 21:
        text = f"{digits[:point]}.{digits[point:]}"
    elif -6 < point <= 0:
        text = f"0.{'0' * -point}{digits}"
    else:
        text = f"{digits[0]}{'.' if len(digits) > 1 else ''}{digits[1:]}e{point - 1:+d}"
    return f"-{text}" if number < 0 else text


def bucket_ranges(n: int, coverage: float = 1.0, weights: Sequence[float] | None = None) -> list[Range]:
    """The share [lo, hi) of each of n variants, by GrowthBook's arithmetic: a running float sum of the weights.

    Coverage is clamped to [0, 1] and cuts the end of each variant's own range, so raising it moves nobody
    between variants. Weights that are missing, negative, of another number or with a sum outside
    [0.99, 1.01] become equal.
    """
    coverage = min(max(coverage, 0.0), 1.0)
    ranges, start = [], 0.0
    for weight in _usable(n, weights):
        ranges.append((start, start + coverage * weight))
        start += weight
    return ranges


def _usable(n: int, weights: Sequence[float] | None) -> Sequence[float]:
    if weights is None or len(weights) != n or min(weights, default=0) < 0 or not 0.99 <= sum(weights) <= 1.01:
        return [1 / n] * n if n > 0 else []
    return weights


def scheme_ranges(scheme: str, n: int, coverage: float = 1.0, weights: Sequence[float] | None = None) -> list[Range]:
    """The variants' ranges [lo, hi) in the space of a scheme, for `choose` with `bucket` of that scheme.

    The edges are those of the scheme's product: whole numbers of hundredths, thousandths or ten-thousandths,
    or sums of floats. PlanOut alone divides the weights by their sum.
    """
    weights = _usable(n, weights)
    if scheme == "planout":
        weights = [weight / sum(weights) for weight in weights]
    return in_space(scheme, bucket_ranges(n, coverage, weights))


def in_space(scheme: str, ranges: Iterable[Range]) -> list[Range]:
    """Ranges of shares of [0, 1) in the space of a scheme; an empty range stays empty."""
    edge = scheme_named(scheme).edge
    return [(edge(lo), edge(hi)) for lo, hi in ranges]


def choose(ranges: Sequence[Range], bucket: float | None) -> int:
    """The index of the first range with lo ≤ bucket < hi; -1 for none, and for no bucket."""
    if bucket is None:
        return -1
    return next((index for index, (lo, hi) in enumerate(ranges) if lo <= bucket < hi), -1)


def in_namespace(unit: object, namespace: tuple[str, float, float]) -> bool:
    """Whether a unit is in GrowthBook's namespace (key, start, end): growthbook/1, seed "__" + key."""
    key, start, end = namespace
    return in_ranges("growthbook/1", f"__{key}", unit, [(start, end)])


def in_ranges(scheme: str, seed: str, unit: object, ranges: Iterable[Range]) -> bool:
    """Whether a unit's bucket is in one of several shares of [0, 1): GrowthBook's filters, the newer namespace."""
    return choose(in_space(scheme, ranges), bucket(scheme, seed, unit)) >= 0


def normalise(scheme: str, bucket: float | None) -> float | None:
    """A bucket as a number in [0, 1), to store and to draw; None for no bucket.

    For choosing use `scheme_ranges`: the float edges of [0, 1) miss whole ones, as 0.1 + 0.2 misses 3,000.
    """
    if bucket is None:
        return None
    space = scheme_named(scheme).space
    return min((bucket - space.lowest) / space.size, _BELOW_ONE)
