"""Drains of a Pub/Sub subscription end when nothing is outstanding that can be known of, also after a kill -9."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import Topic
from support.delivering import KEY, Delivery, any_events, eventually

from bench.deliveries import kill, plain_topic, publish
from connectors.pubsub.leases import LeaseFile, leased_until
from connectors.pubsub.reader import PubsubReader
from runners.sandbox.process import Sandbox

pytestmark = pytest.mark.engine


@pytest.fixture(autouse=True)
def _environment(prism_engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAMPAIGNS_PRISM", prism_engine)
    monkeypatch.setenv("SANDBOX_KEY", KEY["SANDBOX_KEY"])


@pytest.fixture
def own_topic(pubsub_host: str, monkeypatch: pytest.MonkeyPatch) -> Topic:
    """A topic whose messages are leased for ten seconds when they are pulled."""
    monkeypatch.setenv("PUBSUB_EMULATOR_HOST", pubsub_host)
    return Topic(*plain_topic("drain", ack_s=10))


@pytest.fixture
def delivery(tmp_path: Path, own_topic: Topic, sandbox: Sandbox) -> Delivery:
    """From the topic to the sandbox."""
    return Delivery(tmp_path, sandbox.url, f"pubsub:{own_topic.subscription}").configure(lease="PT16S", timeout="PT5S")


@pytest.mark.timeout(300)
@pytest.mark.parametrize("engine", ["direct", "prism"])
def test_after_a_kill_a_drain_waits_for_what_the_dead_run_had_pulled(
    engine: str,
    delivery: Delivery,
    sandbox: Sandbox,
    own_topic: Topic,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    events = any_events(12_000)
    publish(own_topic.path, list(events.values()))
    with delivery.started("--on=prism") as job:
        eventually(lambda: sandbox.summary()["accepted"], "the first call")
        kill(job)  # type: ignore[arg-type]
    assert len(sandbox.accepted()) < len(events)
    assert delivery.run("--drain", f"--on={engine}", "--idle=2") == 0
    outcomes, accepted = delivery.outcomes(), sandbox.accepted()
    assert outcomes.keys() == events.keys()
    assert {name for name, outcome in outcomes.items() if outcome == "accepted"} <= accepted.keys()
    assert set(outcomes.values()) <= {"accepted", "unknown"}  # unknown: calls that were in flight at the kill
    assert set(accepted.values()) == {1}
    assert "until Pub/Sub redelivers what it had pulled" in caplog.text
    assert "Not counted: messages that another subscriber" in capfd.readouterr().out


@pytest.mark.parametrize("engine", ["direct", "prism"])
def test_a_drain_after_a_clean_one_need_not_wait_and_gets_all_that_was_published_since(
    engine: str,
    delivery: Delivery,
    sandbox: Sandbox,
    own_topic: Topic,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    everyone = dict[str, int]()
    for name in "abc":
        events = any_events(500, name)
        everyone |= dict.fromkeys(events, 1)
        publish(own_topic.path, list(events.values()))
        assert delivery.run("--drain", f"--on={engine}", "--idle=1") == 0
        assert sandbox.accepted() == everyone
        assert leased_until(delivery.output / "spool", own_topic.subscription) == 0
    assert "an earlier run was killed" not in caplog.text


@pytest.fixture
def readers(own_topic: Topic, tmp_path: Path) -> Iterator[list[PubsubReader]]:
    """Readers of the topic, the second of which drains."""
    made = [
        PubsubReader(own_topic.subscription, leases=LeaseFile(tmp_path, own_topic.subscription)),
        PubsubReader(own_topic.subscription, idle_s=0.3, leases=LeaseFile(tmp_path, own_topic.subscription)),
    ]
    yield made
    for one in made:
        if hasattr(one, "_channel"):
            one.close()


def test_a_reader_that_is_closed_gives_back_what_it_did_not_acknowledge(
    readers: list[PubsubReader], own_topic: Topic, tmp_path: Path
) -> None:
    events = any_events(300)
    publish(own_topic.path, list(events.values()))
    first, second = readers
    first.open()
    assert leased_until(tmp_path, own_topic.subscription) > 0
    first.commit(_some(first, 100))
    first.close()
    assert leased_until(tmp_path, own_topic.subscription) == 0
    second.open()
    got = 0
    while not (poll := second.poll(1_000)).done:
        got += len(poll.envelopes)
        second.commit(poll.handle)
    assert got == 200


def test_a_pull_that_is_out_when_a_reader_is_closed_takes_no_messages_with_it(
    readers: list[PubsubReader], own_topic: Topic
) -> None:
    first, second = readers
    first.open()
    assert first.poll(10).envelopes == []  # all its pulls wait at the broker
    first.close()
    publish(own_topic.path, list(any_events(300).values()))
    second.open()
    got = 0
    while not (poll := second.poll(1_000)).done:
        got += len(poll.envelopes)
        second.commit(poll.handle)
    assert got == 300


def _some(reader: PubsubReader, count: int) -> list[str]:
    """The handles of so many messages."""
    handles: list[str] = []
    while len(handles) < count:
        handles += reader.poll(count - len(handles)).handle
    return handles
