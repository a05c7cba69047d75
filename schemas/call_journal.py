"""The journal of a process's calls: after a kill it shows which of them were never sent and which were answered."""

from __future__ import annotations

from collections.abc import Sequence

from schemas.delivery import SentFlag, Settlement, always


class CallJournal:
    """The records of one process, which survive a kill -9; safe for several threads. A record is stored before its
    method returns; `claiming` and `started` raise JobError when it cannot be. An `owner` is the name of one claim in
    the ledger (schemas/delivery.DeliveryLedger). It is closed when all its calls are.

    This class itself records nothing, for a process without a disk: after a kill, every claim of it is in doubt.
    """

    def claiming(self, owner: str, event_ids: Sequence[str]) -> None:
        """The owner is about to claim these events."""

    def granted(self, owner: str, calls: int) -> None:
        """The owner makes so many calls; 0 closes it."""

    def started(self, owner: str, batch_id: str, event_ids: Sequence[str]) -> SentFlag:
        """The first byte of a call is about to be sent; set the flag with its last one."""
        return always()

    def answered(self, owner: str, batch_id: str, settlements: Sequence[Settlement] | None) -> None:
        """A call is answered, with the settlements of its events (None: nothing was sent)."""

    def closed(self, owner: str, batch_id: str) -> None:
        """The ledger has the settlements of the call."""

    def close(self) -> None:
        """End the process's journal."""
