"""What a process notes of its calls, so that a restart knows which of them never left and which were answered."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from schemas.delivery import SentFlag, Settlement, always


class CallJournal(Protocol):
    """Notes of one process, which survive a kill -9; safe for several threads. Each is kept before its method returns;
    `claiming` and `started` raise a JobError when it cannot be.

    An `owner` is the name of one claim in the ledger (schemas/delivery.DeliveryLedger). It is closed when all its
    calls are.
    """

    def claiming(self, owner: str, event_ids: Sequence[str]) -> None:
        """The owner is about to claim these events."""

    def granted(self, owner: str, calls: int) -> None:
        """So many calls are made of what the owner claimed; none closes the owner."""

    def started(self, owner: str, batch_id: str, event_ids: Sequence[str]) -> SentFlag:
        """The first byte of a call is about to go out; the mark is to be set when its last one does."""

    def answered(self, owner: str, batch_id: str, ends: Sequence[Settlement] | None) -> None:
        """A call is over, and so the events end (None: nothing was sent)."""

    def closed(self, owner: str, batch_id: str) -> None:
        """The ledger knows what became of the call."""

    def close(self) -> None:
        """The process ends in order."""


class NoJournal:
    """A CallJournal for a process without a disk of its own: after a kill, every claim of it is in doubt."""

    def claiming(self, owner: str, event_ids: Sequence[str]) -> None:
        """Nothing is kept."""

    def granted(self, owner: str, calls: int) -> None:
        """Nothing is kept."""

    def started(self, owner: str, batch_id: str, event_ids: Sequence[str]) -> SentFlag:
        """Nothing is kept."""
        return always()

    def answered(self, owner: str, batch_id: str, ends: Sequence[Settlement] | None) -> None:
        """Nothing is kept."""

    def closed(self, owner: str, batch_id: str) -> None:
        """Nothing is kept."""

    def close(self) -> None:
        """Nothing is kept."""
