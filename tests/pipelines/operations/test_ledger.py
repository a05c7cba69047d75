"""The command `campaigns ledger`: what a person does to a delivery's ledger, at night and in a hurry."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from support.delivering import QUICK, Delivery, ToPlace, any_events
from support.factories import any_campaign
from support.launching import ROOT, Place, launched

from runners.cli.main import main
from runners.sandbox.process import Sandbox
from schemas.delivery import Claim, ClaimRequest
from stores.ledger.open import open_ledger

pytestmark = pytest.mark.usefixtures("built_in")


@pytest.fixture
def place(tmp_path: Path, sandbox: Sandbox) -> Place:
    """A launch of two campaigns whose deliveries are paused."""
    workspaces = {
        "*": {
            "url": f"{sandbox.url}/w/{{retailer}}",
            "key_env": "SANDBOX_KEY",
            "shared_account": "sandbox",
            "paused": True,
        }
    }
    campaigns = any_campaign(), any_campaign(id="wrong")
    return launched(tmp_path, *campaigns, delivery={"vendor": "braze", **QUICK}, workspaces=workspaces)


@pytest.fixture
def delivery(tmp_path: Path) -> Delivery:
    return Delivery(tmp_path)


def resume(delivery: Delivery, sandbox: Sandbox) -> None:
    workspace = {"url": f"{sandbox.url}/w/{{retailer}}", "key_env": "SANDBOX_KEY", "shared_account": "sandbox"}
    delivery.spoil(workspaces={"*": workspace})


def of(place: Place, campaign: str) -> dict[str, dict[str, Any]]:
    return {name: event for name, event in place.events().items() if event["campaign_id"] == campaign}


def test_a_campaign_is_cancelled_and_the_others_are_sent_and_the_launch_closes(
    place: Place, sandbox: Sandbox, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    delivery, wrong = ToPlace(tmp_path), of(place, "wrong")
    assert delivery.run("--drain", "--ignore_times", "--patience=0") == 0
    assert sandbox.accepted() == {}
    capsys.readouterr()
    cancel = ["ledger", "cancel", str(delivery.output), "--launch", str(place.output), "--campaign", "wrong"]
    a_retailer = next(iter(wrong.values()))["retailer_id"]
    of_it = sum(event["retailer_id"] == a_retailer for event in wrong.values())
    assert main([*cancel, "--retailer", a_retailer]) == 0
    assert capsys.readouterr().out == f"wrong: {of_it} events cancelled\n"
    assert main(cancel) == 0
    told = capsys.readouterr().out
    assert told == f"wrong: {len(wrong) - of_it} events cancelled\n{of_it} were expired before, and stay so\n"
    resume(delivery, sandbox)
    assert delivery.run("--drain", "--ignore_times") == 0
    assert sandbox.accepted() == dict.fromkeys(of(place, "welcome"), 1)
    assert delivery.outcomes() == {name: "expired" if name in wrong else "accepted" for name in place.events()}
    assert delivery.settled(*place.events()) == delivery.outcomes()
    capsys.readouterr()
    assert main(["check", str(place.output)]) == 0
    assert f"{len(wrong)} expired (cancelled {len(wrong)})" in capsys.readouterr().out
    customer = next(iter(wrong.values()))["customer_id"]
    assert main(["why", customer, "wrong", "--launch", str(place.output)]) == 0
    assert "cancelled" in capsys.readouterr().out


def test_what_is_being_sent_is_left_and_what_may_have_been_sent_is_unknown(
    place: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    delivery, (out, lost, *rest) = ToPlace(tmp_path), list(of(place, "wrong"))
    assert delivery.run("--drain", "--ignore_times", "--patience=0") == 0
    now = int(time.time() * 1000)
    ledger = open_ledger(delivery.ledger)
    ledger.open()
    ledger.claim(ClaimRequest([Claim(out, "call")], "a worker", now, now + 3_600_000, "hold"))
    ledger.claim(ClaimRequest([Claim(lost, "call")], "a dead one", now - 2_000, now - 1_000, "hold"))
    capsys.readouterr()
    argv = ["ledger", "cancel", str(delivery.output), "--launch", str(place.output), "--campaign", "wrong"]
    assert main(argv) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"wrong: {len(rest)} events cancelled",
        "1 may have been sent by a run that was killed: they are unknown now",
        "1 are in a call now: run this command again to cancel those that are not sent",
    ]
    assert delivery.settled(out, lost, *rest) == {lost: "unknown", **dict.fromkeys(rest, "expired")}
    assert delivery.outcomes() == delivery.settled(out, lost, *rest)
    assert ledger.unreported(1_000) == []
    ledger.release("a worker", [out])
    ledger.close()
    assert main(argv) == 0
    assert delivery.settled(out) == {out: "expired"}


def test_what_a_killed_cancel_had_claimed_was_not_sent_and_is_not_unknown(
    place: Place, sandbox: Sandbox, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    delivery, wrong = ToPlace(tmp_path), of(place, "wrong")
    assert delivery.run("--drain", "--ignore_times", "--patience=0") == 0
    argv = ["ledger", "cancel", str(delivery.output), "--launch", str(place.output), "--campaign", "wrong"]
    for method, claimed in (("settle", len(wrong)), ("report", 0)):  # before its events are settled, and after it
        die = f"SqliteLedger.{method} = lambda *_: os.kill(os.getpid(), signal.SIGKILL)"
        start = "from runners.cli.main import main; from stores.ledger.sqlite import SqliteLedger"
        code = f"import os, signal, sys; {start}; {die}; sys.exit(main(sys.argv[1:]))"
        assert subprocess.run([sys.executable, "-c", code, *argv], cwd=ROOT).returncode == -signal.SIGKILL
        with sqlite3.connect(delivery.output / "ledger.db") as con:
            assert con.execute("UPDATE claims SET lease_until = 1").rowcount == claimed  # a minute goes by
    capsys.readouterr()
    assert main(argv) == 0
    assert capsys.readouterr().out == f"wrong: 0 events cancelled\n{len(wrong)} were expired before, and stay so\n"
    assert delivery.outcomes() == dict.fromkeys(wrong, "expired")
    resume(delivery, sandbox)
    assert delivery.run("--drain", "--ignore_times") == 0
    assert sandbox.accepted() == dict.fromkeys(of(place, "welcome"), 1)


def test_unknown_events_are_sent_again_once_a_person_says_so(
    delivery: Delivery, sandbox: Sandbox, capsys: pytest.CaptureFixture[str]
) -> None:
    events = any_events(20)
    aldi = [name for name, wire in events.items() if wire[1]["retailer_id"] == "aldi"]
    delivery.url = sandbox.url
    delivery.configure(on_unknown="hold")
    delivery.put("part-0", events)
    sandbox.script([{"answer": "reset"}])
    assert delivery.run("--drain") == 0
    assert delivery.outcomes() == dict.fromkeys(events, "unknown")
    sandbox.script([])
    assert delivery.run("--drain") == 0
    assert sandbox.accepted() == {}
    capsys.readouterr()
    assert main(["ledger", "reopen", str(delivery.output), "--retailer", "aldi"]) == 0
    assert capsys.readouterr().out.startswith("10 unknown events are reopened")
    assert delivery.run("--drain") == 0
    assert sandbox.accepted() == dict.fromkeys(aldi, 1)
    capsys.readouterr()
    wrong = ["--campaign", "welcme", "--retailer", "alid", "--retailer", "kroger"]
    assert main(["ledger", "reopen", str(delivery.output), *wrong]) == 2
    told = capsys.readouterr().err
    assert "--campaign = welcme\n" in told
    assert f"is not in the receipts of {delivery.output}/receipts; did you mean " in told
    assert "--retailer = alid\n" in told
    assert "did you mean aldi? known: aldi, kroger\n" in told
    assert sandbox.accepted() == dict.fromkeys(aldi, 1)
    assert main(["ledger", "reopen", str(delivery.output)]) == 0
    assert delivery.run("--drain") == 0
    assert sandbox.accepted() == dict.fromkeys(events, 1)
    assert delivery.outcomes() == dict.fromkeys(events, "accepted")


def test_an_event_that_was_rejected_replayed_and_is_unknown_since_is_unknown_to_every_command(
    place: Place, sandbox: Sandbox, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    delivery, events = ToPlace(tmp_path), place.events()
    lost = next(iter(events))
    customer, campaign = events[lost]["customer_id"], events[lost]["campaign_id"]
    resume(delivery, sandbox)
    sandbox.script([{"match": {"recipient": customer}, "answer": 400}])
    assert delivery.run("--drain", "--ignore_times") == 0
    rejected = [name for name, outcome in delivery.outcomes().items() if outcome == "rejected"]
    assert lost in rejected
    sandbox.script([{"match": {"recipient": customer}, "answer": "reset"}])
    replay = ["replay", f"{delivery.output}/dead_letters", "--events", f"file:{tmp_path}/events"]
    assert main([*replay, "--ledger", delivery.ledger]) == 0
    assert delivery.run("--drain", "--ignore_times") == 0
    assert delivery.settled(*events) == delivery.outcomes()
    assert {name: delivery.outcomes()[name] for name in rejected} == dict.fromkeys(rejected, "unknown")
    sandbox.script([])
    capsys.readouterr()
    main(["check", str(place.output)])
    told = capsys.readouterr().out
    assert f"0 rejected, 0 expired, {len(rejected)} unknown, 0 pending" in told
    assert [line for line in told.splitlines() if line.startswith("WRONG") and "the target is" not in line] == []
    assert main(["why", customer, campaign, "--launch", str(place.output)]) == 0
    told = capsys.readouterr().out
    assert told.index("rejected (http_400)") < told.index("unknown (no_answer)")
    assert main(["ledger", "show", str(delivery.output)]) == 0
    assert "rejected" not in capsys.readouterr().out.partition("receipts ")[2]
    assert main(["ledger", "reopen", str(delivery.output)]) == 0
    assert capsys.readouterr().out.startswith(f"{len(rejected)} unknown events are reopened")
    assert delivery.run("--drain", "--ignore_times") == 0
    assert sandbox.accepted() == dict.fromkeys(events, 1)
    assert main(["check", str(place.output)]) == 0


def test_the_ledger_is_shown_with_ends_and_pace(
    delivery: Delivery, sandbox: Sandbox, capsys: pytest.CaptureFixture[str]
) -> None:
    delivery.url = sandbox.url
    delivery.configure({"kroger": {"pace": {"per_second": 1_000}}})
    delivery.put("part-0", any_events(20))
    assert delivery.run("--drain") == 0
    capsys.readouterr()
    assert main(["ledger", "show", str(delivery.output), "--retailer", "kroger", "--retailer", "nobody"]) == 0
    told = capsys.readouterr().out
    lines = [line.split() for line in told.splitlines()]
    assert ["accepted", "20"] in lines
    assert ["kroger", "10", "accepted", "-", "last"] in [line[:5] for line in lines]
    assert not [line for line in lines if line[:1] == ["aldi"]]
    assert ["pace", "of", "kroger:", "10", "sent"] in [line[:5] for line in lines]
    assert "\nnobody: has no receipt and was never called. Retailers with receipts: aldi, kroger\n" in told
    assert delivery.run("--drain") == 0


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        (["cancel"], ["--launch", "--campaign"]),
        (["cancel", "--launch", "/none", "--campaign", "wrong"], ["--launch", "holds no launch"]),
        (
            ["cancel", "--launch", "LAUNCH", "--campaign", "wrnog"],
            ["--campaign", "did you mean wrong?", "welcome, wrong"],
        ),
        (
            ["cancel", "--launch", "LAUNCH", "--campaign", "wrong", "--retailer", "krogr"],
            ["--retailer = krogr", "known: "],
        ),
        (["cancel", "--launch", "LAUNCH", "--campaign", "wrong"], ["ledger.db", "is not there"]),
        (["show"], ["ledger.db", "is not there"]),
        (["show", "--ledger", "redis:x"], ["redis:x", "names no ledger"]),
        (["reopen"], ["receipts", "is no folder"]),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, list) and value[0] in ("cancel", "show", "reopen") else "",
)
def test_mistakes_are_told_and_no_ledger_is_made(
    place: Place, tmp_path: Path, argv: list[str], told: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "nothing"
    given = [str(place.output) if one == "LAUNCH" else one for one in argv]
    assert main(["ledger", given[0], str(output), *given[1:]]) == 2
    error = capsys.readouterr().err
    assert [text for text in told if text not in error] == []
    assert not output.exists()
