"""The job rebatch on files: what it delivers, what it refuses to begin with, what it tells."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import fastavro
import pytest
from support.delivering import QUICK, Delivery, ToPlace, any_events, eventually
from support.factories import any_campaign
from support.launching import RICH, Place, launched

from pipelines.rebatch.driver import run
from runners.cli.main import main
from runners.sandbox.process import Sandbox
from stores.deliveries.delivery_folder import DeliveryFolder

pytestmark = pytest.mark.usefixtures("built_in")


@pytest.fixture
def delivery(tmp_path: Path, sandbox: Sandbox) -> Delivery:
    """Ten events in a file, to the sandbox."""
    made = Delivery(tmp_path, sandbox.url).configure()
    made.put("part-0", any_events(10))
    return made


def test_every_event_of_a_launch_is_accepted_once_and_the_next_run_sends_nothing(
    tmp_path: Path, sandbox: Sandbox, capsys: pytest.CaptureFixture[str]
) -> None:
    workspaces = {"*": {"url": f"{sandbox.url}/w/{{retailer}}", "key_env": "SANDBOX_KEY", "shared_account": "sandbox"}}
    place = launched(tmp_path, *RICH, delivery={"vendor": "braze", **QUICK}, workspaces=workspaces)
    delivery, events = ToPlace(tmp_path), place.events()
    assert delivery.run("--drain", "--ignore_times") == 0
    assert sandbox.accepted() == dict.fromkeys(events, 1)
    assert delivery.outcomes() == dict.fromkeys(events, "accepted") == delivery.settled(*events)
    summary = delivery.summary()
    assert {name: summary[name] for name in ("read", "accepted", "repeats", "left_waiting", "missing")} == {
        "read": len(events), "accepted": len(events), "repeats": 0, "left_waiting": 0, "missing": 0,
    }  # fmt: skip
    _questions(place, delivery, capsys)

    calls = sandbox.summary()["calls"]
    assert delivery.run("--drain", "--ignore_times") == 0
    assert sandbox.summary()["calls"] == calls
    assert delivery.summary()["already_settled"] == len(events)
    assert delivery.outcomes() == dict.fromkeys(events, "accepted")


def _questions(place: Place, delivery: Delivery, capsys: pytest.CaptureFixture[str]) -> None:
    events, launch = place.events(), str(place.output)
    capsys.readouterr()
    assert main(["check", launch, "--receipts", str(delivery.output / "receipts")]) == 0
    assert f"deliveries: {len(events)} accepted, 0 rejected" in capsys.readouterr().out
    event = next(iter(events.values()))
    assert main(["why", event["customer_id"], event["campaign_id"], "--launch", launch]) == 0
    told = capsys.readouterr().out
    assert "accepted" in told[told.index("  delivery") :]
    assert f"workspace   braze:{event['retailer_id']}" in told


def test_without_a_vendor_the_events_go_to_files_as_they_are(tmp_path: Path) -> None:
    place = launched(tmp_path, any_campaign(), delivery={"wait": "PT0.3S"})
    assert ToPlace(tmp_path).run("--drain") == 0
    found: dict[str, dict[str, Any]] = {}
    for path in (place.output / "delivery" / "outbox").rglob("*.avro"):
        with path.open("rb") as file:
            for event in fastavro.reader(file):
                event.pop("emitted_at")
                assert event["event_id"] not in found
                found[event["event_id"]] = event
                assert path.parent.name == event["retailer_id"]
    assert found == place.events()
    assert found


def test_what_the_vendor_refuses_is_a_dead_letter_and_repeats_in_files_are_sent_once(
    delivery: Delivery, sandbox: Sandbox, capsys: pytest.CaptureFixture[str]
) -> None:
    events = any_events(10)
    sandbox.script([{"match": {"recipient": "a-3"}, "answer": 400}])
    delivery.put("part-1", events)
    assert delivery.run("--drain") == 0
    refused = list(events)[3]
    assert sandbox.accepted() == dict.fromkeys([one for one in events if one != refused], 1)
    assert delivery.outcomes()[refused] == "rejected"
    (letter,) = delivery.letters()
    assert (letter.step, letter.data) == ("DeliverBatches", events[refused][0])
    shown = dict(line.rsplit(maxsplit=1) for line in capsys.readouterr().out.splitlines() if line.startswith("   "))
    assert {name.strip(): value for name, value in shown.items()}["rejected"] == "1"
    assert delivery.summary()["read"] == 20
    assert delivery.summary()["repeats"] + delivery.summary()["already_settled"] == 10


def test_a_paused_retailer_waits_for_the_run_after_it_is_resumed(
    delivery: Delivery, sandbox: Sandbox, capsys: pytest.CaptureFixture[str]
) -> None:
    delivery.configure({"aldi": {"paused": True}})
    assert delivery.run("--drain", "--patience=0") == 0
    assert "5 events were not delivered" in capsys.readouterr().out
    assert set(delivery.outcomes()) == {
        name for name, (_, told) in any_events(10).items() if told["retailer_id"] != "aldi"
    }
    delivery.configure()
    assert delivery.run("--drain") == 0
    assert sandbox.accepted() == dict.fromkeys(any_events(10), 1)


MISTAKES: dict[str, tuple[dict[str, Any], list[str]]] = {
    "an unknown vendor and a lease that is too short": (
        {"delivery": {"vendor": "pigeon", "lease": "PT1S"}, "channels": {}},
        ["delivery.vendor", "channels"],
    ),
    "a lease no longer than the timeout": ({"delivery": {"lease": "PT5S", "timeout": "PT5S"}}, ["`lease` must be"]),
    "a key that is not set and a template that is missing": (
        {
            "delivery": {"vendor": "braze"},
            "workspaces": {
                "*": {"url": "http://127.0.0.1:9"},
                "aldi": {"key_env": "NOBODY_SET_THIS", "templates": {"plain": "nowhere.liquid"}},
                "kroger": {"key_env": "NOR_THIS"},
            },
        },
        ["NOBODY_SET_THIS", "NOR_THIS", "nowhere.liquid"],
    ),
    "one key of all that is not set": (
        {"delivery": {"vendor": "webhook"}, "workspaces": {"*": {"url": "http://127.0.0.1:9", "key_env": "NOT_SET"}}},
        ["NOT_SET"],
    ),
    "urls that cannot be called and accounts that two would have": (
        {
            "delivery": {"vendor": "braze", "timeout": "PT30S", "lease": "PT30S"},
            "workspaces": {
                "*": {"url": "http://169.254.169.254/{retailer}", "key_env": "BK_{retailer}"},
                "aldi": {"url": "ftp://rest.example"},
                "lidl-1": {"url": "https://rest.example"},
                "lidl_1": {"url": "https://other.example"},
            },
        },
        ["`lease` must be at least 31 s"],  # the lease keeps the file from being read on
    ),
    "accounts that two would have, and urls": (
        {
            "delivery": {"vendor": "braze"},
            "workspaces": {
                "*": {"url": "http://169.254.169.254/{retailer}", "key_env": "BK_{retailer}"},
                "aldi": {"url": "ftp://rest.example"},
                "lidl-1": {"url": "https://rest.example"},
                "lidl_1": {"url": "https://other.example"},
            },
        },
        ["workspaces.*.url", "workspaces.aldi.url", "BK_LIDL_1", "of lidl-1 and of lidl_1", "shared_account"],
    ),
    "an outbox that is no folder": (
        {"delivery": {}, "workspaces": {"*": {"url": "https://example.org"}, "aldi": {"url": "http://aldi"}}},
        ["workspaces.*.url = https://example.org", "workspaces.aldi.url = http://aldi", "is no folder"],
    ),
}


@pytest.mark.parametrize(("changes", "told"), MISTAKES.values(), ids=MISTAKES.keys())
def test_mistakes_in_the_settings_are_told_together_and_nothing_is_sent(
    changes: dict[str, Any],
    told: list[str],
    delivery: Delivery,
    sandbox: Sandbox,
    capsys: pytest.CaptureFixture[str],
) -> None:
    delivery.spoil(**changes)
    assert delivery.run("--drain") == 2
    error = capsys.readouterr().err
    assert "mistake" in error
    assert "Traceback" not in error
    assert [text for text in told if text not in error] == []
    assert sandbox.summary()["calls"] == 0
    assert not (delivery.output / "ledger.db").exists()


def test_mistakes_on_the_command_line_are_told_together(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--events=kafka:x", "--ledger=redis:x", "--idle=0", "--readers=0", "--patience=-1"]) == 2
    error = capsys.readouterr().err
    for name in ("campaigns", "output", "events", "ledger", "idle", "readers", "patience"):
        assert f"--{name} =" in error
    assert error.startswith("7 mistakes")
    topic = "pubsub:projects/project-1/topics/events"
    assert run([f"--campaigns={tmp_path}", f"--output={tmp_path}/out", f"--events={topic}"]) == 2
    error = capsys.readouterr().err
    assert "subscriptions" in error
    assert "engine.yaml" in error  # the folder's mistakes too


def test_a_folder_without_campaigns_is_told(delivery: Delivery, capsys: pytest.CaptureFixture[str]) -> None:
    (delivery.campaigns / "engine.yaml").unlink()
    assert delivery.run("--drain") == 2
    assert "engine.yaml" in capsys.readouterr().err


def test_a_broken_template_is_refused_before_anything_is_sent(
    delivery: Delivery, sandbox: Sandbox, capsys: pytest.CaptureFixture[str]
) -> None:
    delivery.configure({"*": {"templates": {"plain": "plain.liquid"}}})
    (delivery.campaigns / "plain.liquid").write_text("Hello\n  {{ name | shout }}")
    assert delivery.run("--drain") == 2
    error = capsys.readouterr().err
    assert "plain.liquid:2  template = {{ name | shout }}\n    column 13: unknown filter 'shout'" in error
    assert sandbox.summary()["calls"] == 0


def test_a_second_job_in_the_same_output_says_so_and_ends(
    delivery: Delivery, sandbox: Sandbox, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = DeliveryFolder(delivery.output)
    folder.prepare()
    with folder.locked():
        assert delivery.run("--drain") == 1
    assert "another rebatch runs in" in capsys.readouterr().err
    assert sandbox.summary()["calls"] == 0
    assert delivery.run("--drain") == 0


def test_a_second_job_does_not_disturb_the_first_ones_stop_sign(delivery: Delivery) -> None:
    folder = DeliveryFolder(delivery.output)
    folder.prepare()
    with folder.locked():
        folder.ask_to_stop()
        assert delivery.run("--drain") == 1
        assert folder.must_stop()


def test_a_file_that_breaks_off_stops_the_job_with_what_to_do(
    delivery: Delivery, capsys: pytest.CaptureFixture[str]
) -> None:
    path = next((delivery.root / "events").glob("*.avro"))
    path.write_bytes(path.read_bytes()[:-40])
    assert delivery.run("--drain") == 1
    error = capsys.readouterr().err
    assert str(path) in error
    assert "Take the file away" in error
    assert "Traceback" not in error


def test_a_ledger_that_is_none_stops_the_job_with_what_to_do(
    delivery: Delivery, capsys: pytest.CaptureFixture[str]
) -> None:
    delivery.output.mkdir()
    (delivery.output / "ledger.db").write_text("this is no ledger, it is a text of more than a hundred bytes " * 9)
    assert delivery.run("--drain") == 2
    error = capsys.readouterr().err
    assert "ledger.db" in error
    assert "Traceback" not in error


def test_the_command_tells_its_counters_on_one_stream_and_its_summary_on_the_other(delivery: Delivery) -> None:
    with delivery.started("--drain", CAMPAIGNS_PRISM="/none") as job:
        out, err = job.communicate(timeout=60)
    assert job.returncode == 0, err
    assert "read " in err
    assert "/s" in err
    assert [line.split() for line in out.splitlines() if line.split()[0] == "accepted"] == [["accepted", "10"]]


def test_help_shows_our_options_only(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rebatch", "--help"]) == 0
    told = capsys.readouterr().out
    assert "--drain" in told
    assert "--direct_num_workers" not in told


@pytest.mark.engine
def test_a_followed_folder_delivers_a_file_that_comes_later_and_a_signal_ends_it(
    delivery: Delivery, sandbox: Sandbox, prism_engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CAMPAIGNS_PRISM")
    later = any_events(10, "later")
    with delivery.started() as job:
        eventually(lambda: len(sandbox.accepted()) == 10, "the first file")
        delivery.put("part-1", later)
        eventually(lambda: later.keys() <= sandbox.accepted().keys(), "the later file")
        job.send_signal(signal.SIGTERM)
        out, err = job.communicate(timeout=60)
    assert job.returncode == 0, err
    assert "stopping: what was read is delivered" in err
    assert "WARNING" not in err
    assert sandbox.accepted() == dict.fromkeys([*any_events(10), *later], 1)
    assert "accepted" in out
    assert len(delivery.outcomes()) == 20
