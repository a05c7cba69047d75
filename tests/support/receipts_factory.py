"""Receipts as a delivery would write them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from schemas.delivery import Receipt
from stores.deliveries.receipts import write_receipts

ARRIVED = 1_775_052_000_000  # 2026-04-01 14:00:00 UTC


def any_receipt(**changes: Any) -> Receipt:
    """An acceptance of the first attempt."""
    receipt = Receipt(
        event_id="e-1", launch_id="launch-1", campaign_id="welcome", retailer_id="store-1", customer_id="c-1",
        channel="email", variant="a", workspace="braze:store-1", batch_id="b-1", outcome="accepted", reason=None,
        vendor_id="d-1", attempt=1, resent=False, arrived_at=ARRIVED, settled_at=ARRIVED + 2_000,
    )  # fmt: skip
    return receipt._replace(**changes)


def rejected(receipt: Receipt, reason: str = "invalid_address", **changes: Any) -> Receipt:
    """The same event, rejected."""
    return receipt._replace(outcome="rejected", reason=reason, **changes)


def receipt_of(event: Mapping[str, Any], **changes: Any) -> Receipt:
    """The acceptance of a launch's event."""
    experiment = event["experiment"] or {}
    names = ("event_id", "launch_id", "campaign_id", "retailer_id", "customer_id", "channel")
    facts = {name: event[name] for name in names} | {"variant": experiment.get("variant")}
    return any_receipt(**facts, workspace=f"braze:{event['retailer_id']}", **changes)


def written(folder: Path, receipts: Iterable[Receipt], part: str = "part-0") -> Path:
    """The folder, with the receipts in one file."""
    write_receipts(str(folder), part, receipts)
    return folder
