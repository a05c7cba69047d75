"""The job rebatch as a service on Prism: events from Pub/Sub, edits, signals and replays while it runs."""

from __future__ import annotations

import signal
import subprocess
import time
from pathlib import Path

import pytest
from conftest import Topic
from support.delivering import KEY, Delivery, any_events, eventually

from bench.deliveries import Wire, publish
from runners.cli.main import main
from runners.sandbox.process import Sandbox
from stores.deliveries.spool import Spool
from stores.live_config.live_files import LOOK_EVERY_S

pytestmark = pytest.mark.engine


@pytest.fixture(autouse=True)
def _environment(prism_engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAMPAIGNS_PRISM", prism_engine)
    monkeypatch.setenv("SANDBOX_KEY", KEY["SANDBOX_KEY"])


@pytest.fixture
def delivery(tmp_path: Path, topic: Topic, sandbox: Sandbox) -> Delivery:
    """From a fresh topic to the sandbox."""
    return Delivery(tmp_path, sandbox.url, f"pubsub:{topic.subscription}").configure()


def send(topic: Topic, events: dict[str, Wire]) -> None:
    publish(topic.path, list(events.values()))


def accepts(sandbox: Sandbox, events: dict[str, Wire]) -> None:
    """Waits until the sandbox has accepted all of these."""
    eventually(lambda: events.keys() <= sandbox.accepted().keys(), "the acceptance of all")


def stop(job: subprocess.Popen[str]) -> str:
    """Ends the job as a service manager does; what it said."""
    job.send_signal(signal.SIGTERM)
    out, err = job.communicate(timeout=90)
    assert job.returncode == 0, err
    assert "Traceback" not in err
    return out


def of(events: dict[str, Wire], retailer: str) -> dict[str, Wire]:
    return {name: wire for name, wire in events.items() if wire[1]["retailer_id"] == retailer}


def spooled(delivery: Delivery) -> set[str]:
    """The events that the spool holds."""
    spool = Spool(delivery.output / "spool")
    return {one.attributes["event_id"] for path in spool.files() for one in spool.read(path)}


def test_events_that_come_while_it_runs_are_delivered_once_and_a_signal_ends_it(
    delivery: Delivery, sandbox: Sandbox, topic: Topic
) -> None:
    first, second, last = (any_events(60, name) for name in ("first", "second", "last"))
    send(topic, first)
    with delivery.started() as job:
        accepts(sandbox, first)
        send(topic, {**second, **first})
        accepts(sandbox, second)
        send(topic, last)
        eventually(lambda: last.keys() & sandbox.accepted().keys(), "the first of the last")
        stop(job)
    everyone = {**first, **second, **last}
    settled, summary = delivery.settled(*everyone), delivery.summary()
    assert sandbox.accepted() == dict.fromkeys(settled, 1)
    ends = ("accepted", "already_settled", "repeats", "left_waiting", "missing")
    assert summary["read"] == sum(summary[name] for name in ends)
    assert delivery.run("--drain", "--idle=2") == 0
    assert sandbox.accepted() == dict.fromkeys(everyone, 1)
    assert delivery.outcomes() == dict.fromkeys(everyone, "accepted")
    assert spooled(delivery) == set()


def test_an_edit_pauses_a_retailer_of_the_running_job_and_another_resumes_it(
    delivery: Delivery, sandbox: Sandbox, topic: Topic
) -> None:
    before, during, after = (any_events(20, name) for name in ("before", "during", "after"))
    with delivery.started("--patience=0") as job:
        send(topic, before)
        accepts(sandbox, before)
        delivery.configure({"aldi": {"paused": True}})
        time.sleep(LOOK_EVERY_S + 0.5)  # by then the next question reads the file again
        send(topic, during)
        accepts(sandbox, of(during, "kroger"))
        time.sleep(1.0)
        assert not of(during, "aldi").keys() & sandbox.accepted().keys()
        delivery.configure()
        time.sleep(LOOK_EVERY_S + 0.5)
        send(topic, after)
        accepts(sandbox, after)
        stop(job)
    everyone = {**before, **during, **after}
    assert everyone.keys() == delivery.settled(*everyone).keys() | spooled(delivery)
    assert delivery.run("--drain", "--idle=1") == 0
    assert sandbox.accepted() == dict.fromkeys(everyone, 1)


def test_what_a_signal_leaves_waiting_stays_in_the_spool_for_the_next_run(
    delivery: Delivery, sandbox: Sandbox, topic: Topic
) -> None:
    events = any_events(20)
    delivery.configure({"aldi": {"paused": True}})
    with delivery.started("--patience=0") as job:
        send(topic, events)
        accepts(sandbox, of(events, "kroger"))
        assert "10 events were not delivered" in stop(job)
    assert delivery.settled(*events).keys() == of(events, "kroger").keys()
    assert of(events, "aldi").keys() <= spooled(delivery)
    delivery.configure()
    assert delivery.run("--drain", "--idle=1") == 0
    assert sandbox.accepted() == dict.fromkeys(events, 1)
    assert spooled(delivery) == set()


def test_malformed_messages_are_dead_letters_once_and_a_replay_is_accepted_by_the_running_job(
    delivery: Delivery, sandbox: Sandbox, topic: Topic, capsys: pytest.CaptureFixture[str]
) -> None:
    events = any_events(10)
    refused = list(events)[3]
    body, attributes = events[refused]
    broken = [(body[:30], attributes), (body, {**attributes, "schema": "f" * 16}), (b"", {"event_id": "x"})]
    sandbox.script([{"match": {"recipient": "a-3"}, "answer": 400}])
    with delivery.started() as job:
        publish(topic.path, [*broken, *broken, *events.values()])
        eventually(lambda: len(delivery.letters()) == 4, "the dead letters")
        accepts(sandbox, {name: wire for name, wire in events.items() if name != refused})
        assert delivery.settled(refused) == {refused: "rejected"}
        publish(topic.path, [*broken, events[refused]])

        sandbox.script([])
        letters = str(delivery.output / "dead_letters")
        only = next(one.reason for one in delivery.letters() if one.step == "DeliverBatches")
        again = ["replay", letters, "--events", topic.uri, "--ledger", delivery.ledger, "--reason", only]
        assert main(again) == 0
        assert "1 messages published again, 3 letters left out" in capsys.readouterr().out
        accepts(sandbox, events)
        stop(job)
    assert sandbox.accepted() == dict.fromkeys(events, 1)
    assert delivery.settled(refused) == {refused: "accepted"}
    assert sorted(one.reason for one in delivery.letters() if one.step == "Decode") == [
        "broken_bytes", "missing_attributes", "unknown_schema",
    ]  # fmt: skip


def test_a_subscription_that_is_missing_is_told_with_what_to_do(delivery: Delivery) -> None:
    delivery.source = "pubsub:projects/project-1/subscriptions/nowhere"
    with delivery.started() as job:
        _, err = job.communicate(timeout=60)
    assert job.returncode == 1
    last = err[err.rindex("Rebatch stopped: ") :].splitlines()[0]
    assert "subscriptions/nowhere cannot be read" in last
    assert "campaigns topic create" in last
