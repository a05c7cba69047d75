"""A ledger that is not the delivery's newest is refused by name before anything is sent."""

from __future__ import annotations

import json
import random
import shutil
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from support.delivering import KEY, Delivery, any_events, run
from support.receipts_factory import any_receipt, written

from pipelines.operations.ledger.guard import guard_ledger
from pipelines.rebatch.factories import sweep
from pipelines.rebatch.options import RebatchConfig, RebatchOptions
from runners.cli.main import main
from runners.sandbox.process import Sandbox
from schemas.delivery import DeliveryLedger, Settlement
from schemas.problems import InputError, JobError
from stores.deliveries.delivery_folder import DeliveryFolder
from stores.deliveries.spool import Spool
from stores.ledger.firestore import KEEP
from stores.ledger.identity import reopen_events
from stores.ledger.open import open_ledger

pytestmark = pytest.mark.usefixtures("built_in")
EVENTS = any_events(30)
Spoil = Callable[[Path], object]


@pytest.fixture(scope="module")
def delivered(_running: Sandbox, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a delivery of thirty events, which a run has made."""
    made = Delivery(tmp_path_factory.mktemp("delivered"), _running.url).configure()
    made.put("part-0", EVENTS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CAMPAIGNS_PRISM", "/none")
        patch.setenv("SANDBOX_KEY", KEY["SANDBOX_KEY"])
        assert run(made) == 0
    assert _running.accepted() == dict.fromkeys(EVENTS, 1)
    return made.root


@pytest.fixture
def delivery(delivered: Path, sandbox: Sandbox, tmp_path: Path) -> Delivery:
    """A copy of it."""
    shutil.copytree(delivered, tmp_path / "it")
    return Delivery(tmp_path / "it", sandbox.url)


def db(delivery: Delivery) -> Path:
    return delivery.output / "ledger.db"


def without_receipts(delivery: Delivery) -> None:
    """They were moved to the event store."""
    for path in (delivery.output / "receipts").glob("*.avro"):
        path.unlink()


def with_wal(delivery: Delivery) -> None:
    """The ledger as a kill leaves it: what is newest stands in the -wal alone."""
    path, parts = db(delivery), [Path(f"{db(delivery)}{one}") for one in ("", "-wal")]
    con = sqlite3.connect(path, isolation_level=None)
    con.execute("SELECT count(*) FROM settled").fetchall()  # as long as it is open nobody else is the last to close
    more = any_events(20, "b")
    delivery.put("part-1", more)
    assert run(delivery) == 0
    copies = [one.with_name(f"copy-{one.name}") for one in parts]
    for one, copy in zip(parts, copies, strict=True):
        shutil.copy(one, copy)
    con.close()
    for one, copy in zip(parts, copies, strict=True):
        copy.replace(one)


def refused(delivery: Delivery, sandbox: Sandbox, capsys: pytest.CaptureFixture[str]) -> str:
    """What the next run says, which sends nothing and exits with 2."""
    calls = sandbox.summary()["calls"]
    capsys.readouterr()
    assert run(delivery) == 2
    told = capsys.readouterr().err
    assert "Traceback" not in told
    assert str(db(delivery)) in told
    assert sandbox.summary()["calls"] == calls
    return told


def truncate(path: Path, size: int) -> None:
    with path.open("r+b") as file:
        file.truncate(size)


LOST: dict[str, tuple[Spoil, str]] = {
    "deleted": (lambda path: path.unlink(), "is not there"),
    "empty": (lambda path: truncate(path, 0), "is empty"),
    "truncated in the middle of a page": (
        lambda path: truncate(path, path.stat().st_size - 1_000),
        "breaks off in the middle of a page",
    ),
    "cut to its first page": (lambda path: truncate(path, 4_096), "malformed"),
    "made anew": (lambda path: _made_anew(path), "is another ledger: a new one"),
    "random bytes": (lambda path: path.write_bytes(random.Random(1).randbytes(50_000)), "is not a database"),
    "a text file": (lambda path: path.write_text("a ledger was here\n" * 100), "is not a database"),
    "another application's": (lambda path: _anothers(path), "no delivery ledger"),
    "a directory": (lambda path: _a_directory(path), "is no file"),
}


def _made_anew(path: Path) -> None:
    path.unlink()
    ledger = open_ledger(f"sqlite:{path}")
    ledger.open()
    ledger.close()


def _a_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _anothers(path: Path) -> None:
    path.unlink()
    con = sqlite3.connect(path)
    con.execute("CREATE TABLE theirs (id)")
    con.close()


@pytest.mark.parametrize(("spoil", "says"), LOST.values(), ids=LOST.keys())
@pytest.mark.parametrize("moved", [False, True], ids=["beside receipts", "receipts moved away"])
def test_a_lost_ledger_is_refused_and_left_as_it_is(
    delivery: Delivery,
    sandbox: Sandbox,
    capsys: pytest.CaptureFixture[str],
    spoil: Spoil,
    says: str,
    moved: bool,
) -> None:
    if moved:
        without_receipts(delivery)
    spoil(db(delivery))
    before = db(delivery).read_bytes() if db(delivery).is_file() else None
    for _ in range(2):  # a first refusal must not make what the second takes for a ledger
        told = refused(delivery, sandbox, capsys)
        assert says in told
    assert "campaigns ledger rebuild" in told or says == "is no file"
    assert (db(delivery).read_bytes() if db(delivery).is_file() else None) == before


def test_a_lost_ledger_beside_a_spool_alone_is_refused(
    delivery: Delivery, sandbox: Sandbox, capsys: pytest.CaptureFixture[str]
) -> None:
    without_receipts(delivery)
    folder = DeliveryFolder(delivery.output)
    folder.ledger_copy.unlink()
    Spool(folder.spool).write([])
    db(delivery).unlink()
    assert "has 1 files in its spool of earlier runs" in refused(delivery, sandbox, capsys)
    assert not db(delivery).exists()


def test_a_ledger_without_its_wal_is_refused_and_with_it_taken(
    delivery: Delivery, sandbox: Sandbox, capsys: pytest.CaptureFixture[str]
) -> None:
    with_wal(delivery)
    wal = Path(f"{db(delivery)}-wal")
    kept = wal.read_bytes()
    assert kept
    wal.unlink()
    assert "its -wal" in refused(delivery, sandbox, capsys)
    without_receipts(delivery)
    told = refused(delivery, sandbox, capsys)
    assert "is older than the delivery" in told
    assert "copied without its -wal file" in told
    wal.write_bytes(kept)
    calls = sandbox.summary()["calls"]
    assert run(delivery) == 0
    assert sandbox.summary()["calls"] == calls


def test_a_deleted_ledger_whose_wal_is_left_is_refused_and_the_wal_stays(
    delivery: Delivery, sandbox: Sandbox, capsys: pytest.CaptureFixture[str]
) -> None:
    with_wal(delivery)
    kept = Path(f"{db(delivery)}-wal").read_bytes()
    for spoil in (db(delivery).unlink, db(delivery).touch):
        spoil()
        refused(delivery, sandbox, capsys)
        assert Path(f"{db(delivery)}-wal").read_bytes() == kept


def test_a_ledger_with_the_wal_of_another_is_refused_and_its_own_file_stays(
    delivery: Delivery, sandbox: Sandbox, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    other = Delivery(tmp_path / "other", sandbox.url).configure()
    other.put("part-0", any_events(30, "c"))
    assert run(other) == 0
    with_wal(other)
    before = db(delivery).read_bytes()
    shutil.copy(f"{db(other)}-wal", f"{db(delivery)}-wal")
    refused(delivery, sandbox, capsys)
    assert db(delivery).read_bytes() == before
    Path(f"{db(delivery)}-wal").unlink()
    assert run(delivery) == 0


@pytest.mark.parametrize("moved", [False, True], ids=["beside receipts", "receipts moved away"])
def test_an_older_ledger_from_a_backup_is_refused(
    delivery: Delivery, sandbox: Sandbox, capsys: pytest.CaptureFixture[str], moved: bool
) -> None:
    backup = db(delivery).read_bytes()
    delivery.put("part-1", any_events(20, "b"))
    assert run(delivery) == 0
    if moved:
        without_receipts(delivery)
    db(delivery).write_bytes(backup)
    told = refused(delivery, sandbox, capsys)
    assert "is older than the delivery: as of 2" in told
    assert f"Restore {db(delivery)} with its -wal file" in told


def test_an_older_ledger_is_found_by_receipts_alone_when_nothing_else_tells(
    delivery: Delivery, sandbox: Sandbox, capsys: pytest.CaptureFixture[str]
) -> None:
    backup = db(delivery).read_bytes()
    delivery.put("part-1", any_events(20, "b"))
    assert run(delivery) == 0
    db(delivery).write_bytes(backup)
    (delivery.output / "ledger.json").unlink()
    told = refused(delivery, sandbox, capsys)
    assert "does not know 20 of 50 events that ended" in told
    assert any(f"such as {name}, accepted at 2" in told for name in any_events(20, "b"))


def test_another_ledger_is_refused_and_the_first_is_named(
    delivery: Delivery, sandbox: Sandbox, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    calls = sandbox.summary()["calls"]
    assert run(delivery, f"--ledger=sqlite:{tmp_path}/another.db") == 2
    assert f"{tmp_path}/another.db  ledger = is not there" in capsys.readouterr().err
    _made_anew_at(tmp_path / "another.db")
    assert run(delivery, f"--ledger=sqlite:{tmp_path}/another.db") == 2
    assert ", which was sqlite:" in capsys.readouterr().err
    assert sandbox.summary()["calls"] == calls


def _made_anew_at(path: Path) -> None:
    path.touch()
    _made_anew(path)


def test_a_ledger_that_was_moved_with_its_delivery_is_taken(delivery: Delivery, sandbox: Sandbox) -> None:
    assert delivery.ledger not in (delivery.output / "ledger.json").read_text()
    assert run(delivery) == 0
    assert sandbox.summary()["calls"] == 0


def test_a_ledger_of_an_earlier_version_is_taken_and_has_an_identity_from_then_on(
    delivery: Delivery, sandbox: Sandbox
) -> None:
    (delivery.output / "ledger.json").unlink()
    con = sqlite3.connect(db(delivery))
    con.execute("DELETE FROM cells WHERE name LIKE 'ledger/%'")
    con.commit()
    con.close()
    calls = sandbox.summary()["calls"]
    assert run(delivery) == 0
    assert sandbox.summary()["calls"] == calls
    assert json.loads((delivery.output / "ledger.json").read_text())["ledger"] == delivery.ledger


def test_a_damaged_copy_of_the_identity_is_told(
    delivery: Delivery, sandbox: Sandbox, capsys: pytest.CaptureFixture[str]
) -> None:
    (delivery.output / "ledger.json").write_text("{")
    assert run(delivery) == 2
    assert "ledger.json" in capsys.readouterr().err


@pytest.mark.parametrize("action", ["show", "reopen", "cancel"])
@pytest.mark.parametrize(("spoil", "says"), LOST.values(), ids=LOST.keys())
def test_the_commands_refuse_a_lost_ledger_too(
    delivery: Delivery, capsys: pytest.CaptureFixture[str], spoil: Spoil, says: str, action: str
) -> None:
    spoil(db(delivery))
    capsys.readouterr()
    more = ["--launch", "/none", "--campaign", "x"] if action == "cancel" else []
    assert main(["ledger", action, str(delivery.output), *more]) == 2
    told = capsys.readouterr()
    assert "Traceback" not in told.err
    assert says in told.err or action == "cancel"


def filled(uri: str, names: list[str], at: int) -> DeliveryLedger:
    """The ledger, open, with these events accepted and reported."""
    ledger = open_ledger(uri)
    ledger.open()
    ledger.settle("one", [Settlement(name, "accepted") for name in names], at)
    return ledger


def test_receipts_of_what_a_ledger_does_not_know_are_found_in_either_ledger(uri: str, tmp_path: Path) -> None:
    now, output = int(time.time() * 1000), tmp_path / "out"
    names = [f"{number:032x}" for number in range(100)]
    filled(uri, names[:99], now).close()
    receipts = [any_receipt(event_id=name, settled_at=now) for name in names]
    written(output / "receipts", receipts[:99])
    guard_ledger(str(output), uri)
    written(output / "receipts", receipts[99:], f"{time.time_ns():020d}-x")
    with pytest.raises(InputError, match="does not know 1 of 100 events that ended"):
        guard_ledger(str(output), uri)


def test_what_may_be_reopened_or_was_forgotten_is_not_missed(uri: str, tmp_path: Path) -> None:
    now, output = int(time.time() * 1000), tmp_path / "out"
    ledger = filled(uri, ["old", "new"], now - 10_000)
    receipts = [any_receipt(event_id=name, settled_at=now - 10_000) for name in ("old", "new")]
    reopened = [any_receipt(event_id=one, outcome=one, settled_at=now) for one in ("rejected", "unknown")]
    written(output / "receipts", [*receipts, *reopened])
    guard_ledger(str(output), uri)
    assert ledger.forget(now - 5_000) == 2
    assert ledger.forget(now - 9_000) == 0
    guard_ledger(str(output), uri)
    written(output / "receipts", [any_receipt(event_id="newer", settled_at=now - 4_000)], "part-1")
    with pytest.raises(InputError, match="such as newer"):
        guard_ledger(str(output), uri)
    ledger.close()


@pytest.mark.parametrize("outcome", ["unknown", "rejected"])
def test_an_older_ledger_is_found_by_unknown_and_rejected_receipts_alone_unless_they_were_reopened(
    uri: str, tmp_path: Path, outcome: str
) -> None:
    output = tmp_path / "out"
    output.mkdir()
    guard_ledger(str(output), uri)
    (output / "ledger.json").unlink()
    now = int(time.time() * 1000)
    written(output / "receipts", [any_receipt(event_id="a", outcome=outcome, settled_at=now + 1_000)])
    with pytest.raises(InputError, match=f"does not know 1 of 1 events .*(\n.*)*such as a, {outcome}"):
        guard_ledger(str(output), uri)
    ledger = open_ledger(uri)
    ledger.open()
    ledger.settle("one", [Settlement("a", outcome)], now + 1_000)  # type: ignore[arg-type]
    guard_ledger(str(output), uri)
    assert reopen_events(ledger, ["a"], now + 2_000) == 1
    guard_ledger(str(output), uri)
    ledger.close()


def test_an_empty_ledger_beside_unknown_receipts_alone_is_refused(uri: str, tmp_path: Path) -> None:
    ledger = open_ledger(uri)
    ledger.open()
    ledger.close()
    receipt = any_receipt(event_id="a", outcome="unknown", settled_at=int(time.time() * 1000))
    written(tmp_path / "out" / "receipts", [receipt])
    with pytest.raises(InputError, match="does not know 1 of 1 events"):
        guard_ledger(str(tmp_path / "out"), uri)


def test_a_job_whose_ledger_is_replaced_stops_and_does_not_take_the_other_for_its_own(
    delivery: Delivery, sandbox: Sandbox, tmp_path: Path
) -> None:
    backup = db(delivery).read_bytes()
    delivery.put("part-1", any_events(20, "b"))
    assert run(delivery) == 0
    folder, config = DeliveryFolder(delivery.output), RebatchConfig.of(RebatchOptions(delivery.argv("--drain")))
    sweep(config)
    copy = folder.ledger_copy.read_bytes()
    db(delivery).write_bytes(backup)
    with pytest.raises(JobError, match=r"The job stops because of its ledger: .* is older than the delivery"):
        sweep(config)
    assert folder.must_stop()
    assert folder.ledger_copy.read_bytes() == copy
    db(delivery).unlink()
    _made_anew_at(db(delivery))
    with pytest.raises(JobError, match="is another ledger: a new one"):
        sweep(config)
    assert folder.ledger_copy.read_bytes() == copy


def test_what_firestore_drops_after_35_days_is_not_missed(firestore_uri: str, tmp_path: Path) -> None:
    now, output = int(time.time() * 1000), tmp_path / "out"
    old = now - int(KEEP.total_seconds() * 1000)
    written(output / "receipts", [any_receipt(event_id="old", settled_at=old)])
    guard_ledger(str(output), firestore_uri)


def test_an_older_ledger_is_known_by_its_beat_in_either_ledger(uri: str, tmp_path: Path) -> None:
    output = tmp_path / "out"
    output.mkdir()
    guard_ledger(str(output), uri)
    folder = DeliveryFolder(output)
    copy = folder.read_ledger_copy()
    assert copy is not None
    folder.write_ledger_copy(type(copy)(copy.ledger, copy.id, copy.beat + 60_000))
    with pytest.raises(InputError, match="is older than the delivery"):
        guard_ledger(str(output), uri)
    folder.write_ledger_copy(type(copy)(copy.ledger, "another", copy.beat))
    with pytest.raises(InputError, match="is another ledger"):
        guard_ledger(str(output), uri)
