"""The split of an experiment whose unit is shared by customers, as summary.json and `check` have it."""

from __future__ import annotations

import json
from pathlib import Path

from support.factories import any_campaign
from support.launching import any_place

from runners.cli.main import main
from transforms.reconciliation.sample_ratio import sample_ratio_test

HOUSEHOLDS, EACH = 20, 200
SPLIT = {"key": "door", "unit": "household", "variants": [{"key": "a"}, {"key": "b"}]}


def test_the_sample_ratio_test_counts_households_not_their_customers(tmp_path: Path) -> None:
    place = any_place(tmp_path, any_campaign(experiment=SPLIT), customers=HOUSEHOLDS * EACH,
                      household=lambda n: f"home-{n % HOUSEHOLDS}")  # fmt: skip
    assert place.launch() == 0
    (campaign,) = json.loads((place.output / "summary.json").read_text())["campaigns"]
    split = campaign["experiment"]
    units: dict[str, set[str]] = {"a": set(), "b": set()}
    for row in place.exposures():
        if row["variant"] is not None:
            units[row["variant"]].add(row["unit"])
    assert split["unit"] == "household"
    assert {one["key"]: one["units"] for one in split["variants"]} == {key: len(ids) for key, ids in units.items()}
    assert sum(one["units"] for one in split["variants"]) == HOUSEHOLDS
    assert sample_ratio_test([one["assigned"] for one in split["variants"]], [0.5, 0.5]).mismatch
    assert not split["sample_ratio"]["assigned"]["mismatch"]
    assert not split["sample_ratio"]["emitted"]["mismatch"]
    assert main(["check", str(place.output)]) == 0


def test_where_the_unit_is_the_customer_units_are_the_assigned(tmp_path: Path) -> None:
    place = any_place(tmp_path, any_campaign(), customers=200)
    assert place.launch() == 0
    (campaign,) = json.loads((place.output / "summary.json").read_text())["campaigns"]
    assert all(one["units"] == one["assigned"] for one in campaign["experiment"]["variants"])
