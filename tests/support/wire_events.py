"""Campaign events as they travel: bodies, the envelopes they come in, the messages they become."""

from __future__ import annotations

import io
from collections.abc import Iterable
from typing import Any

import fastavro
from support.vendor_calls import any_event

from schemas.contracts import fingerprint, parsed, schema
from schemas.delivery import Batch, Message
from schemas.transport import Envelope

ARRIVED = 1_775_000_000_000
MARK = fingerprint("campaign_event")


def body_of(number: int = 0, **changes: Any) -> bytes:
    """The bytes of a campaign event of today's schema; `changes` are of its fields."""
    buffer = io.BytesIO()
    event = any_event(number, event_id=f"{number:032x}", customer_id=f"customer-{number}", template=None)
    fastavro.schemaless_writer(buffer, parsed(schema("campaign_event")), event | changes)
    return buffer.getvalue()


def any_envelope(number: int = 0, attributes: dict[str, str] | None = None, **event: Any) -> Envelope:
    """A message as a launch publishes it; `attributes` replace some of its own, an empty one is left out."""
    own = {"event_id": f"{number:032x}", "retailer_id": event.get("retailer_id", "store-1"), "schema": MARK}
    kept = {name: text for name, text in {**own, **(attributes or {})}.items() if text}
    return Envelope(f"m-{number}", kept, body_of(number, **event), ARRIVED)


def wire_message(number: int = 0, retailer: str = "store-1", **changes: Any) -> Message:
    """A message that arrived at ARRIVED and holds a whole event."""
    values: dict[str, Any] = {
        "event_id": f"{number:032x}",
        "retailer_id": retailer,
        "vendor_campaign": "vendor-campaign-1",
        "customer_id": f"customer-{number}",
        "schema": MARK,
        "body": body_of(number, retailer_id=retailer),
        "arrived_at": ARRIVED,
        **changes,
    }
    return Message(**values)


def wire_batch(numbers: Iterable[int], retailer: str = "store-1", **changes: Any) -> Batch:
    """A batch of such messages."""
    return Batch([wire_message(number, retailer, **changes) for number in numbers])
