from pathlib import Path
from typing import Any

import pytest
from support.factories import any_campaign, any_folder

from schemas.campaigns.configuration import load_configuration

VARIANTS = [{"key": "a"}, {"key": "b"}]


def experiment(key: str, **changes: Any) -> dict[str, Any]:
    return {"key": key, "variants": VARIANTS, **changes}


def problems(root: Path, *experiments: dict[str, Any], **campaign: Any) -> dict[str, str]:
    """file:field → what to do, for campaigns with these experiments."""
    names = ["first", "second", "third"]
    pairs = zip(names, experiments, strict=False)
    folder = any_folder(root, *(any_campaign(id=name, experiment=one, **campaign) for name, one in pairs))
    return {f"{p.file}:{p.field}": p.fix for p in load_configuration(folder)[1]}


def spaces(root: Path, *namespaces: dict[str, Any]) -> dict[str, str]:
    """The problems of campaigns with an experiment each in these namespaces."""
    return problems(root, *(experiment(f"e{n}", namespace=space) for n, space in enumerate(namespaces)))


@pytest.mark.parametrize(
    ("first", "second", "field", "expected"),
    [
        ({"range": [0, 0.5]}, {"range": [0.4, 1]}, "range", ["[0.0, 0.5] of first.yaml", "namespace.range", "0.4 to 0.5"]),
        ({"range": [0, 1]}, {"range": [0.2, 0.3]}, "range", ["0.2 to 0.3"]),
        ({"ranges": [[0, 0.1], [0.7, 0.8]]}, {"ranges": [[0.2, 0.3], [0.75, 1]]}, "ranges", ["[0.7, 0.8]", "0.75 to 0.8"]),
        ({"ranges": [[0, 0.5]], "seed": "s"}, {"range": [0.3, 0.6], "seed": "s"}, "range", ["experiment.namespace.ranges"]),
        ({"ranges": [[0, 0.5]], "seed": "s"}, {"ranges": [[0.5, 1]], "seed": "t"}, "seed", ["seed t here", "seed s in first.yaml"]),
        ({"ranges": [[0, 0.5]]}, {"ranges": [[0.5, 1]], "seed": "t"}, "seed", ["seed n in first.yaml"]),
        ({"range": [0, 0.5]}, {"ranges": [[0.5, 1]]}, "ranges", ["growthbook/2", "growthbook/1"]),
        ({"range": [0, 0.5]}, {"range": [0.5, 1], "unit": "household"}, "unit", ["unit household here", "customer_id in first.yaml"]),
    ],
)  # fmt: skip
def test_experiments_that_share_a_namespace_without_excluding_each_other_are_refused(
    tmp_path: Path, first: dict[str, Any], second: dict[str, Any], field: str, expected: list[str]
) -> None:
    found = spaces(tmp_path, {"key": "n", **first}, {"key": "n", **second})
    assert list(found) == [f"second.yaml:experiment.namespace.{field}"]
    assert all(part in found[f"second.yaml:experiment.namespace.{field}"] for part in expected), found


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"key": "n", "range": [0, 0.5]}, {"key": "n", "range": [0.5, 1]}),
        ({"key": "n", "ranges": [[0, 0.1], [0.3, 0.4]]}, {"key": "n", "ranges": [[0.1, 0.3], [0.4, 1]]}),
        ({"key": "n", "ranges": [[0, 0.5]]}, {"key": "n", "range": [0.5, 1], "seed": "n"}),
        ({"key": "n", "range": [0, 0.5]}, {"key": "m", "range": [0, 0.5]}),
        ({"key": "n", "range": [0, 0.5]}, {"key": "n", "range": [0.5, 1], "unit": "customer_id"}),
    ],
)
def test_experiments_that_exclude_each_other_are_sound(
    tmp_path: Path, first: dict[str, Any], second: dict[str, Any]
) -> None:
    assert spaces(tmp_path, first, second) == {}


def test_every_pair_that_overlaps_is_reported(tmp_path: Path) -> None:
    found = spaces(tmp_path, *({"key": "n", "range": [low, low + 0.4]} for low in (0.0, 0.2, 0.5)))
    assert sorted(found) == [f"{name}.yaml:experiment.namespace.range" for name in ("second", "third")]


def test_two_campaigns_of_one_experiment_share_its_range(tmp_path: Path) -> None:
    one = experiment("e", namespace={"key": "n", "range": [0, 0.5]})
    assert problems(tmp_path / "same", one, one) == {}
    assert problems(tmp_path / "other", one, {**one, "seed": "other"})


def arms(*having: bool, holdout: float = 0.0) -> dict[str, Any]:
    return {
        "key": "e",
        "holdout": holdout,
        "variants": [{"key": f"v{n}", "offers": ["five"] if has else []} for n, has in enumerate(having)],
    }


@pytest.mark.parametrize(
    ("having", "on_exhausted", "expected"),
    [
        ((False, True), "suppress", "the variant 'v1' would lose customers and the variant 'v0' none"),
        ((True, False, False), "suppress", "the variants 'v1', 'v2' none"),
        ((True, True), "suppress", None),
        ((True,), "suppress", None),
        ((False, True), "suppress_all_variants", None),
        ((False, True), "without", None),
        ((False, False), "suppress_all_variants", "no variant of an experiment has this offer; write `suppress`"),
    ],
)
def test_an_offer_that_suppresses_one_variant_alone_is_refused(
    tmp_path: Path, having: tuple[bool, ...], on_exhausted: str, expected: str | None
) -> None:
    offers = [{"id": "five", "kind": "fixed", "budget": 3, "on_exhausted": on_exhausted}]
    found = problems(tmp_path, arms(*having), offers=offers)
    assert list(found) == ([] if expected is None else ["first.yaml:offers.0.on_exhausted"])
    assert expected is None or expected in found["first.yaml:offers.0.on_exhausted"]


def test_without_an_experiment_nothing_is_compared(tmp_path: Path) -> None:
    for on_exhausted, wrong in (("suppress", False), ("suppress_all_variants", True)):
        offers = [{"id": "five", "kind": "fixed", "budget": 3, "on_exhausted": on_exhausted}]
        folder = any_folder(tmp_path, any_campaign(experiment=None, offers=offers, content={"offers": ["five"]}))
        assert bool(load_configuration(folder)[1]) is wrong


@pytest.mark.parametrize(
    "change",
    [
        {"seed": "other"},
        {"hash": "eppo"},
        {"coverage": 0.5},
        {"variants": [{"key": "a", "weight": 0.9}, {"key": "b", "weight": 0.1}]},
        {"variants": [{"key": "a"}, {"key": "c"}]},
    ],
)
def test_one_key_of_two_different_experiments_is_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    found = problems(tmp_path, experiment("split"), experiment("split", **change))
    assert found.keys() == {"second.yaml:experiment.key"}
    assert "first.yaml runs an experiment of this key" in found["second.yaml:experiment.key"]


def test_two_campaigns_may_run_one_experiment(tmp_path: Path) -> None:
    halves = [{"key": "a", "weight": 0.5}, {"key": "b", "weight": 0.5}]
    assert problems(tmp_path, experiment("split"), experiment("split", variants=halves, seed="split")) == {}
