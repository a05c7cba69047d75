"""Compares served values with the same values computed again from the log, as of the same instants.

The log of served vectors has a row a feature: entity, as_of (epoch ms), feature (`GROUP@VERSION:FEATURE`) and value, a
JSON text; null where nothing was known, so that the default was served. A key-sampled log is enough.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from pipelines.operations.features.recompute import Recomputation, flat
from schemas.features.references import resolve
from schemas.problems import InputError, Problem
from transforms.features.point_in_time import Rows

COLUMNS = ("entity", "as_of", "feature", "value")
_MOST_EXAMPLES = 5
_BINS = 10
_LEAST_SHARE = 1e-4  # of a bin, so that an empty one does not make the index infinite


class Example(NamedTuple):
    """One value that differs."""

    entity: str
    as_of: int
    served: Any
    computed: Any


class Consistency(NamedTuple):
    """Of one feature: how many values were served, and of these `mismatched` (both known, not equal: whole numbers and
    text exactly, floating point beyond 1e-9), `missing` (nothing was served, but the log knows a value) and `extra` (a
    value was served of which the log knows nothing).

    `drift` is the population stability index of served against computed numbers, in ten bins of equal computed counts:
    below 0.1 they are alike, above 0.25 they are not. None where there are no numbers on both sides.
    """

    feature: str
    served: int
    mismatched: int
    missing: int
    extra: int
    drift: float | None
    examples: list[Example]


def check(served: pa.Table, recomputation: Recomputation) -> list[Consistency]:
    """What was found, by feature in order of the names. Raises InputError for a log without its columns or with
    features that are not declared."""
    problems = [
        Problem("served log", name, "missing", f"the log has {', '.join(COLUMNS)}")
        for name in COLUMNS
        if name not in served.column_names
    ]
    if problems:
        raise InputError(problems)
    names = served["feature"].unique().to_pylist()
    resolve(names, recomputation.catalogue, problems)
    problems += [
        Problem("served log", "feature", name, "name GROUP@VERSION:FEATURE") for name in names if ":" not in name
    ]
    if problems:
        raise InputError(problems)
    features = flat(served["feature"].cast(pa.string()))
    groups = np.array([text.partition(":")[0] for text in features.to_pylist()], object)
    found = list[Consistency]()
    for group in sorted(set(groups.tolist())):
        found += _check_group(group, served.filter(pa.array(groups == group)), recomputation)
    return sorted(found)


def _check_group(group: str, served: pa.Table, recomputation: Recomputation) -> list[Consistency]:
    entities, times = served["entity"].to_pylist(), served["as_of"].to_pylist()
    places: dict[tuple[str, int], int] = {}
    rows = [places.setdefault(pair, len(places)) for pair in zip(entities, times, strict=True)]
    asked = Rows([entity for entity, _ in places], np.array([time for _, time in places], np.int64))
    known = {name: values.to_pylist() for name, values in recomputation.known(group, asked).items()}
    by_feature: dict[str, list[Example]] = {}
    texts = zip(served["feature"].to_pylist(), served["value"].to_pylist(), rows, strict=True)
    for place, (feature, text, row) in enumerate(texts):
        value = None if text is None else json.loads(text)
        computed = known[feature.partition(":")[2]][row]
        by_feature.setdefault(feature, []).append(Example(entities[place], times[place], value, computed))
    return [_consistency(feature, pairs) for feature, pairs in by_feature.items()]


def _consistency(feature: str, pairs: Sequence[Example]) -> Consistency:
    wrong = [one for one in pairs if not alike(one.served, one.computed)]
    missing = [one for one in wrong if one.served is None]
    extra = [one for one in wrong if one.computed is None]
    mismatched = len(wrong) - len(missing) - len(extra)
    drift = stability([one.served for one in pairs], [one.computed for one in pairs])
    return Consistency(feature, len(pairs), mismatched, len(missing), len(extra), drift, wrong[:_MOST_EXAMPLES])


def alike(served: Any, computed: Any) -> bool:
    """Equal; floating point within 1e-9."""
    if isinstance(served, list) and isinstance(computed, list):
        return len(served) == len(computed) and all(map(alike, served, computed))
    if isinstance(computed, float) and isinstance(served, int | float):
        return math.isclose(served, computed, rel_tol=1e-9, abs_tol=1e-9)
    return type(served) is type(computed) and bool(served == computed)


def stability(actual: Sequence[Any], expected: Sequence[Any]) -> float | None:
    """The population stability index of the numbers among them; None where a side has none."""
    left, right = (np.array([one for one in side if _is_number(one)], np.float64) for side in (actual, expected))
    if not len(left) or not len(right):
        return None
    edges = np.unique(np.quantile(right, np.arange(1, _BINS) / _BINS))
    shares = [
        np.maximum(np.bincount(np.searchsorted(edges, side), minlength=len(edges) + 1) / len(side), _LEAST_SHARE)
        for side in (left, right)
    ]
    return float(((shares[0] - shares[1]) * np.log(shares[0] / shares[1])).sum())


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
