"""Dead letters that are published again: which ones, where to, and what the ledger then says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import fastavro
import orjson
import pytest
from conftest import Drain, Topic
from support.delivering import any_events

from bench.deliveries import Wire
from runners.cli.main import main
from schemas.contracts import DeadLetter
from schemas.delivery import Settlement
from schemas.transport import Envelope
from stores.dead_letters import write_dead_letters
from stores.deliveries.delivery_folder import DeliveryFolder, LedgerCopy
from stores.ledger.open import open_ledger
from transforms.delivery.decode_events import dead_id, read_envelope

NOW = 1_775_052_000_000
EVENTS = any_events(4)
NAMES = list(EVENTS)


def refused(name: str, reason: str = "invalid_address") -> DeadLetter:
    """The letter of an event that the vendor refused."""
    body, attributes = EVENTS[name]
    kept = {key: attributes[key] for key in ("event_id", "retailer_id", "schema")}
    return DeadLetter("DeliverBatches", reason, "", f"event {name}", body, orjson.dumps(kept).decode())


def undecoded(wire: Wire) -> DeadLetter:
    """The letter of a message that could not be decoded."""
    letter = read_envelope(Envelope("m-1", wire[1], wire[0], NOW), NOW)
    assert isinstance(letter, DeadLetter)
    return letter


def of_unknown_schema(name: str) -> DeadLetter:
    body, attributes = EVENTS[name]
    return undecoded((body, {**attributes, "schema": "f" * 16}))


def without_retailer(name: str) -> DeadLetter:
    body, attributes = EVENTS[name]
    return undecoded((body, {key: text for key, text in attributes.items() if key != "retailer_id"}))


FOREIGN = DeadLetter("TakeSnapshot", "no_id", "", "row 1", b"c-1,x", "launch-1/snapshot")


@pytest.fixture
def letters(tmp_path: Path) -> Path:
    """Two refused events, of which one is there twice, an undecoded one, and one of a launch."""
    folder = tmp_path / "dead_letters"
    write_dead_letters(str(folder), "part-0", [refused(NAMES[0]), refused(NAMES[1], "no_template"), FOREIGN])
    write_dead_letters(str(folder), "part-1", [refused(NAMES[0]), without_retailer(NAMES[2])])
    return folder


@pytest.fixture
def ledger(tmp_path: Path) -> str:
    """A ledger in which all of them are over."""
    uri = f"sqlite:{tmp_path}/ledger.db"
    book = open_ledger(uri)
    book.open()
    rejected = [Settlement(name, "rejected") for name in NAMES[:2]]
    book.settle("one", [*rejected, Settlement(dead_id(without_retailer(NAMES[2])), "dead")], NOW)
    book.settle("one", [Settlement(NAMES[3], "accepted")], NOW)
    book.close()
    return uri


def settled(uri: str) -> dict[str, str]:
    book = open_ledger(uri)
    book.open()
    try:
        return book.find([*NAMES, dead_id(without_retailer(NAMES[2]))])
    finally:
        book.close()


def written(folder: Path) -> list[str]:
    """The ids of the events in the files of a folder."""
    found: list[Any] = []
    for path in sorted(folder.glob("*.avro")):
        with path.open("rb") as file:
            found += fastavro.reader(file)
    return sorted(one["event_id"] for one in found)


def test_refused_and_undecoded_events_are_written_to_files_once_and_may_be_sent_again(
    letters: Path, ledger: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["replay", str(letters), "--events", f"file:{tmp_path}/again", "--ledger", ledger]) == 0
    assert capsys.readouterr().out == "3 messages published again, 2 letters left out\n"
    assert written(tmp_path / "again") == sorted(NAMES[:3])
    assert settled(ledger) == {NAMES[3]: "accepted"}


def test_the_same_replay_to_files_again_writes_the_same_file(letters: Path, tmp_path: Path) -> None:
    for _ in range(2):
        assert main(["replay", f"{letters}/", "--events", f"file:{tmp_path}/again"]) == 0
    assert len(list((tmp_path / "again").glob("*.avro"))) == 1


def test_only_the_reasons_that_were_asked_for_are_replayed(
    letters: Path, ledger: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["replay", str(letters), "--events", f"file:{tmp_path}/again", "--ledger", ledger]
    before = settled(ledger)
    assert main([*argv, "--reason", "no_template", "--reason", "no_templat"]) == 2
    told = capsys.readouterr().err
    assert "--reason = no_templat\n" in told
    assert "did you mean no_template? known: invalid_address, missing_attributes, no_template\n" in told
    assert settled(ledger) == before
    assert main([*argv, "--reason", "no_template"]) == 0
    assert capsys.readouterr().out == "1 messages published again, 4 letters left out\n"
    assert written(tmp_path / "again") == [NAMES[1]]
    assert settled(ledger).keys() == {NAMES[0], NAMES[3], dead_id(without_retailer(NAMES[2]))}


def test_without_a_ledger_it_goes_on_saying_that_they_are_over(letters: Path, ledger: str, tmp_path: Path) -> None:
    before = settled(ledger)
    assert main(["replay", str(letters), "--events", f"file:{tmp_path}/again"]) == 0
    assert settled(ledger) == before


def test_a_topic_gets_bytes_and_attributes_as_they_were_with_a_mark_of_the_replay(
    letters: Path, topic: Topic, drain: Drain
) -> None:
    unknown = of_unknown_schema(NAMES[3])
    write_dead_letters(str(letters), "part-2", [unknown])
    marks = set()
    for _ in range(2):
        assert main(["replay", str(letters), "--events", topic.uri]) == 0
        messages = drain(topic.subscription, 4)
        got = {one.data: dict(one.attributes) for one in messages}
        assert len(messages) == 4 == len(got)
        marks |= {told.pop("replay") for told in got.values()}
        wanted = [refused(NAMES[0]), refused(NAMES[1]), without_retailer(NAMES[2]), unknown]
        assert got == {one.data: orjson.loads(one.trace) for one in wanted}
    assert len(marks) == 2  # one for each replay, so that no repeat of the first is taken for one of the second


def test_what_a_file_cannot_hold_is_told_and_nothing_is_changed(
    letters: Path, ledger: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before, (body, attributes) = settled(ledger), EVENTS[NAMES[3]]
    write_dead_letters(str(letters), "part-2", [of_unknown_schema(NAMES[3]), undecoded((body[:30], attributes))])
    argv = ["replay", str(letters), "--events", f"file:{tmp_path}/again"]
    assert main([*argv, "--ledger", ledger]) == 2
    error = capsys.readouterr().err
    assert "replay to a topic, pubsub: or kafka:, or upgrade first" in error
    assert "a file holds whole records" in error
    assert settled(ledger) == before
    assert not (tmp_path / "again").exists()
    assert main([*argv, "--reason", "missing_attributes"]) == 0
    assert written(tmp_path / "again") == [NAMES[2]]


@pytest.mark.parametrize(
    ("events", "ledger", "told"),
    [("kafka:x", None, "kafka:x"), ("pubsub:projects/project-1/subscriptions/s", None, "subscriptions/s"),
     ("file:{tmp}/again", "redis:x", "redis:x")],
)  # fmt: skip
def test_mistakes_are_told_and_nothing_is_published(
    events: str, ledger: str | None, told: str, letters: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["replay", str(letters), "--events", events.format(tmp=tmp_path)]
    assert main([*argv, *(["--ledger", ledger] if ledger else [])]) == 2
    assert told in capsys.readouterr().err
    assert not (tmp_path / "again").exists()


@pytest.mark.parametrize("dated", [False, True], ids=["letters", "between two times"])
def test_a_ledger_that_is_not_there_is_refused_and_not_made(
    letters: Path, dated: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "events").mkdir()
    source = [f"file:{tmp_path}/events", "--from", "2026-04-01T09:00Z"] if dated else [str(letters)]
    path = tmp_path / "mistyped" / "ledegr.db"
    assert main(["replay", *source, "--events", f"file:{tmp_path}/again", "--ledger", f"sqlite:{path}"]) == 2
    assert f"--ledger = {path}\n    is not there" in capsys.readouterr().err
    assert not path.parent.exists()
    assert not (tmp_path / "again").exists()


def test_the_ledger_of_another_delivery_is_refused(
    letters: Path, ledger: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    DeliveryFolder(tmp_path).write_ledger_copy(LedgerCopy("sqlite:other.db", "the id of another", 1))
    before = settled(ledger)
    assert main(["replay", str(letters), "--events", f"file:{tmp_path}/again", "--ledger", ledger]) == 2
    assert "is another ledger" in capsys.readouterr().err
    assert settled(ledger) == before


def test_a_folder_without_letters_replays_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["replay", str(tmp_path / "none"), "--events", f"file:{tmp_path}/again"]
    assert main(argv) == 2
    assert f"SOURCE = {tmp_path}/none\n    is no folder" in capsys.readouterr().err
    (tmp_path / "none").mkdir()
    assert main(argv) == 0
    assert capsys.readouterr().out == "0 messages published again, 0 letters left out\n"
