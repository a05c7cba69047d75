"""Helpers for the journal of calls: claim, kill its process, read the states of events."""

from __future__ import annotations

from schemas.delivery import Claim, ClaimRequest, DeliveryLedger, SentFlag
from stores.deliveries.call_journal import FileJournal

NOW, LEASE = 1_700_000_000_000, 30_000
IDS = [f"{number:032x}" for number in range(8)]


def claim(ledger: DeliveryLedger, journal: FileJournal, owner: str, ids: list[str]) -> None:
    journal.claiming(owner, ids)
    ledger.claim(ClaimRequest([Claim(event_id, "b") for event_id in ids], owner, NOW, NOW + LEASE, "hold"))


def kill(journal: FileJournal) -> None:
    """As a kill does: the file stays, its lock is released."""
    assert journal._pages is not None
    journal._pages.close()


def mark_sent(flag: SentFlag) -> None:
    flag.cells[flag.at] = flag.value


def states(ledger: DeliveryLedger, ids: list[str]) -> list[str]:
    return [
        result.state
        for result in ledger.claim(
            ClaimRequest([Claim(event_id, "b") for event_id in ids], "next", NOW, NOW + LEASE, "hold")
        )
    ]
