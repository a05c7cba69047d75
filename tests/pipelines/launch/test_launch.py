import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from support.factories import SECRET, any_campaign
from support.launching import ROOT, any_place

from runners.cli.main import main

GOLDEN = Path(__file__).parents[2] / "golden" / "launch.json"


@pytest.fixture(autouse=True)
def _secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAMPAIGNS_CODE_SECRET", SECRET)


def test_a_launch_gives_the_golden_events_and_dead_letters(tmp_path: Path) -> None:
    place = any_place(tmp_path, customers=30, customer_id=lambda n: {4: "c-3", 11: "", 12: "c\t12"}.get(n, f"c-{n}"),
                      retailer_id=lambda n: None if n == 20 else f"store-{0 if n in (3, 4) else n % 3}")  # fmt: skip
    assert place.launch() == 0
    found = {
        "events": sorted(place.events().values(), key=lambda event: str(event["event_id"])),
        "dead_letters": [{**letter._asdict(), "data": letter.data.decode()} for letter in place.dead_letters()],
    }
    text = json.dumps(found, indent=1, default=str, ensure_ascii=False) + "\n"
    if os.environ.get("WRITE_GOLDEN"):
        GOLDEN.write_text(text)
    assert json.loads(text) == json.loads(GOLDEN.read_text())


def test_the_ledger_closes_and_the_folder_holds_what_it_should(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = any_place(tmp_path)
    assert place.launch() == 0
    assert main(["check", str(place.output)]) == 0
    assert "WRONG" not in capsys.readouterr().out
    assert {path.name for path in place.output.iterdir()} >= {
        "manifest.json", "summary.json", "report.html", "exposures", "dead_letters", "sticky.parquet",
    }  # fmt: skip
    summary = json.loads((place.output / "summary.json").read_text())
    assert summary["state"] == "finished"
    assert "The ledger does not close" not in (place.output / "report.html").read_text()
    assert sum(one["emitted"] for one in summary["campaigns"]) == len(place.events())
    emitted = [row for row in place.exposures() if row["outcome"] == "emitted"]
    assert {row["event_id"] for row in emitted} == set(place.events())


def test_a_budget_over_many_batches_and_workers_is_exact(tmp_path: Path) -> None:
    place = any_place(tmp_path, customers=900)
    assert place.launch("--batch_rows=100", "--direct_num_workers=2") == 0
    given = Counter(offer["id"] for event in place.events().values() for offer in event["offers"])
    assert given["five"] == 60
    assert given["list"] == 40
    assert given["one"] > 0
    codes = [o["code"] for e in place.events().values() for o in e["offers"] if o["id"] in ("five", "list")]
    assert len(set(codes)) == len(codes)


def test_of_customers_with_one_address_the_preferred_one_is_kept(tmp_path: Path) -> None:
    place = any_place(tmp_path, any_campaign(experiment=None), engine={"channels": {"email": {"address": "email"}},
                      "shared_address": {"column": "spend", "keep": "highest"}}, customers=60, lists={},
                      spend=lambda n: float(n))  # fmt: skip
    assert place.launch() == 0
    found = {row["customer_id"]: row["reason"] for row in place.exposures()}
    shared = [name for name, reason in found.items() if reason == "shared_address"]
    assert sorted(shared) == sorted(f"c-{n - 3}" for n in range(60) if n % 10 == 9)
    recipients = Counter((e["retailer_id"], e["recipient"]) for e in place.events().values())
    assert set(recipients.values()) == {1}


def test_a_shared_address_is_decided_among_those_to_be_sent_and_never_told_of_the_held_out(tmp_path: Path) -> None:
    engine = {"channels": {"email": {"address": "email"}}, "holdouts": {"global": {"share": 0.5}}}
    place = any_place(
        tmp_path, any_campaign(experiment=None), engine=engine, customers=60, email=lambda n: f"c{n % 6}@x.com"
    )
    assert place.launch() == 0
    rows = place.exposures()
    held = [row for row in rows if row["outcome"] == "held_out"]
    assert {row["suppression"] for row in held} == {None}
    assert len(held) > 10
    assert {row["reason"] for row in rows} >= {"shared_address", "global"}


def test_one_worker_and_two_give_the_same_events(tmp_path: Path) -> None:
    one, two = any_place(tmp_path / "one"), any_place(tmp_path / "two")
    assert one.launch("--batch_rows=50") == 0
    assert two.launch("--batch_rows=50", "--direct_num_workers=2") == 0
    assert one.events() == two.events()
    assert len(one.events()) > 300


def test_the_size_of_the_batches_changes_no_event(tmp_path: Path) -> None:
    one, two = any_place(tmp_path / "one"), any_place(tmp_path / "two")
    assert one.launch("--batch_rows=1000") == 0
    assert two.launch("--batch_rows=37") == 0

    def traceless(events: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        return {name: {**event, "trace": ""} for name, event in events.items()}

    assert traceless(one.events()) == traceless(two.events())


def test_launching_again_changes_nothing_and_other_inputs_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = any_place(tmp_path)
    assert place.launch() == 0
    before = place.events()
    assert place.launch() == 0
    assert place.events() == before
    capsys.readouterr()
    assert place.launch("--launch_id=launch-2") == 2
    assert "holds the launch launch-1" in capsys.readouterr().err
    text = (tmp_path / "campaigns" / "text.yaml").read_text()
    (tmp_path / "campaigns" / "text.yaml").write_text(text + "description: changed\n")
    assert place.launch() == 2
    assert "give another --output (and no --launch_id that was used before)" in capsys.readouterr().err


def test_a_launch_without_an_id_makes_one_up_and_keeps_it(tmp_path: Path) -> None:
    place = any_place(tmp_path)
    argv = [option for option in place.argv() if not option.startswith("--launch_id")]
    assert main(["launch", *argv]) == 0
    first = json.loads((place.output / "manifest.json").read_text())["launch_id"]
    assert main(["launch", *argv]) == 0
    assert json.loads((place.output / "manifest.json").read_text())["launch_id"] == first
    assert {event["launch_id"] for event in place.events().values()} == {first}


@pytest.mark.parametrize("seed", range(2))
def test_a_launch_killed_at_random_moments_resumes_to_the_same_events(tmp_path: Path, seed: int) -> None:
    calm, killed = any_place(tmp_path / "calm", customers=1500), any_place(tmp_path / "killed", customers=1500)
    assert calm.launch("--batch_rows=20") == 0
    moments = random.Random(seed)
    kills = 0
    for _ in range(4):
        process = killed.start("--batch_rows=20")
        done = len(list((killed.output / "exposures").glob("*.parquet"))) if killed.output.exists() else 0
        until = done + moments.randrange(1, 30)
        while process.poll() is None and len(list((killed.output / "exposures").glob("*.parquet"))) < until:
            time.sleep(0.005)
        if process.poll() is None:
            time.sleep(moments.random() * 0.05)
            process.send_signal(signal.SIGKILL)
            kills += 1
        process.communicate()
        if killed.output.exists():
            assert main(["check", str(killed.output)]) == 0
    assert kills > 0
    assert killed.launch("--batch_rows=20") == 0
    assert killed.events() == calm.events()
    assert main(["check", str(killed.output)]) == 0
    calm_rows, killed_rows = (
        sorted(p.exposures(), key=lambda r: (r["campaign_id"], r["customer_id"])) for p in (calm, killed)
    )
    assert [{**row, "deliver_after": 0} for row in calm_rows] == [{**row, "deliver_after": 0} for row in killed_rows]


def test_sticky_assignments_go_from_launch_to_launch(tmp_path: Path) -> None:
    first = any_place(tmp_path / "first")
    assert first.launch() == 0
    kept = {row["unit"]: row["variant"] for row in pq.read_table(first.output / "sticky.parquet").to_pylist()}
    changed = any_campaign(id="text", channel="sms", experiment={"key": "t", "sticky": True, "seed": "another",
                           "variants": [{"key": "a"}, {"key": "b"}]})  # fmt: skip
    second = any_place(tmp_path / "second", changed)
    assert second.launch(f"--sticky={first.output / 'sticky.parquet'}") == 0
    found = {e["customer_id"]: e["experiment"]["variant"] for e in second.events().values()}
    assert {one: found[one] for one in kept if one in found} == {one: v for one, v in kept.items() if one in found}
    assert {e["experiment"]["scheme"] for e in second.events().values() if e["customer_id"] in kept} == {"sticky"}


def test_an_earlier_launch_counts_for_the_cap_and_a_test_does_not(tmp_path: Path) -> None:
    plain = any_campaign(experiment=None, schedule={"start": "2026-04-01T09:00"})
    later = any_campaign(experiment=None, schedule={"start": "2026-04-03T09:00"})
    for name, more, wanted in (("real", (), 0), ("tested", ("--test",), 300)):
        before, after = any_place(tmp_path / name / "1", plain), any_place(tmp_path / name / "2", later)
        assert before.launch(*more) == 0
        assert after.launch(f"--history={before.output}", "--launch_id=launch-1") == 0
        refused = [row for row in after.exposures() if row["reason"] == "frequency_cap"]
        sent = [row for row in before.exposures() if row["outcome"] == "emitted"]
        assert len(refused) == (len(sent) if wanted == 0 else 0)


def test_forced_customers_never_count_in_the_split(tmp_path: Path) -> None:
    experiment = {"key": "e", "variants": [{"key": "a"}, {"key": "b"}], "force": {f"c-{n}": "b" for n in range(100)}}
    place = any_place(tmp_path, any_campaign(experiment=experiment))
    assert place.launch() == 0
    (one,) = json.loads((place.output / "summary.json").read_text())["campaigns"]
    assert one["experiment"]["forced"] == 100
    assert sum(variant["assigned"] for variant in one["experiment"]["variants"]) <= 200
    assert not one["experiment"]["sample_ratio"]["assigned"]["mismatch"]
    assert not (place.output / "sticky.parquet").exists()


def test_a_launch_in_a_process_of_its_own_prints_its_phases_and_nothing_else_on_standard_error(tmp_path: Path) -> None:
    place = any_place(tmp_path)
    command = [sys.executable, "-m", "runners.cli.start", "launch", *place.argv()]
    environment = {**os.environ, "CAMPAIGNS_CODE_SECRET": SECRET}
    process = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert process.returncode == 0
    phases = [
        "Reading and checking …",
        "Looking for duplicates, shared addresses, queues …",
        "Launching …",
        "Summing up …",
        "",
    ]
    assert process.stderr.splitlines() == phases


def test_a_launch_logs_json_with_launch_and_campaign_when_asked(tmp_path: Path) -> None:
    _, errors = any_place(tmp_path, any_campaign()).start("--log_format=json").communicate()
    lines = [json.loads(line) for line in errors.splitlines()]
    assert [line["message"] for line in lines if line["message"].startswith("phase")][:1] == ["phase: read and check"]
    (finished,) = [line for line in lines if line["message"].endswith("is launched")]
    assert (finished["launch"], finished["campaign"]) == ("launch-1", any_campaign()["id"])
    assert finished["counts"]["emitted"] > 0


def test_mistakes_in_the_input_are_a_json_line_too(tmp_path: Path) -> None:
    process = any_place(tmp_path).start("--log_format=json", "--batch_rows=0")
    _, errors = process.communicate()
    assert process.returncode == 2
    (line,) = [json.loads(line) for line in errors.splitlines()]
    assert line["level"] == "error"
    assert "--batch_rows" in line["message"]
