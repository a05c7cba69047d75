"""How an event ends: its receipt, and the dead letter of a refused delivery."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import Any

import msgspec
import orjson

from schemas.contracts import DeadLetter, decode
from schemas.delivery import Message, Receipt
from transforms.delivery.elements import Receipts

STEP = "DeliverBatches"
_ENCODER = msgspec.msgpack.Encoder()
_ALONE, _WITH_LETTER = msgspec.msgpack.Decoder(Receipt), msgspec.msgpack.Decoder(tuple[Receipt, DeadLetter])


_CACHED = ((1 << 10, 32_768), (1 << 14, 1_024), (1 << 20, 16))  # (longest body in bytes, bodies kept): 16 to 32 MB each
_DECODERS = [(longest, lru_cache(maxsize=kept)(decode)) for longest, kept in _CACHED]


def decoded_body(schema: str, body: bytes) -> dict[str, Any]:
    """The campaign event in a body, to read only: what is sent, and then gets its receipt, is decoded once as a rule.
    The last ones are cached, of long bodies fewer, so that the cache is bounded in bytes.

    Raises ContractError.
    """
    size = len(body)
    for longest, cached in _DECODERS:
        if size <= longest:
            return cached(schema, body)
    return decode(schema, body)


def decoded(message: Message) -> dict[str, Any]:
    """The campaign event of a message, to read only."""
    return decoded_body(message.schema, message.body)


def make_receipt(
    message: Message,
    workspace: str,
    outcome: str,
    now: int,
    *,
    reason: str | None = None,
    batch_id: str | None = None,
    vendor_id: str | None = None,
    attempt: int = 0,
    resent: bool = False,
) -> Receipt:
    """The receipt of a message whose outcome was known at `now` (epoch ms)."""
    event = decoded(message)
    return Receipt(
        event_id=message.event_id,
        launch_id=event["launch_id"],
        campaign_id=event["campaign_id"],
        retailer_id=message.retailer_id,
        customer_id=message.customer_id,
        channel=event["channel"],
        variant=(event["experiment"] or {}).get("variant"),
        workspace=workspace,
        batch_id=batch_id,
        outcome=outcome,
        reason=reason,
        vendor_id=vendor_id,
        attempt=attempt,
        resent=resent,
        arrived_at=message.arrived_at,
        settled_at=now,
    )


def encode_receipt(receipt: Receipt, letter: DeadLetter | None = None) -> bytes:
    """A receipt as the ledger keeps it until it is reported, with the dead letter of a refused delivery."""
    return _ENCODER.encode(receipt if letter is None else (receipt, letter))


def decode_receipts(kept: Iterable[bytes]) -> Receipts:
    """The receipts that the ledger kept, and their letters."""
    receipts, letters = list[Receipt](), list[DeadLetter]()
    for data in kept:
        try:
            receipt, letter = _WITH_LETTER.decode(data)
            letters.append(letter)
        except msgspec.ValidationError:
            receipt = _ALONE.decode(data)
        receipts.append(receipt)
    return Receipts(receipts, letters)


def refused_letter(message: Message, reason: str, detail: str, batch_id: str) -> DeadLetter:
    """The dead letter of a delivery that the vendor refused: the event's bytes, and what a replay needs. Words that
    UTF-8 cannot carry are kept as escapes."""
    attributes = {"event_id": message.event_id, "retailer_id": message.retailer_id, "schema": message.schema}
    return DeadLetter(
        STEP,
        reason,
        detail.encode("utf-8", "backslashreplace").decode()
        or "the vendor refused it; put the cause right, then replay",
        source=f"event {message.event_id} in batch {batch_id}",
        data=message.body,
        trace=orjson.dumps(attributes, option=orjson.OPT_SORT_KEYS).decode(),
    )
