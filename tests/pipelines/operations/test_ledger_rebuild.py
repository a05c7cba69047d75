"""`campaigns ledger rebuild`: a lost ledger is made from what the receipts say, and says what it cannot know."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.delivering import Delivery, any_events, eventually, on_the_wire, run
from support.receipts_factory import any_receipt, written

from bench.deliveries import ROOT, make_event
from pipelines.operations.ledger.guard import guard_ledger
from pipelines.operations.ledger.rebuild import rebuild
from runners.cli.main import main
from runners.sandbox.process import Sandbox
from schemas.delivery import Settlement
from schemas.problems import InputError, JobError
from schemas.transport import Envelope
from stores.deliveries.delivery_folder import DeliveryFolder
from stores.deliveries.spool import Spool
from stores.ledger.file_lock import LedgerLock
from stores.ledger.identity import write_beat
from stores.ledger.open import open_ledger

pytestmark = pytest.mark.usefixtures("built_in")
NOW = int(time.time() * 1000)


def found_in(uri: str, names: list[str]) -> dict[str, str]:
    ledger = open_ledger(uri)
    ledger.open()
    try:
        return ledger.find(names)
    finally:
        ledger.close()


def test_a_lost_ledger_is_rebuilt_and_nothing_is_sent_again(
    tmp_path: Path, sandbox: Sandbox, capsys: pytest.CaptureFixture[str]
) -> None:
    delivery, events = Delivery(tmp_path, sandbox.url).configure(), any_events(30)
    delivery.put("part-0", events)
    refused = list(events)[3]
    sandbox.script([{"match": {"recipient": "a-3"}, "answer": 400}])
    assert run(delivery) == 0
    before = delivery.outcomes()
    (delivery.output / "ledger.db").unlink()
    assert run(delivery) == 2
    capsys.readouterr()
    assert main(["ledger", "rebuild", str(delivery.output)]) == 0
    told = capsys.readouterr().out
    assert f"ledger {delivery.ledger}: 30 events settled" in told
    assert [line.split() for line in told.splitlines() if line[:5] == "     "] == [
        ["accepted", "29"],
        ["rejected", "1"],
    ]
    assert "not known: events that were in a call when the old ledger was lost" in told
    assert "(the newest is of 2" in told
    assert delivery.settled(*events) == before == dict.fromkeys(events, "accepted") | {refused: "rejected"}
    calls = sandbox.summary()["calls"]
    more = any_events(10, "b")
    delivery.put("part-1", more)
    assert run(delivery) == 0
    assert sandbox.accepted() == dict.fromkeys([*(one for one in events if one != refused), *more], 1)
    assert sandbox.summary()["calls"] > calls


def test_a_ledger_that_is_there_is_not_overwritten_but_moved_away_when_that_is_wanted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out"
    written(output / "receipts", [any_receipt(event_id="a")])
    path = output / "ledger.db"
    path.write_text("what is left of a ledger")
    Path(f"{path}-wal").write_text("and of its -wal")
    assert main(["ledger", "rebuild", str(output)]) == 2
    told = capsys.readouterr().err
    assert "ledger.db, ledger.db-wal" in told
    assert "--move-aside" in told
    assert path.read_text() == "what is left of a ledger"
    assert main(["ledger", "rebuild", str(output), "--move-aside"]) == 0
    assert capsys.readouterr().out.count("moved away: ") >= 2
    assert {one.read_text() for one in output.glob("ledger.db.*.old*") if not one.name.endswith("-shm")} == {
        "what is left of a ledger",
        "and of its -wal",
    }
    assert found_in(f"sqlite:{path}", ["a"]) == {"a": "accepted"}
    guard_ledger(str(output), f"sqlite:{path}")
    assert main(["ledger", "rebuild", str(output)]) == 2


@pytest.mark.parametrize(
    "code",
    [
        "from stores.ledger.open import open_ledger; ledger = open_ledger(uri); ledger.open()",
        "from stores.ledger.sqlite_process import SqliteProcess; ledger = SqliteProcess(uri[7:]); ledger.open()",
        "from pipelines.operations.ledger.guard import guard_ledger; guard_ledger(output, uri)",  # its workers open it later
    ],
    ids=["open", "open in a process of its own", "a job that has begun"],
)
def test_a_ledger_that_another_process_has_open_is_not_renamed_until_that_has_ended_also_by_a_kill(
    tmp_path: Path, code: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path, output, other = tmp_path / "shared.db", tmp_path / "out", tmp_path / "other"
    written(output / "receipts", [any_receipt(event_id="a", settled_at=NOW)])
    ledger = open_ledger(f"sqlite:{path}")
    ledger.open()
    ledger.settle("one", [Settlement("a", "accepted"), Settlement("of the other", "accepted")], NOW)
    ledger.close()
    argv = ["ledger", "rebuild", str(output), "--ledger", f"sqlite:{path}", "--move-aside"]
    program = f"import sys; uri, output = sys.argv[1:]; {code}; print('open', flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", program, f"sqlite:{path}", str(other)]
    other.mkdir()
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe, text=True) as job:
        assert job.stdout is not None
        assert job.stdout.readline() == "open\n"
        before = path.read_bytes()
        assert main(argv) == 1
        told = capsys.readouterr().err
        assert f"{path} is in use: a running job" in told
        assert "Nothing was changed" in told
        assert path.read_bytes() == before
        assert not list(tmp_path.glob("*.old*"))
        job.kill()
    eventually(lambda: main(argv) == 0, "the end of the killed process's lock")
    assert found_in(f"sqlite:{path}", ["a", "of the other"]) == {"a": "accepted"}


def test_a_ledger_is_not_opened_while_a_rebuild_renames_it(tmp_path: Path) -> None:
    lock = LedgerLock(f"{tmp_path}/ledger.db")
    assert lock.take_alone()
    with pytest.raises(JobError, match="is being renamed by `campaigns ledger rebuild"):
        open_ledger(f"sqlite:{tmp_path}/ledger.db").open()
    lock.release()
    ledger = open_ledger(f"sqlite:{tmp_path}/ledger.db")
    ledger.open()
    assert not LedgerLock(f"{tmp_path}/ledger.db").take_alone()
    ledger.close()
    assert LedgerLock(f"{tmp_path}/ledger.db").take_alone()


def test_a_firestore_ledger_with_entries_is_not_overwritten(firestore_uri: str, tmp_path: Path) -> None:
    written(tmp_path / "out" / "receipts", [any_receipt(event_id="a")])
    rebuild(str(tmp_path / "out"), [], firestore_uri, False, lambda text: None)
    with pytest.raises(InputError, match="has entries"):
        rebuild(str(tmp_path / "out"), [], firestore_uri, True, lambda text: None)


def test_each_event_ends_as_its_receipts_say_together_wherever_they_lie(uri: str, tmp_path: Path) -> None:
    outcomes = {
        "a": ["unknown", "accepted", "rejected"],
        "b": ["expired", "rejected"],
        "c": ["unknown", "expired"],
        "d": ["unknown"],
        "e": ["rejected", "unknown"],
    }
    receipts = [
        any_receipt(event_id=name, outcome=outcome, settled_at=NOW + number)
        for name, some in outcomes.items()
        for number, outcome in enumerate(some)
    ]
    output, moved = tmp_path / "out", tmp_path / "moved"
    written(output / "receipts", receipts[::2])
    written(moved, receipts[1::2])
    found = rebuild(str(output), [str(moved)], uri, False, lambda text: None)
    assert found_in(uri, list("abcdef")) == {
        "a": "accepted",
        "b": "rejected",
        "c": "expired",
        "d": "unknown",
        "e": "unknown",
    }
    assert dict(found.settled) == {"accepted": 1, "rejected": 1, "expired": 1, "unknown": 2}
    ledger = open_ledger(uri)
    ledger.open()
    assert ledger.unreported(10) == [], "the receipts are there already"
    ledger.close()
    guard_ledger(str(output), uri)


def test_what_could_not_be_decoded_leaves_no_second_letter_after_a_rebuild(
    tmp_path: Path, sandbox: Sandbox, capsys: pytest.CaptureFixture[str]
) -> None:
    delivery = Delivery(tmp_path, sandbox.url).configure()
    event = make_event(random.Random(1), 1, "kroger", NOW, customer_id="x" * 300)
    delivery.put("part-0", {event["event_id"]: on_the_wire([event])[0]})
    assert run(delivery) == 0
    assert len(delivery.letters()) == 1
    (delivery.output / "ledger.db").unlink()
    capsys.readouterr()
    assert main(["ledger", "rebuild", str(delivery.output)]) == 0
    assert ["dead", "1"] in [line.split() for line in capsys.readouterr().out.splitlines()]
    assert run(delivery) == 0
    assert len(delivery.letters()) == 1


def test_events_of_the_spool_without_a_receipt_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output, events = tmp_path / "out", any_events(10)
    folder = DeliveryFolder(output)
    folder.prepare()
    envelopes = [Envelope("m", attributes, body, 0) for body, attributes in events.values()]
    Spool(folder.spool).write(envelopes[:6])
    Spool(folder.spool).write(envelopes[6:])
    (folder.spool / "0.spool").write_bytes(b"broken")
    written(output / "receipts", [any_receipt(event_id=name) for name in list(events)[:7]])
    assert main(["ledger", "rebuild", str(output)]) == 0
    told = capsys.readouterr().out
    assert "3 events of the spool have no receipt: the next run sends them" in told
    assert "0.spool" in told


def test_a_rebuild_that_was_interrupted_is_no_ledger_until_it_has_ended(uri: str, tmp_path: Path) -> None:
    output = tmp_path / "out"
    written(output / "receipts", [any_receipt(event_id=one, settled_at=NOW) for one in "ab"])
    ledger = open_ledger(uri)
    ledger.open()
    write_beat(ledger, NOW, rebuilding=True)
    ledger.close()
    with pytest.raises(InputError, match="is an unfinished rebuild"):
        guard_ledger(str(output), uri)
    rebuild(str(output), [], uri, False, lambda text: None)
    guard_ledger(str(output), uri)
    assert found_in(uri, ["a", "b"]) == {"a": "accepted", "b": "accepted"}


def test_another_delivery_that_shares_the_ledger_takes_the_rebuilt_one(uri: str, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    for output, name in ((first, "a"), (second, "b")):
        written(output / "receipts", [any_receipt(event_id=name, settled_at=NOW)])
    made = f"sqlite:{tmp_path}/other.db" if uri.startswith("sqlite:") else uri + "-other"
    rebuild(str(first), [str(second / "receipts")], uri, False, lambda text: None)
    guard_ledger(str(second), uri)
    rebuild(str(first), [str(second / "receipts")], made, False, lambda text: None)
    guard_ledger(str(second), made)


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        ([], ["--receipts", "there is no folder"]),
        (["--receipts", "/none"], ["/none", "is no folder"]),
        (["--campaign", "x"], ["--campaign", "is not for `rebuild`"]),
        (["--ledger", "redis:x", "--receipts", "/none"], ["redis:x"]),
    ],
    ids=["no receipts", "no folder", "another action's option", "no ledger"],
)
def test_mistakes_are_told(
    tmp_path: Path, argv: list[str], told: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["ledger", "rebuild", str(tmp_path / "out"), *argv]) == 2
    error = capsys.readouterr().err
    assert [text for text in told if text not in error] == []
    assert not (tmp_path / "out" / "ledger.db").exists()


def test_receipts_that_cannot_be_read_leave_the_old_ledger_in_its_place(tmp_path: Path) -> None:
    output = tmp_path / "out"
    written(output / "receipts", [any_receipt(event_id="a")])
    (output / "receipts" / "part-1.avro").write_bytes(b"Obj\x01 broken")
    (output / "ledger.db").write_text("old")
    assert main(["ledger", "rebuild", str(output), "--move-aside"]) == 2
    assert (output / "ledger.db").read_text() == "old"
