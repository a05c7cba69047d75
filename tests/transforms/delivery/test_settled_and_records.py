"""SkipSettled, RecordReceipts, UnreportedReceipts and RecordDeadLetters with the real embedded ledger."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import apache_beam as beam
import pytest
from apache_beam.testing.util import assert_that, equal_to
from support.receipts_factory import any_receipt
from support.wire_events import ARRIVED, any_envelope, wire_message

from schemas.contracts import DeadLetter
from schemas.delivery import DeliveryLedger, Receipt, Settlement
from stores.ledger.sqlite import SqliteLedger
from transforms.delivery import record_receipts as records
from transforms.delivery.counters import COUNTERS
from transforms.delivery.decode_events import dead_id, read_envelope
from transforms.delivery.elements import Messages, Receipts
from transforms.delivery.receipts import encode_receipt, refused_letter
from transforms.delivery.record_receipts import RecordDeadLetters, RecordReceipts, UnreportedReceipts, record_unreported
from transforms.delivery.skip_settled import SkipSettled

ENGINE = "BundleBasedDirectRunner"
HELD: dict[str, Any] = {}


def ledger() -> DeliveryLedger:
    """The test's ledger."""
    return HELD["ledger"]


def write(part: str, items: Sequence[Any]) -> None:
    """Keeps what would be a file, and what the ledger had not yet been told by then."""
    if HELD.get("disk is full"):
        raise OSError("no room")
    HELD["files"].append(list(items))
    HELD["parts"].append(part)
    HELD["unreported"].append(len(ledger().unreported(10_000)))


def write_letters(part: str, items: list[DeadLetter]) -> None:
    """Keeps the letters of refused deliveries."""
    if HELD.get("disk is full"):
        raise OSError("no room")
    HELD["letters"] += items


@pytest.fixture(autouse=True)
def book(tmp_path: Path) -> Iterator[SqliteLedger]:
    opened = SqliteLedger(str(tmp_path / "ledger.db"))
    opened.open()
    HELD.update({"ledger": opened, "files": [], "letters": [], "parts": [], "unreported": [], "disk is full": False})
    yield opened
    opened.close()
    HELD.clear()


def receipts(*numbers: int, outcome: str = "accepted") -> list[Receipt]:
    return [any_receipt(event_id=f"{number:032x}", outcome=outcome) for number in numbers]


def settled(*some: Receipt) -> None:
    """Settle receipts as a delivery does: the ledger keeps them."""
    ends = [Settlement(one.event_id, "accepted", encode_receipt(one)) for one in some]
    ledger().settle("an owner", ends, ARRIVED)


def run(elements: Sequence[Any], step: Callable[[Any], Any]) -> None:
    with beam.Pipeline(runner=ENGINE) as p:
        _ = p | beam.Create(elements, reshuffle=False) | step


def letter(number: int) -> DeadLetter:
    """A message that cannot be decoded."""
    decoded = read_envelope(any_envelope(number)._replace(body=b"broken"), ARRIVED)
    assert isinstance(decoded, DeadLetter)
    return decoded


def test_settled_messages_are_dropped_and_counted() -> None:
    settled(*receipts(1, 3))
    before = COUNTERS.tally["already_settled"]
    lists = [Messages([wire_message(n) for n in some]) for some in ([0, 1, 2], [3], [4])]
    with beam.Pipeline(runner=ENGINE) as p:
        rest = p | beam.Create(lists) | SkipSettled(ledger)
        numbers = rest | beam.Map(lambda some: [int(item.event_id, 16) for item in some.items])
        assert_that(numbers, equal_to([[0, 2], [4]]))
    assert COUNTERS.tally["already_settled"] - before == 2


def test_messages_of_a_resuming_source_are_not_looked_up() -> None:
    settled(*receipts(1))
    with beam.Pipeline(runner=ENGINE) as p:
        rest = p | beam.Create([Messages([wire_message(1)], source_resumes=True)]) | SkipSettled(ledger)
        assert_that(rest | beam.Map(lambda some: len(some.items)), equal_to([1]))


def test_the_ledger_is_asked_for_a_thousand_at_a_time(book: SqliteLedger, monkeypatch: pytest.MonkeyPatch) -> None:
    asked, find_in_book = list[int](), book.find

    def find(ids: Sequence[str]) -> dict[str, str]:
        asked.append(len(ids))
        return find_in_book(ids)

    monkeypatch.setattr(book, "find", find)
    run([Messages([wire_message(n, body=b"") for n in range(2_500)])], SkipSettled(ledger))
    assert asked == [1_000, 1_000, 500]


def test_receipts_are_written_and_only_then_reported() -> None:
    some = receipts(*range(5))
    settled(*some)
    run([Receipts(some[:3]), Receipts(some[3:])], RecordReceipts(ledger, write, write_letters, time.time))
    assert sorted(one for file in HELD["files"] for one in file) == some
    assert HELD["unreported"][0] == 5
    assert ledger().unreported(10) == []
    assert len(set(HELD["parts"])) == len(HELD["parts"])


def test_receipts_that_cannot_be_written_are_kept_by_the_ledger() -> None:
    settled(*receipts(1))
    HELD["disk is full"] = True
    with pytest.raises(Exception, match="no room"):
        run([Receipts(receipts(1))], RecordReceipts(ledger, write, write_letters, time.time))
    assert len(ledger().unreported(10)) == 1


@pytest.mark.parametrize("count", [0, 1, 2_500])
def test_what_an_earlier_run_did_not_get_to_write_is_written_by_the_next(count: int) -> None:
    some = receipts(*range(count))
    settled(*some)
    with beam.Pipeline(runner=ENGINE) as p:
        _ = p | UnreportedReceipts(ledger) | RecordReceipts(ledger, write, write_letters, time.time)
    assert sorted(one for file in HELD["files"] for one in file) == some
    assert ledger().unreported(10) == []


def test_what_another_worker_left_is_swept_up_from_time_to_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "_SWEEP_S", -1.0)
    one, unreported = receipts(1), receipts(2)
    settled(*one, *unreported)
    run([Receipts(one)], RecordReceipts(ledger, write, write_letters, time.time))
    assert HELD["files"] == [one, unreported]
    assert ledger().unreported(10) == []


def test_what_dead_workers_left_is_written_whole_and_what_is_young_is_left_to_the_living(book: SqliteLedger) -> None:
    old = [receipt._replace(settled_at=ARRIVED) for receipt in receipts(*range(2_500))]
    (young,) = (receipt._replace(settled_at=ARRIVED + 60_000) for receipt in receipts(9_999))
    settled(*old)
    assert record_unreported(book, write, write_letters, ARRIVED / 1000 + 30, time.time()) == 2_500
    assert sorted(one for file in HELD["files"] for one in file) == sorted(old)
    book.settle("another", [Settlement(young.event_id, "accepted", encode_receipt(young))], young.settled_at)
    assert record_unreported(book, write, write_letters, ARRIVED / 1000 + 30, time.time()) == 0
    assert record_unreported(book, write, write_letters, ARRIVED / 1000 + 61, time.time()) == 1


def test_dead_letters_are_written_each_once_however_often_they_come() -> None:
    one, two = letter(1), letter(2)
    again = one._replace(source="message m-9", detail="another day")
    run([one, two, one, again], RecordDeadLetters(ledger, write, time.time))
    assert sorted(dead_id(one) for file in HELD["files"] for one in file) == sorted([dead_id(one), dead_id(two)])
    run([two, again, letter(3)], RecordDeadLetters(ledger, write, time.time))
    assert [dead_id(one) for one in HELD["files"][-1]] == [dead_id(letter(3))]
    assert ledger().counts(ARRIVED)["dead"] == 3
    run([one], RecordDeadLetters(ledger, write, time.time))
    assert sum(map(len, HELD["files"])) == 3


def test_a_letter_that_could_not_be_written_is_not_remembered() -> None:
    HELD["disk is full"] = True
    with pytest.raises(Exception, match="no room"):
        run([letter(1)], RecordDeadLetters(ledger, write, time.time))
    HELD["disk is full"] = False
    run([letter(1)], RecordDeadLetters(ledger, write, time.time))
    assert HELD["files"] == [[letter(1)]]


def test_a_letter_is_written_again_after_a_replay_had_it_forgotten() -> None:
    run([letter(1)], RecordDeadLetters(ledger, write, time.time))
    assert ledger().reopen([dead_id(letter(1))]) == 1
    run([letter(1)], RecordDeadLetters(ledger, write, time.time))
    assert HELD["files"] == [[letter(1)]] * 2


@pytest.mark.parametrize("killed", [False, True], ids=["at once", "by the next run"])
def test_the_letter_of_a_refused_delivery_is_kept_with_its_receipt_until_both_are_written(killed: bool) -> None:
    (one,) = receipts(1, outcome="rejected")
    refused = refused_letter(wire_message(1), "http_400", "", "0f" * 16)
    ledger().settle("an owner", [Settlement(one.event_id, "rejected", encode_receipt(one, refused))], ARRIVED)
    HELD["disk is full"] = killed
    try:
        run([Receipts([one], [refused])], RecordReceipts(ledger, write, write_letters, time.time))
    except Exception:
        assert killed
        assert not HELD["letters"] + HELD["files"]
        HELD["disk is full"] = False
        with beam.Pipeline(runner=ENGINE) as p:
            _ = p | UnreportedReceipts(ledger) | RecordReceipts(ledger, write, write_letters, time.time)
    assert (HELD["letters"], HELD["files"]) == ([refused], [[one]])
    assert ledger().unreported(10) == []
    assert ledger().counts(ARRIVED)["dead"] == 0
