"""Waiting batches of a drain are on disk, in order, and are read back in parts of bounded size."""

from __future__ import annotations

from pathlib import Path

from support.streams import any_message

from schemas.delivery import Batch
from stores.deliveries.waiting_batches import WaitingBatches, read_waiting


def batch(*numbers: int, size: int = 10, not_before: int = 0) -> Batch:
    return Batch([any_message(number, body=bytes(size)) for number in numbers], not_before=not_before)


def test_batches_come_back_as_they_were_in_their_order(tmp_path: Path) -> None:
    waiting = WaitingBatches(tmp_path / "waiting")
    some = [batch(1, 2), batch(3)]
    waiting.add("kroger", some)
    waiting.add("aldi", [batch(4)])
    assert len(waiting) == 4
    first, second = waiting.take(100, 1_000)
    assert read_waiting(first.path) == ("kroger", some)
    assert (second.retailer, second.messages, second.size) == ("aldi", 1, 10)
    assert len(waiting) == 0


def test_no_more_is_taken_than_asked_for_but_for_one_that_is_larger(tmp_path: Path) -> None:
    waiting = WaitingBatches(tmp_path / "waiting")
    for number in range(4):
        waiting.add("kroger", [batch(number, number + 10)])
    assert [one.messages for one in waiting.take(5, 1_000)] == [2, 2]
    assert [one.messages for one in waiting.take(1, 1)] == [2]
    assert len(waiting) == 2


def test_batches_that_are_not_due_stay(tmp_path: Path) -> None:
    waiting = WaitingBatches(tmp_path / "waiting")
    waiting.add("kroger", [batch(1, not_before=500)])
    waiting.add("aldi", [batch(2, not_before=300), batch(3, not_before=900)])
    assert [one.retailer for one in waiting.take(100, 1_000, now=400)] == ["aldi"]
    assert len(waiting) == 1


def test_a_dropped_retailer_loses_all_its_files(tmp_path: Path) -> None:
    waiting = WaitingBatches(tmp_path / "waiting")
    waiting.add("kroger", [batch(1)])
    waiting.add("aldi", [batch(2, 3)])
    waiting.add("aldi", [batch(4)])
    assert waiting.drop({"aldi"}) == 3
    assert [one.retailer for one in waiting.take(100, 1_000)] == ["kroger"]
    assert len(list((tmp_path / "waiting").iterdir())) == 1


def test_a_run_starts_without_the_files_of_a_killed_one(tmp_path: Path) -> None:
    WaitingBatches(tmp_path / "waiting").add("kroger", [batch(1)])
    assert len(WaitingBatches(tmp_path / "waiting")) == 0
    assert not list((tmp_path / "waiting").iterdir())
