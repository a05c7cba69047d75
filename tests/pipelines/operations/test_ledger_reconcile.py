"""`campaigns ledger reconcile`: a vendor's list settles the unknown events it has, and reopens the others."""

from __future__ import annotations

import gzip
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from support.delivering import Delivery, any_events
from support.receipts_factory import any_receipt, written

from pipelines.operations.ledger.reconcile import reconcile
from runners.cli.main import main
from runners.sandbox.process import Sandbox
from schemas.delivery import DeliveryLedger, Settlement
from stores.deliveries.receipts import open_receipts
from stores.ledger.open import open_ledger

pytestmark = pytest.mark.usefixtures("built_in")
NOW = int(time.time() * 1000)


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "out"


def settled(uri: str, output: Path, ends: dict[str, tuple[str, int]], **changes: str) -> DeliveryLedger:
    """A ledger, open, in which events ended at a time, with their receipts."""
    ledger = open_ledger(uri)
    ledger.open()
    for name, (outcome, at) in ends.items():
        ledger.settle(f"owner of {name}", [Settlement(name, outcome)], at)  # type: ignore[arg-type]
    receipts = [
        any_receipt(event_id=name, outcome=outcome, settled_at=at, **changes) for name, (outcome, at) in ends.items()
    ]
    written(output / "receipts", receipts, f"part-{len(list((output / 'receipts').glob('*')))}")
    return ledger


def accepted_file(tmp_path: Path, *names: str) -> str:
    path = tmp_path / "accepted.txt"
    path.write_text("".join(f"{name}\n" for name in names))
    return str(path)


def test_an_unknown_event_in_the_list_is_accepted_and_the_others_are_sent_again(
    tmp_path: Path, sandbox: Sandbox, capsys: pytest.CaptureFixture[str]
) -> None:
    delivery, events = Delivery(tmp_path, sandbox.url).configure(on_unknown="hold"), any_events(200)
    delivery.put("part-0", events)
    by_retailer = [{"workspace": name} for name in ("kroger", "aldi")]
    first_is_lost = [{"match": match, "answer": "lose", "first": 1} for match in by_retailer]
    sandbox.script([*first_is_lost, *({"match": match, "answer": "reset"} for match in by_retailer)])
    assert delivery.run("--drain") == 0
    taken = set(sandbox.accepted())
    unknown = {name for name, outcome in delivery.outcomes().items() if outcome == "unknown"}
    lost, never = unknown & taken, unknown - taken
    assert lost
    assert never
    sandbox.script([])
    time.sleep(0.01)
    names = accepted_file(tmp_path, *taken)
    capsys.readouterr()
    assert main(["ledger", "reconcile", str(delivery.output), "--accepted", names]) == 0
    told = capsys.readouterr().out
    assert f"{len(lost)} unknown events are in the list: they are accepted now" in told
    assert f"{len(never)} unknown events are not in the list: the next run of rebatch sends them again" in told
    assert delivery.run("--drain") == 0
    assert sandbox.accepted() == dict.fromkeys(events, 1)
    assert delivery.outcomes() == dict.fromkeys(events, "accepted") == delivery.settled(*events)


def test_the_receipt_of_a_reconciled_event_says_so_and_is_of_its_call(uri: str, output: Path, tmp_path: Path) -> None:
    settled(uri, output, {"a": ("unknown", NOW - 9_000)}, reason="no_answer").close()
    reconcile(str(output), uri, accepted_file(tmp_path, "a"), None, None, [])
    con = open_receipts([str(output / "receipts")])
    query = "SELECT outcome, reason, batch_id, customer_id, count(*) FROM outcomes GROUP BY ALL"
    assert con.execute(query).fetchall() == [("accepted", "reconciled", "b-1", "c-1", 1)]
    assert con.execute("SELECT count(*) FROM receipts WHERE outcome = 'accepted'").fetchall() == [(1,)]


def test_only_what_was_settled_before_the_list_was_taken_is_reopened(uri: str, output: Path, tmp_path: Path) -> None:
    ends = {"early": ("unknown", NOW - 9_000), "late": ("unknown", NOW - 1_000), "late, in the list": ("unknown", NOW)}
    ledger = settled(uri, output, {**ends, "known": ("accepted", NOW - 9_000)})
    path = tmp_path / "list.csv"
    path.write_text('event_id\n"late, in the list"\nknown\n')
    found = reconcile(str(output), uri, str(path), NOW - 5_000, None, [])
    assert ledger.find(["early", "late", "late, in the list"]) == {"late": "unknown", "late, in the list": "accepted"}
    assert (found.accepted, found.reopened, found.later) == (1, 1, 1)
    os.utime(path, ((NOW - 500) / 1000, (NOW - 500) / 1000))
    found = reconcile(str(output), uri, str(path), None, None, [])
    assert (found.accepted, found.reopened, found.later) == (0, 1, 0), "by default the list is as old as its file"
    ledger.close()


def test_a_list_of_another_delivery_changes_nothing(uri: str, output: Path, tmp_path: Path) -> None:
    ledger = settled(uri, output, {"a": ("unknown", NOW - 9_000)})
    argv = ["ledger", "reconcile", str(output), "--ledger", uri, "--accepted"]
    for names in ([], ["x", "y"]):
        assert main([*argv, accepted_file(tmp_path, *names)]) == 2
    assert ledger.find(["a"]) == {"a": "unknown"}
    ledger.close()


def test_a_list_of_which_most_ids_are_foreign_is_taken_only_when_that_is_said(
    uri: str, output: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ledger = settled(uri, output, {"a": ("unknown", NOW - 9_000), "b": ("unknown", NOW - 9_000)})
    argv = ["ledger", "reconcile", str(output), "--ledger", uri, "--accepted", accepted_file(tmp_path, "a", "x", "y")]
    assert main(argv) == 2
    told = capsys.readouterr().err
    assert "event_id = 1 of 3 ids known\n" in told
    assert "Less than half of its ids" in told
    assert ledger.find(["a", "b"]) == {"a": "unknown", "b": "unknown"}
    assert main([*argv, "--allow-foreign-ids"]) == 0
    assert ledger.find(["a", "b"]) == {"a": "accepted"}
    ledger.close()


def test_a_campaign_and_a_retailer_that_no_receipt_has_are_told(
    output: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    uri = f"sqlite:{output}/ledger.db"
    ledger = settled(uri, output, {"a": ("unknown", NOW - 9_000)})
    argv = ["ledger", "reconcile", str(output), "--accepted", accepted_file(tmp_path, "a")]
    assert main([*argv, "--campaign", "welcom", "--retailer", "store-2"]) == 2
    told = capsys.readouterr().err
    assert "--campaign = welcom\n" in told
    assert "did you mean welcome? known: welcome\n" in told
    assert "did you mean store-1? known: store-1\n" in told
    assert ledger.find(["a"]) == {"a": "unknown"}
    ledger.close()


def test_a_list_says_nothing_of_retailers_and_campaigns_of_which_it_has_no_event(
    uri: str, output: Path, tmp_path: Path
) -> None:
    ends = {"a": ("unknown", NOW - 9_000), "b": ("accepted", NOW - 9_000)}
    ledger = settled(uri, output, ends)
    settled(uri, output, {"c": ("unknown", NOW - 9_000)}, retailer_id="aldi").close()
    settled(uri, output, {"d": ("unknown", NOW - 9_000)}, campaign_id="another").close()
    found = reconcile(str(output), uri, accepted_file(tmp_path, "b"), None, None, [])
    assert ledger.find(list("acd")) == {"c": "unknown", "d": "unknown"}
    groups = [(group.retailer, group.campaign, group.events) for group in found.uncovered]
    assert groups == [("aldi", "welcome", 1), ("store-1", "another", 1)]
    ledger.close()


def test_only_the_campaign_and_the_retailer_that_are_named(uri: str, output: Path, tmp_path: Path) -> None:
    ledger = settled(uri, output, {"a": ("unknown", NOW - 9_000), "b": ("unknown", NOW - 9_000)})
    for number, changes in enumerate(({"retailer_id": "aldi"}, {"campaign_id": "another"})):
        more = {f"{name}{number}": ("unknown", NOW - 9_000) for name in "cd"}
        settled(uri, output, more, **changes).close()
    path = accepted_file(tmp_path, "a", "c0", "c1")
    found = reconcile(str(output), uri, path, None, "welcome", ["store-1"])
    assert (found.accepted, found.reopened, found.known["unknown"]) == (1, 1, 2)
    names = ["a", "b", "c0", "d0", "c1", "d1"]
    assert ledger.find(names) == {"a": "accepted", **dict.fromkeys(["c0", "d0", "c1", "d1"], "unknown")}
    ledger.close()


def test_ids_that_the_ledger_says_otherwise_of_are_counted_and_left(
    uri: str, output: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ends = {one: (one, NOW - 9_000) for one in ("accepted", "rejected", "expired")}
    ledger = settled(uri, output, ends)
    path = accepted_file(tmp_path, *ends, "nobody")
    assert main(["ledger", "reconcile", str(output), "--ledger", uri, "--accepted", path]) == 0
    told = capsys.readouterr().out
    for text in ("accepted already", "are rejected in", "are expired in", "have no outcome in the ledger"):
        assert f"1 ids of the list {text}" in told or f"1 ids of the list were {text}" in told
    assert ledger.find(list(ends)) == {one: one for one in ends}
    ledger.close()


def text_of(text: str) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(text.encode())


FORMS: dict[str, Callable[[Path], object]] = {
    "one a line": text_of("a\n\nb\n"),
    "lines of Windows with a byte order mark": text_of("\ufeffa\r\nb\r\n"),
    "CSV": text_of('when,event_id\n"1, 2",a\n3,b\n'),
    "CSV with semicolons and a byte order mark": text_of('\ufeff"event_id";when\r\na;1\r\nb;2\r\n'),
    "CSV of one column": text_of("event_id\na\nb\n"),
    "NDJSON": text_of('{"event_id": "a", "x": [1]}\n\n{"event_id": "b"}\n'),
    "gzip": lambda path: path.write_bytes(gzip.compress(b"event_id\tx\na\t1\nb\t2\n")),
}


@pytest.mark.parametrize("write", FORMS.values(), ids=FORMS.keys())
def test_the_list_may_have_any_of_these_forms(write: Callable[[Path], object], output: Path, tmp_path: Path) -> None:
    uri = f"sqlite:{tmp_path}/ledger.db"
    ledger = settled(uri, output, dict.fromkeys("abc", ("unknown", NOW - 9000)))
    write(tmp_path / "list")
    found = reconcile(str(output), uri, str(tmp_path / "list"), None, None, [])
    assert ledger.find(list("abc")) == {"a": "accepted", "b": "accepted"}
    assert found.listed == 2
    ledger.close()


BROKEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "CSV without the column": (text_of("id,when\na,1\n"), "CSV with a column event_id in its first line"),
    "a row that is too short": (text_of("when,event_id\n1,a\n2\n"), "has no column event_id"),
    "NDJSON without the field": (text_of('{"id": "a"}\n'), "has no text event_id"),
    "NDJSON that breaks off": (text_of('{"event_id": "a"}\n{"event_id'), "is no JSON object"),
    "a JSON array": (text_of('["a", "b"]'), "is no id"),
    "no UTF-8": (lambda path: path.write_bytes(b"a\n\xff\xfe\n"), "is not UTF-8"),
    "gzip that breaks off": (lambda path: path.write_bytes(gzip.compress(b"a\n" * 9_000)[:30]), "cannot be read"),
    "binary": (lambda path: path.write_bytes(b"PK\x03\x04\x00\x01"), "is no event id"),
    "a folder": (lambda path: path.mkdir(), "cannot be read"),
    "nothing": (lambda path: None, "cannot be read"),
}


@pytest.mark.parametrize(("write", "says"), BROKEN.values(), ids=BROKEN.keys())
def test_a_list_that_cannot_be_read_is_told_and_changes_nothing(
    write: Callable[[Path], object], says: str, output: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    uri = f"sqlite:{output}/ledger.db"
    ledger = settled(uri, output, {"a": ("unknown", NOW - 9_000)})
    write(tmp_path / "list")
    assert main(["ledger", "reconcile", str(output), "--accepted", str(tmp_path / "list")]) == 2
    told = capsys.readouterr().err
    assert says in told
    assert f"{tmp_path}/list" in told
    assert ledger.find(["a"]) == {"a": "unknown"}
    ledger.close()


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        ([], "--accepted"),
        (["--accepted", "x", "--as-of", "yesterday"], "2026-04-01T09:00Z"),
        (["--launch", "x"], "--launch"),
    ],
    ids=["no list", "no time", "another action's option"],
)
def test_mistakes_are_told(output: Path, argv: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ledger", "reconcile", str(output), *argv]) == 2
    assert told in capsys.readouterr().err
