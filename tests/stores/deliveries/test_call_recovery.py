"""Several deliveries with one ledger: each reads the journals of all."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from support.journals import IDS, LEASE, NOW, claim, kill

from schemas.delivery import DeliveryLedger, Settlement
from stores.deliveries import call_recovery
from stores.deliveries.call_journal import FileJournal
from stores.deliveries.call_recovery import Recovered, recover, register_output
from stores.deliveries.delivery_folder import DeliveryFolder, LedgerCopy
from stores.ledger.identity import write_beat
from stores.ledger.sqlite import SqliteLedger


@pytest.fixture
def ledger(tmp_path: Path) -> DeliveryLedger:
    opened = SqliteLedger(str(tmp_path / "ledger.db"))
    opened.open()
    return opened


def any_output(root: Path, ledger: DeliveryLedger, ledger_id: str | None = None) -> DeliveryFolder:
    """A delivery that uses the ledger; `ledger_id`: which it says it uses."""
    folder, identity = DeliveryFolder(root), write_beat(ledger, NOW)
    root.mkdir()
    folder.write_ledger_copy(LedgerCopy("", ledger_id or identity.id, identity.beat))
    register_output(ledger, root)
    return folder


def test_a_second_delivery_with_the_same_ledger_reads_the_journals_of_the_first(
    tmp_path: Path, ledger: DeliveryLedger
) -> None:
    first, second = (any_output(tmp_path / name, ledger) for name in ("first", "second"))
    journal = FileJournal(first.journals)
    claim(ledger, journal, "one", IDS)
    assert recover(second.journals, ledger, NOW) == Recovered()
    kill(journal)
    assert recover(second.journals, ledger, NOW) == Recovered(released=8)
    assert recover(first.journals, ledger, NOW) == Recovered()


def test_a_folder_that_has_become_that_of_another_ledger_is_left_alone(tmp_path: Path, ledger: DeliveryLedger) -> None:
    first, second = any_output(tmp_path / "first", ledger, "another"), any_output(tmp_path / "second", ledger)
    journal = FileJournal(first.journals)
    claim(ledger, journal, "one", IDS)
    kill(journal)
    assert recover(second.journals, ledger, NOW) == Recovered()
    shutil.rmtree(first.root)
    assert recover(second.journals, ledger, NOW) == Recovered()


def test_a_ledger_lists_each_delivery_once_and_the_newest_of_many(tmp_path: Path, ledger: DeliveryLedger) -> None:
    for name in ("a", "b", "a", "c"):
        register_output(ledger, tmp_path / name, most=2)
    assert call_recovery._read_outputs(ledger) == [str(tmp_path / "a"), str(tmp_path / "c")]


def test_events_settled_by_others_are_not_counted_as_released(tmp_path: Path, ledger: DeliveryLedger) -> None:
    journal = FileJournal(tmp_path / "calls")
    claim(ledger, journal, "one", IDS)
    kill(journal)
    late = NOW + LEASE
    assert ledger.settle("other", [Settlement(event_id, "unknown") for event_id in IDS[:3]], late) == IDS[:3]
    assert recover(tmp_path / "calls", ledger, late) == Recovered(released=5)
