"""campaigns features list, describe and run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from runners.cli.main import main

DECLARED = str(Path(__file__).parents[3] / "examples/features")


def test_groups_are_listed_and_described(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["features", "list", "--features", DECLARED]) == 0
    assert "household_spend@1" in capsys.readouterr().out
    assert main(["features", "describe", "item_sales", "--features", DECLARED, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["key"] == ["store_id", "product_id"]


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["list", "x"], "entity"),
        (["describe"], "GROUP"),
        (["describe", "no_group"], "no_group"),
        (["get", "household_id=h1"], "--store"),
        (["run", "--feature_store=nowhere"], "--events"),
    ],
)
def test_mistakes_are_named(words: list[str], named: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["features", *words, *([] if words[0] == "run" else ["--features", DECLARED])]) == 2
    assert named in capsys.readouterr().err


def test_run_explains_its_own_options(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["features", "run", "--help"]) == 0
    printed = capsys.readouterr().out
    assert "--feature_store" in printed
    assert "--dataflow_endpoint" not in printed
