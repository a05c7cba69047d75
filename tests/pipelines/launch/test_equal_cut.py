"""An offer that runs out and suppresses all variants: every one ends at the same place of the hash order."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from support.factories import SECRET, any_campaign, any_engine
from support.launching import Place, any_place

from runners.cli.main import main
from transforms.columnar.digests import digests
from transforms.experiments.hash_schemes_arrow import bucket_column
from transforms.reconciliation.sample_ratio import sample_ratio_test

LIMITED = {"id": "five", "kind": "unique_code", "budget": 40, "on_exhausted": "suppress_all_variants"}


@pytest.fixture(autouse=True)
def _secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAMPAIGNS_CODE_SECRET", SECRET)


def place_of(root: Path, *offers: dict[str, Any], holdout: float = 0.2, **changes: Any) -> Place:
    """A place with one campaign of three variants, of which `code` has the offers."""
    names = [offer["id"] for offer in offers]
    variants = [{"key": "plain", "weight": 0.3}, {"key": "code", "weight": 0.5, "offers": names}, {"key": "other", "weight": 0.2}]  # fmt: skip
    experiment = {"key": "e", "holdout": holdout, "variants": variants}
    engine = any_engine(holdouts={"global": {"share": 0.05, "seed": "g"}})
    campaign = any_campaign(experiment=experiment, offers=list(offers), **changes)
    return any_place(root, campaign, customers=900, engine=engine)


def order(row: dict[str, Any], offer: str = "five") -> str:
    """The place in the hash order, as docs/launch.md gives it."""
    text = "\x1f".join(["launch-1", "welcome", offer, row["retailer_id"], row["customer_id"]])
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def could_be_sent(row: dict[str, Any]) -> bool:
    return row["outcome"] == "emitted" or row["reason"] == "offer_exhausted"


def summary(place: Place) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((place.output / "summary.json").read_text())["campaigns"][0]
    return found


@pytest.mark.parametrize("workers", [1, 2])
def test_every_variant_ends_where_the_limited_one_has_used_its_budget(tmp_path: Path, workers: int) -> None:
    place = place_of(tmp_path, LIMITED)
    assert place.launch("--batch_rows=100", f"--direct_num_workers={workers}") == 0
    rows = place.exposures()
    queue = sorted(order(row) for row in rows if row["variant"] == "code" and could_be_sent(row))
    assert len(queue) > 100
    last = queue[39]
    for row in rows:
        late = order(row) > last
        if row["variant"] is not None and could_be_sent(row):
            assert (row["outcome"] == "suppressed") is late
            assert (row["suppression"] == "offer_exhausted") is late
        if row["outcome"] == "held_out" and row["suppression"] in (None, "offer_exhausted"):
            assert (row["suppression"] == "offer_exhausted") is late
    emitted = {
        key: [row for row in rows if row["variant"] == key and row["outcome"] == "emitted"] for key in ("code", "plain")
    }
    assert len(emitted["code"]) == 40
    assert 0 < len(emitted["plain"]) < 40
    assert sum(len(event["offers"]) for event in place.events().values()) == 40


def test_the_counts_say_how_many_and_check_finds_the_split_as_weighted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = place_of(tmp_path, LIMITED)
    assert place.launch("--batch_rows=100") == 0
    rows, one = place.exposures(), summary(place)
    late = [row for row in rows if row["reason"] == "offer_exhausted"]
    offer = one["offers"][0]
    assert offer["granted"] == 40
    assert offer["exhausted"] == sum(row["variant"] == "code" for row in late)
    assert offer["others_suppressed"] == sum(row["variant"] != "code" for row in late) > 0
    held = [row for row in rows if row["outcome"] == "held_out" and row["suppression"] == "offer_exhausted"]
    assert offer["held_out_exhausted"] == len(held) > 0
    assert one["suppressed"]["offer_exhausted"] == len(late)
    assert not any(test["mismatch"] for test in one["experiment"]["sample_ratio"].values())
    capsys.readouterr()
    assert main(["check", str(place.output)]) == 0
    assert "the split of the emitted is as weighted" in capsys.readouterr().out
    assert f'<td class="n">{len(held):,}</td>' in (place.output / "report.html").read_text()
    for row in (late[0], held[0], next(row for row in rows if row["outcome"] == "emitted")):
        assert main(["why", row["customer_id"], "welcome", "--launch", str(place.output)]) == 0
        side = "not after" if row["outcome"] == "emitted" else "after"
        text = capsys.readouterr().out
        assert f"offer             five, the first 40 by hash order: place {order(row)[:8]} is {side} " in text
        assert ("suppression   offer_exhausted" in text) is (side == "after")


def test_who_does_not_meet_the_condition_is_cut_in_no_variant(tmp_path: Path) -> None:
    place = place_of(tmp_path, {**LIMITED, "when": "orders > 5"})
    assert place.launch() == 0
    late = {row["customer_id"] for row in place.exposures() if row["suppression"] == "offer_exhausted"}
    assert late
    assert all(int(name[2:]) % 13 > 5 for name in late)


@pytest.mark.parametrize(("budget", "late"), [(0, 1.0), (100_000, 0.0)])
def test_a_budget_of_none_cuts_all_and_one_for_all_cuts_nobody(tmp_path: Path, budget: int, late: float) -> None:
    place = place_of(tmp_path, {**LIMITED, "budget": budget})
    assert place.launch() == 0
    reached = [row for row in place.exposures() if row["variant"] is not None and could_be_sent(row)]
    assert sum(row["outcome"] == "suppressed" for row in reached) == late * len(reached)


@pytest.mark.parametrize("codes", [30, 100_000])
def test_a_code_list_cuts_as_a_budget_does(tmp_path: Path, codes: int) -> None:
    limited = {"id": "five", "kind": "code_list", "codes": "lists/many.csv", "on_exhausted": "suppress_all_variants"}
    place = place_of(tmp_path, limited)
    lists = tmp_path / "campaigns" / "lists"
    (lists / "many.csv").write_text("\n".join(f"CODE-{n}" for n in range(codes)))
    assert place.launch() == 0
    rows = [row for row in place.exposures() if row["variant"] is not None and could_be_sent(row)]
    queue = sorted(order(row) for row in rows if row["variant"] == "code")
    last = queue[29] if codes == 30 else "g"
    assert {row["customer_id"] for row in rows if row["outcome"] == "suppressed"} == {
        row["customer_id"] for row in rows if order(row) > last
    }


def test_several_limited_offers_share_one_order_and_the_shortest_queue_decides(tmp_path: Path) -> None:
    place = place_of(tmp_path, LIMITED, {**LIMITED, "id": "ten", "budget": 25})
    assert place.launch() == 0
    rows = [row for row in place.exposures() if row["variant"] is not None and could_be_sent(row)]
    queue = sorted(order(row) for row in rows if row["variant"] == "code")
    assert all((row["outcome"] == "suppressed") is (order(row) > queue[24]) for row in rows)
    assert [offer["granted"] for offer in summary(place)["offers"]] == [25, 25]


def test_an_offer_of_all_variants_that_suppresses_marks_the_held_out_too(tmp_path: Path) -> None:
    offer = {**LIMITED, "on_exhausted": "suppress"}
    experiment = {
        "key": "e",
        "holdout": 0.2,
        "variants": [{"key": "a", "offers": ["five"]}, {"key": "b", "offers": ["five"]}],
    }
    place = any_place(tmp_path, any_campaign(experiment=experiment, offers=[offer]), customers=900, engine=any_engine())
    assert place.launch() == 0
    rows = place.exposures()
    last = max(order(row) for row in rows if row["outcome"] == "emitted")
    held = [row for row in rows if row["outcome"] == "held_out" and row["suppression"] in (None, "offer_exhausted")]
    assert 0 < sum(row["suppression"] is None for row in held) < len(held)
    assert all((row["suppression"] is None) is (order(row) < last) for row in held)


def test_the_cut_gives_no_false_alarm_and_the_uncut_arm_would() -> None:
    """Over 400 launches the p-values of the split are as chance has them: one in twenty is below 0.05."""
    customers = pa.array([f"c-{n}" for n in range(3_000)])
    retailers = pa.array(["store-1"] * 3_000)
    cut, uncut = [], []
    for launch in range(400):
        first = bucket_column("optimizely", f"free-delivery-{launch}", customers) < 5_000
        keys = digests(f"launch-{launch}\x1fwelcome\x1ffive\x1f", retailers, customers)
        sent = keys <= np.sort(keys[first])[199]
        counts = [int(np.count_nonzero(sent & first)), int(np.count_nonzero(sent & ~first))]
        assert counts[0] == 200
        cut.append(sample_ratio_test(counts, [0.5, 0.5]))
        uncut.append(sample_ratio_test([200, int(np.count_nonzero(~first))], [0.5, 0.5]))
    assert 8 <= sum(test.p_value < 0.05 for test in cut) <= 34
    assert sum(test.mismatch for test in cut) <= 2
    assert all(test.mismatch for test in uncut)
