"""Against the products' own SDKs: GrowthBook's runs here, the others' answers stand in a golden file."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import growthbook.core
import numpy as np
import pyarrow as pa
import pytest
from growthbook import Experiment, GrowthBook

from transforms.experiments.assignment import (
    SCHEMES,
    bucket,
    bucket_ranges,
    choose,
    in_namespace,
    in_ranges,
    scheme_ranges,
)
from transforms.experiments.hash_schemes_arrow import (
    bucket_column,
    choose_column,
    in_ranges_column,
)

GOLDEN = json.loads((Path(__file__).parents[2] / "golden" / "assignment_vectors.json").read_text("utf-8"))
USERS: list[Any] = [
    *(f"cust-{number:08d}" for number in range(0, 2_500)),
    *(f"пользователь-{number}" for number in range(300)),
    *(f"{number}😀日本é" for number in range(300)),
    "ann@example.com", "a b", "\x1f", "x" * 500, "",
]  # fmt: skip
NUMBERS: list[Any] = [*range(1, 300), 0.5, 1e21, 1e-7, 123456.75, 9_007_199_254_740_993.0]


def growthbook_variants(users: list[Any], **experiment: Any) -> list[int]:
    """What the SDK itself assigns, -1 where it leaves a user out."""
    names = len(experiment["weights"])
    sdk = GrowthBook(attributes={})
    chosen = []
    for user in users:
        sdk.set_attributes({"id": user, "company": f"co-{user}"})
        result = sdk.run(Experiment(key="spring", variations=list(range(names)), **experiment))
        chosen.append(result.variationId if result.inExperiment else -1)
    return chosen


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize(
    ("coverage", "weights"),
    [(1.0, [0.5, 0.5]), (0.4, [0.1, 0.2, 0.7]), (1.0, [0.05, 0.95]), (0.999, [1 / 3] * 3), (1.0, [0.3, 0.3])],
)
def test_growthbook_assigns_the_same_variants(version: int, coverage: float, weights: list[float]) -> None:
    expected = growthbook_variants(USERS, coverage=coverage, weights=weights, hashVersion=version, seed="s-é")
    ranges = bucket_ranges(len(weights), coverage, weights)
    scheme = f"growthbook/{version}"
    assert scheme_ranges(scheme, len(weights), coverage, weights) == ranges
    assert [choose(ranges, bucket(scheme, "s-é", user)) for user in USERS] == expected
    assert choose_column(ranges, bucket_column(scheme, "s-é", pa.array(USERS))).tolist() == expected
    assert min(Counter(expected)[variant] for variant in range(len(weights))) > 100


@pytest.mark.parametrize("version", [1, 2])
def test_growthbook_assigns_numbers_the_same_variants(version: int) -> None:
    expected = growthbook_variants(NUMBERS, weights=[0.5, 0.5], hashVersion=version)
    ranges = bucket_ranges(2)
    assert [choose(ranges, bucket(f"growthbook/{version}", "spring", user)) for user in NUMBERS] == expected


def test_growthbooks_namespace_takes_the_same_users() -> None:
    namespace = ("shared", 0.2, 0.65)
    expected = growthbook_variants(USERS, weights=[1.0, 0.0], namespace=namespace, hashVersion=2)
    within = in_ranges_column("growthbook/1", "__shared", pa.array(USERS), [namespace[1:]])
    assert np.where(within, 0, -1).tolist() == expected
    assert [in_namespace(user, namespace) for user in USERS] == within.tolist()


@pytest.mark.parametrize("version", [1, 2])
def test_growthbooks_filters_take_the_same_users(version: int) -> None:
    ranges = [(0.0, 0.25), (0.5, 0.6), (0.9, 1.0)]
    filters = [{"seed": "own", "ranges": ranges, "hashVersion": version, "attribute": "company"}]
    expected = growthbook_variants(USERS, weights=[1.0, 0.0], filters=filters, hashVersion=2)
    expected = [-1 if not user else variant for user, variant in zip(USERS, expected, strict=True)]
    companies = [f"co-{user}" if user else None for user in USERS]
    within = in_ranges_column(f"growthbook/{version}", "own", pa.array(companies), ranges)
    assert np.where(within, 0, -1).tolist() == expected
    assert [in_ranges(f"growthbook/{version}", "own", one, ranges) for one in companies] == within.tolist()


@pytest.mark.parametrize("weights", [None, [0.5, 0.5], [0.2, 0.3, 0.5], [0.1] * 10, [0.9, 0.2], [1.2, -0.2]])
@pytest.mark.parametrize("coverage", [-0.5, 0.0, 0.1, 0.7, 1.0, 1.5])
def test_growthbooks_ranges_are_the_same_to_the_last_bit(weights: list[float] | None, coverage: float) -> None:
    n = len(weights or [1, 1, 1])
    assert bucket_ranges(n, coverage, weights) == growthbook.core.getBucketRanges(n, coverage, weights)


@pytest.mark.parametrize("case", GOLDEN, ids=lambda case: f"{case['scheme']}-{case['coverage']}-{case['variants']}")
def test_the_sdk_of_the_scheme_assigned_the_same_variants(case: dict[str, Any]) -> None:
    scheme, seed = case["scheme"], case["seed"]
    ranges = scheme_ranges(scheme, case["variants"], case["coverage"], case["weights"])
    units, expected = list(case["chosen"]), list(case["chosen"].values())
    assert [choose(ranges, bucket(scheme, seed, unit)) for unit in units] == expected
    assert choose_column(ranges, bucket_column(scheme, seed, pa.array(units))).tolist() == expected


def test_every_scheme_is_checked_against_its_sdk() -> None:
    assert {case["scheme"] for case in GOLDEN} == {name for name in SCHEMES if not name.startswith("growthbook")}
