"""Reconciliation of unknown events, and the identity of a ledger, in every ledger."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from schemas.delivery import Claim, ClaimRequest, DeliveryLedger, Settlement
from schemas.problems import JobError
from stores.ledger.identity import CELL, FORGOTTEN, Identity, read_forgotten, read_identity, write_beat

NOW, LEASE = 1_700_000_000_000, 60_000
A, B, C, D = ("a" * 32, "b" * 32, "not hex", "d" * 32)
Connect = Callable[[], DeliveryLedger]


def test_unknown_events_are_settled_whoever_held_their_claim(ledger: DeliveryLedger) -> None:
    ledger.claim(ClaimRequest([Claim(one, "batch") for one in (A, B, C)], "one", NOW, NOW + LEASE, "hold"))
    ledger.settle("one", [Settlement(A, "unknown", b"old"), Settlement(C, "unknown"), Settlement(B, "rejected")], NOW)
    ends = [Settlement(one, "accepted", b"new " + one.encode()) for one in (A, B, C, D)]
    assert ledger.reconcile(ends, NOW + 1) == [A, C]
    assert ledger.find([A, B, C, D]) == {A: "accepted", B: "rejected", C: "accepted"}
    assert dict(ledger.unreported(10)) == {A: b"new " + A.encode(), C: b"new " + C.encode()}
    assert ledger.reconcile(ends, NOW + 2) == []
    ledger.report([A, C])
    assert ledger.unreported(10) == []


def test_an_event_that_is_claimed_or_new_is_not_reconciled(ledger: DeliveryLedger) -> None:
    ledger.claim(ClaimRequest([Claim(A, "batch")], "one", NOW, NOW + LEASE, "hold"))
    assert ledger.reconcile([Settlement(A, "accepted"), Settlement(B, "accepted")], NOW + 2 * LEASE) == []
    assert ledger.find([A, B]) == {}


def test_a_late_answer_after_the_reconciliation_changes_nothing(ledger: DeliveryLedger) -> None:
    ledger.claim(ClaimRequest([Claim(A, "batch")], "one", NOW, NOW + LEASE, "hold"))
    ledger.settle("one", [Settlement(A, "unknown")], NOW)
    ledger.reconcile([Settlement(A, "accepted")], NOW)
    assert ledger.settle("one", [Settlement(A, "rejected")], NOW) == []
    assert ledger.find([A]) == {A: "accepted"}


def test_the_identity_stays_and_its_beat_grows_whatever_the_clock_says(connect: Connect) -> None:
    ledger, other = connect(), connect()
    assert read_identity(ledger) is None
    first = write_beat(ledger, NOW)
    assert read_identity(other) == first
    assert first.beat == NOW
    assert write_beat(other, NOW - 1_000, ledger_id="another") == Identity(first.id, NOW + 1)
    assert write_beat(ledger, NOW + 1_000) == Identity(first.id, NOW + 1_000)


def test_a_rebuild_lasts_until_it_is_ended(ledger: DeliveryLedger) -> None:
    write_beat(ledger, NOW, ledger_id="old", rebuilding=True)
    assert write_beat(ledger, NOW + 1) == Identity("old", NOW + 1, rebuilding=True)
    assert write_beat(ledger, NOW + 2, rebuilding=False) == Identity("old", NOW + 2)


def test_the_time_of_dropped_entries_is_stored(ledger: DeliveryLedger) -> None:
    assert read_forgotten(ledger) == 0
    ledger.forget(NOW)
    ledger.forget(NOW - 1)
    assert read_forgotten(ledger) == NOW


@pytest.mark.parametrize("cell", [CELL, FORGOTTEN])
def test_a_damaged_cell_is_reported(ledger: DeliveryLedger, cell: str) -> None:
    ledger.change(cell, lambda raw: (b"\xff{", None))
    with pytest.raises(JobError, match="is damaged") as caught:
        (read_identity if cell == CELL else read_forgotten)(ledger)
    assert caught.value.damaged
