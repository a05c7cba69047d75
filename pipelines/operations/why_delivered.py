"""The receipts of one event, in the order of their times."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import msgspec

from stores.deliveries.receipts import find_receipts


class EventReceipt(msgspec.Struct):
    """A receipt of an event (times in epoch milliseconds), and how many times it was written: it counts once."""

    outcome: str
    reason: str | None
    settled_at: int
    arrived_at: int
    workspace: str
    batch_id: str | None
    vendor_id: str | None
    attempt: int
    resent: bool
    written: int


def event_receipts(folders: Sequence[str], event_id: str) -> list[EventReceipt]:
    """The receipts of an event, each once. Raises InputError for folders and files that cannot be used."""
    return [
        EventReceipt(
            receipt.outcome, receipt.reason, receipt.settled_at, receipt.arrived_at, receipt.workspace,
            receipt.batch_id, receipt.vendor_id, receipt.attempt, receipt.resent, times,
        )
        for receipt, times in Counter(find_receipts(folders, event_id)).items()
    ]  # fmt: skip
