"""A lapsed claim is unknown only if its call was sent, by the journal of the dead process."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from support.dispatching import Job
from support.journals import kill, mark_sent
from support.wire_events import ARRIVED, wire_batch

from schemas.delivery import Claim, ClaimRequest
from stores.deliveries.call_journal import FileJournal

LEASE = 30_000


@pytest.mark.parametrize("on_unknown", ["hold", "resend"])
def test_claims_of_a_killed_process_are_sent_by_another_after_the_lease(
    another: Callable[[], Job], tmp_path: Path, on_unknown: str
) -> None:
    job = another()
    job.settings.on_unknown = on_unknown  # type: ignore[assignment]
    killed = _killed(job, tmp_path)
    mark_sent(killed.started("killed", "in doubt", [message.event_id for message in wire_batch(range(3)).messages]))
    kill(killed)
    job.clock.wait_until(ARRIVED + LEASE)
    job.run("store-1", wire_batch(range(10)))
    if on_unknown == "hold":
        assert job.outcomes == {number: "unknown" if number < 3 else "accepted" for number in range(10)}
    else:
        assert job.outcomes == dict.fromkeys(range(10), "accepted")
        assert {int(receipt.event_id, 16) for receipt in job.receipts if receipt.resent} <= set(range(10))


def test_a_claim_without_a_journal_is_unknown_when_its_lease_has_ended(
    another: Callable[[], Job], tmp_path: Path
) -> None:
    job = another()
    job.settings.on_unknown = "hold"
    kill(_killed(job, tmp_path))
    for path in (tmp_path / "calls").iterdir():
        path.unlink()
    job.clock.wait_until(ARRIVED + LEASE)
    job.run("store-1", wire_batch(range(10)))
    assert job.outcomes == dict.fromkeys(range(10), "unknown")


def test_an_event_that_expired_meanwhile_is_expired_and_not_unknown(another: Callable[[], Job], tmp_path: Path) -> None:
    job = another()
    kill(_killed(job, tmp_path))
    job.clock.wait_until(ARRIVED + LEASE)
    job.run("store-1", wire_batch(range(10), expires_at=ARRIVED + LEASE))
    assert job.outcomes == dict.fromkeys(range(10), "expired")


def _killed(job: Job, folder: Path) -> FileJournal:
    """The journal of another process, which has claimed events 0 to 9."""
    names = [message.event_id for message in wire_batch(range(10)).messages]
    journal = FileJournal(folder / "calls")
    journal.claiming("killed", names)
    job.ledger.claim(ClaimRequest([Claim(name, "b") for name in names], "killed", ARRIVED, ARRIVED + LEASE, "hold"))
    journal.granted("killed", 2)
    return journal
