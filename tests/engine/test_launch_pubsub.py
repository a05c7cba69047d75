import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import Drain, Topic
from support.factories import SECRET, any_campaign
from support.launching import Place, any_place
from support.wire import Wire

from runners.cli.main import main
from schemas.contracts import decode, fingerprint

pytestmark = pytest.mark.engine


@pytest.fixture(autouse=True)
def _secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAMPAIGNS_CODE_SECRET", SECRET)


@pytest.fixture
def wire(pubsub_host: str, topic: Topic, monkeypatch: pytest.MonkeyPatch) -> Iterator[Wire]:
    """A wire to the emulator, through which this process publishes."""
    made = Wire(pubsub_host)
    monkeypatch.setenv("PUBSUB_EMULATOR_HOST", made.host)
    yield made
    made.close()


def filed(root: Path, **changes: Any) -> dict[str, dict[str, Any]]:
    """The events of the same launch to files."""
    place = any_place(root, **changes)
    assert place.launch("--batch_rows=100") == 0
    return place.events()


def published(place: Place, topic: Topic, *more: str) -> int:
    argv = [option for option in place.argv() if not option.startswith("--events")]
    return main(["launch", *argv, f"--events={topic.uri}", "--batch_rows=100", *more])


def received(messages: list[Any]) -> dict[str, dict[str, Any]]:
    """The events by id; the same id must always have the same bytes."""
    found: dict[str, bytes] = {}
    schemas: dict[str, str] = {}
    for message in messages:
        name = message.attributes["event_id"]
        assert found.setdefault(name, message.data) == message.data
        schemas[name] = message.attributes["schema"]
    events = {name: decode(schemas[name], data) for name, data in found.items()}
    for name, event in events.items():
        assert event["event_id"] == name
    return events


def same(events: dict[str, dict[str, Any]], files: dict[str, dict[str, Any]]) -> bool:
    """Whether both hold the same events, but for the time of the launch."""

    def plain(event: dict[str, Any]) -> dict[str, Any]:
        times = {"emitted_at", "deliver_after", "expires_at", "offers"}
        return {key: value for key, value in event.items() if key not in times}

    return {n: plain(e) for n, e in events.items()} == {n: plain(e) for n, e in files.items()}


def test_a_launch_publishes_what_it_would_write_to_files(tmp_path: Path, topic: Topic, drain: Drain) -> None:
    files = filed(tmp_path / "files")
    place = any_place(tmp_path / "topic")
    assert published(place, topic) == 0
    messages = drain(topic.subscription, len(files))
    assert len(messages) == len(files)
    assert same(received(messages), files)
    assert main(["check", str(place.output)]) == 0


def test_a_topic_with_our_schema_accepts_every_event(
    tmp_path: Path, pubsub_host: str, drain: Drain, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PUBSUB_EMULATOR_HOST", pubsub_host)
    made = Topic("projects/project-1/topics/with-schema", "projects/project-1/subscriptions/with-schema")
    assert main(["topic", "create", made.uri, "--subscription", "with-schema"]) == 0
    place = any_place(tmp_path)
    assert published(place, made) == 0
    emitted = [row["event_id"] for row in place.exposures() if row["outcome"] == "emitted"]
    assert set(received(drain(made.subscription, len(emitted)))) == set(emitted)
    assert place.dead_letters() == []


def test_a_topic_that_is_missing_is_reported_with_what_to_do(
    tmp_path: Path, topic: Topic, capsys: pytest.CaptureFixture[str]
) -> None:
    place = any_place(tmp_path)
    assert published(place, Topic("projects/project-1/topics/nowhere", "")) == 1
    expected = capsys.readouterr().err
    assert "campaigns topic create pubsub:projects/project-1/topics/nowhere" in expected
    assert "Traceback" not in expected


def test_a_broker_that_is_away_at_the_start_fails_the_launch_which_then_resumes(
    tmp_path: Path, topic: Topic, wire: Wire, drain: Drain, capsys: pytest.CaptureFixture[str]
) -> None:
    files = filed(tmp_path / "files")
    place = any_place(tmp_path / "topic")
    wire.cut()
    assert published(place, topic, "--broker_wait=1") == 1
    assert "goes on where it stopped" in capsys.readouterr().err
    assert main(["check", str(place.output)]) == 0
    wire.mend()
    assert published(place, topic) == 0
    assert same(received(drain(topic.subscription, len(files))), files)


def test_a_broker_that_goes_away_in_the_middle_loses_and_changes_nothing(
    tmp_path: Path, topic: Topic, wire: Wire, drain: Drain
) -> None:
    files = filed(tmp_path / "files", customers=1500)
    place = any_place(tmp_path / "topic", customers=1500)
    wire.cut(after=150_000)
    assert published(place, topic, "--broker_wait=1") == 1
    assert 0 < len(list((place.output / "exposures").glob("*.parquet"))) < 15
    wire.mend()
    assert published(place, topic) == 0
    assert same(received(drain(topic.subscription, len(files))), files)
    assert main(["check", str(place.output)]) == 0


def test_a_short_absence_is_waited_for(tmp_path: Path, topic: Topic, wire: Wire, drain: Drain) -> None:
    files = filed(tmp_path / "files", customers=1500)
    place = any_place(tmp_path / "topic", customers=1500)
    wire.cut(after=150_000)
    mender = threading.Thread(target=_mend_once_cut, args=(wire,))
    mender.start()
    assert published(place, topic, "--broker_wait=30") == 0
    mender.join()
    assert same(received(drain(topic.subscription, len(files))), files)


def _mend_once_cut(wire: Wire) -> None:
    waited = threading.Event()
    while wire.whole:
        waited.wait(0.05)
    waited.wait(1.0)
    wire.mend()


def test_an_event_over_the_size_limit_is_a_dead_letter_with_its_bytes(
    tmp_path: Path, topic: Topic, drain: Drain
) -> None:
    huge = "x" * 10_000_001
    place = any_place(tmp_path, any_campaign(experiment=None), customers=5, first_name=["a", "b", huge, "d", "e"])
    assert published(place, topic) == 0
    (letter,) = place.dead_letters()
    assert letter.reason == "over_size"
    assert decode(fingerprint("campaign_event"), letter.data)["properties"]["name"] == huge
    assert [row["outcome"] for row in place.exposures()].count("dead_lettered") == 1
    sent = received(drain(topic.subscription, 4))
    assert len(sent) == len([row for row in place.exposures() if row["outcome"] == "emitted"])
    assert main(["check", str(place.output)]) == 0
