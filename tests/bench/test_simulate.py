"""The simulation of rebatch: it counts right, says the same twice, keeps every limit, and its check can fail."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest

from bench.simulate import MEASURED, checked, cloud, main
from bench.simulation.ceilings import ceilings
from bench.simulation.check import compare, machine, solve
from bench.simulation.plan import Ledger, Plan, Traffic, Vendor, Workers
from bench.simulation.run import Run, counts, shares
from schemas.campaigns.workspaces import Pace

PLAN = Plan(Traffic(retailers=20, backlog=20_000), workers=Workers(workers=3, wait_s=1))


def entries() -> list[dict[str, Any]]:
    return list(json.loads(MEASURED.read_text()))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"traffic_skew": 1.5, "traffic_in_turn": False},
        {"vendor_name": "webhook", "vendor_failing": 0.2, "vendor_lost": 0.0005, "ledger_lease_s": 3.0},
        {"vendor_name": "webhook", "vendor_failing": 0.2, "resend": False},
        {"vendor_lost": 0.1, "resend": False, "is_unknown": True},
        {"vendor_failing": 0.1, "resend": False, "is_unknown": True},
        {"vendor_failing": 0.3, "ledger_lease_s": 3.0, "is_unknown": True},
        {"vendor_every_429": 3, "vendor_retry_after_s": 0.2},
        {"vendor_outage": (0.5, 20.0)},
        {"ledger_op_ms": 20.0, "ledger_events_per_s": 3_000.0, "ledger_cell_ms": 25.0},
        {"traffic_per_second": 900.0, "traffic_seconds": 10.0},
    ],
    ids=str,
)
def test_every_event_ends_in_one_place_and_twice_the_same(changes: dict[str, Any]) -> None:
    changes = dict(changes)
    is_unknown = changes.pop("is_unknown", False)
    found = Run(PLAN.changed(**changes)).run()
    assert sum(found["places"].values()) == found["published"]
    assert set(found["places"]) <= {"accepted", "unknown"}
    assert ("unknown" in found["places"]) == is_unknown
    assert Run(PLAN.changed(**changes)).run() == found


def test_a_pace_is_kept() -> None:
    run = Run(PLAN.changed(pace=Pace(per_second=100, burst=100), traffic_retailers=1, traffic_backlog=3_000))
    found = run.run()
    assert found["seconds"] >= (3_000 - 100) / 100
    level = worst = before = 0.0
    for at, size in run.path.accepted_at:  # settled a little after it left: the answer takes its time
        level = max(0.0, level - (at - before) / 10) + size
        worst, before = max(worst, level), at
    assert worst <= 100 + 100 * 3


def test_the_hour_of_a_workspace_is_kept_and_the_rest_leaves_in_the_next() -> None:
    plan = PLAN.changed(
        vendor_calls_per_hour=50, pace=Pace(calls_per_hour=50), traffic_retailers=1, traffic_backlog=4_000
    )
    run = Run(plan)
    found = run.run()
    assert max(run.path.hours.values()) == 50
    assert found["seconds"] > 3_600
    assert found["places"] == {"accepted": 4_000}


@pytest.mark.parametrize(
    ("changes", "used"),
    [
        ({"workers_event_us": 2_000.0}, "workers_cpu"),
        ({"ledger_events_per_s": 1_000.0}, "ledger"),
        ({"broker_bytes_per_s": 450_000.0}, "broker"),
        ({"ledger_cell_ms": 400.0, "traffic_retailers": 1, "vendor_every_503": 2, "vendor_median_ms": 10.0,
          "traffic_backlog": 2_000},
         "busiest_pacing_cell"),
    ],
    ids=str,
)  # fmt: skip
def test_what_is_short_is_what_limits(changes: dict[str, Any], used: str) -> None:
    plan = PLAN.changed(**changes)
    found = Run(plan).run()
    assert max(found["utilisation"], key=lambda name: found["utilisation"][name]) == used
    assert found["published"] / found["seconds"] <= ceilings(plan)[0].events_per_s


def test_twice_the_workers_halve_the_time() -> None:
    few = Run(PLAN.changed(traffic_backlog=200_000, workers_event_us=2_000.0, workers_workers=2)).run()
    many = Run(PLAN.changed(traffic_backlog=200_000, workers_event_us=2_000.0, workers_workers=4)).run()
    assert many["seconds"] == pytest.approx(few["seconds"] / 2, rel=0.25)


def test_the_autoscaler_adds_workers_to_a_backlog_and_takes_them_away() -> None:
    traffic = Traffic(retailers=20, per_second=600, seconds=900)
    workers = Workers(workers=1, most=8, cores=1, event_us=4_000.0, call_us=0.0, boot_s=60)
    found = Run(Plan(traffic, workers=workers)).run()
    numbers = [number for _, number in found["workers"]]
    assert numbers[0] == 1
    assert 3 <= max(numbers) <= 8
    assert found["workers"][1][0] >= 120 + 60  # seen twice, a minute each, then a start
    assert found["places"] == {"accepted": found["published"]}
    small = Workers(workers=8, most=9, cores=1, event_us=100.0)
    idle = Run(Plan(Traffic(retailers=20, per_second=100, seconds=400), workers=small)).run()
    assert idle["workers"][-1][1] == 1


def test_an_outage_of_the_vendor_is_not_hammered() -> None:
    quiet = Run(PLAN).run()
    found = Run(PLAN.changed(vendor_outage=(0.0, 60.0))).run()
    assert found["places"] == quiet["places"]
    assert found["seconds"] >= 60
    assert found["calls"]["failed"] < quiet["calls"]["made"] * 2


def test_parts_of_all_events_add_up() -> None:
    for skew in (0.0, 0.5, 2.0):
        assert sum(counts(12_345, shares(Traffic(retailers=77, skew=skew))).values()) == 12_345


def test_two_situations_give_what_an_event_and_a_call_cost() -> None:
    seen = {
        "backlog": {"calls_per_event": 0.02, "cpu_us_per_event": {"job": 100 + 0.02 * 3_000}},
        "trickle": {"calls_per_event": 0.5, "cpu_us_per_event": {"job": 100 + 0.5 * 3_000}},
    }
    assert solve(seen, ("job",)) == pytest.approx((100, 3_000))


def test_it_agrees_with_every_machine_that_was_measured() -> None:
    for entry in entries():
        assert [row for row in compare(entry) if not row.good] == []


def test_the_check_fails_when_a_measured_number_is_another(capsys: pytest.CaptureFixture[str]) -> None:
    entry = entries()[-1]
    for situation, number, by in (("kafka", "events_per_s", 2.0), ("stream", "p50_ms", 0.4), ("slowed", "calls", 1.3)):
        other = copy.deepcopy(entry)
        other["seen"][situation][number] *= by
        said: list[str] = []
        assert not checked([other], said.append)
        assert f"{situation:10} {number}" in said[0]
        assert "FAILS" in said[0]
    assert not checked([], said.append)


def test_nothing_is_simulated_that_was_not_checked(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    entry = entries()[-1]
    entry["seen"]["kafka"]["events_per_s"] *= 3
    wrong = tmp_path / "wrong.json"
    wrong.write_text(json.dumps([entry]))
    monkeypatch.setattr("sys.argv", ["simulate", "run", "launch", "--measured", str(wrong)])
    assert main() == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert "FAILS" in said.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["run", "lunch"], "'lunch' is no scenario; there are day"),
        (["run", "launch", "workers_wings=2"], "a plan has no workers_wings"),
        (["run", "launch", "workers"], "workers is a Workers, not ''; give NAME=VALUE"),
        (["run", "launch", "workers_cores=none"], "workers_cores must be a number from 1, not 'none'"),
        (["run", "launch", "workers_workers=0"], "workers_workers must be a number from 1, not 0"),
        (["check", "--measured", "/nowhere.json"], "python -m bench.costs"),
    ],
)
def test_a_wrong_argument_is_told(
    arguments: list[str], said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["simulate", *arguments])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 2
    assert said in capsys.readouterr().err


def test_the_ceiling_of_the_vendor_is_the_one_that_its_documentation_gives() -> None:
    plan = cloud(entries()[-1]).changed(traffic_retailers=350)
    found = {one.resource: one.events_per_s for one in ceilings(plan)}
    assert found["the vendor's calls of an hour"] == pytest.approx(1_215_278, rel=0.001)
    assert found["the ledger's index"] == 32_000
    assert machine(entries()[-1]).workers.busy <= 1


def test_a_ledger_elsewhere_adds_its_round_trips() -> None:
    near = Run(PLAN.changed(traffic_backlog=0, traffic_per_second=50.0, traffic_seconds=20.0)).run()
    far = Run(
        PLAN.changed(
            traffic_backlog=0, traffic_per_second=50.0, traffic_seconds=20.0, ledger=Ledger(op_ms=200), vendor=Vendor()
        )
    ).run()
    assert far["latency_ms"]["p50"] - near["latency_ms"]["p50"] == pytest.approx(400, abs=60)


def test_a_503_of_braze_may_have_been_sent_and_one_of_a_webhook_was_not() -> None:
    braze, webhook = (
        Run(PLAN.changed(vendor_failing=0.1, resend=False, vendor_name=name)).run() for name in ("braze", "webhook")
    )
    assert "unknown" in braze["calls"]
    assert "failed" not in braze["calls"]
    assert "failed" in webhook["calls"]
    assert "unknown" not in webhook["calls"]
    assert webhook["places"] == {"accepted": webhook["published"]}


def test_a_call_without_an_answer_is_made_again_only_so_often() -> None:
    found = Run(PLAN.changed(vendor_failing=1.0, ledger_lease_s=3.0)).run()
    assert found["places"] == {"unknown": found["published"]}
    assert found["calls_over_minimum"] < 1.5 * 3
