"""Receipts of events, and the dead letters of refused deliveries."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any

import msgspec
import orjson

from schemas.contracts import DeadLetter, decode
from schemas.delivery import Message, Receipt
from transforms.delivery.elements import Receipts

STEP = "DeliverBatches"
_ENCODER = msgspec.msgpack.Encoder()
_PLAIN, _WITH_LETTER = msgspec.msgpack.Decoder(Receipt), msgspec.msgpack.Decoder(tuple[Receipt, DeadLetter])
_CACHED = ((1 << 10, 32_768), (1 << 14, 1_024), (1 << 20, 16))  # (longest body in bytes, bodies): 16 to 32 MB each
_DECODERS = [(longest, lru_cache(maxsize=bodies)(decode)) for longest, bodies in _CACHED]


def decode_body(schema: str, body: bytes) -> dict[str, Any]:
    """The campaign event in a body; do not change it. An event that is sent and then gets its receipt is usually
    decoded once: the last ones are cached, fewer of long bodies, so that the cache is bounded in bytes. Raises
    ContractError."""
    size = len(body)
    for longest, cached in _DECODERS:
        if size <= longest:
            return cached(schema, body)
    return decode(schema, body)


def decode_message(message: Message) -> dict[str, Any]:
    """The campaign event of a message; do not change it."""
    return decode_body(message.schema, message.body)


def make_receipt(
    message: Message,
    workspace: str,
    outcome: str,
    now: int,
    *,
    event: Mapping[str, Any] | None = None,
    reason: str | None = None,
    batch_id: str | None = None,
    vendor_id: str | None = None,
    attempt: int = 0,
    resent: bool = False,
) -> Receipt:
    """The receipt of a message that is settled at `now` (epoch ms). Without `event` its body is decoded."""
    event = event or decode_message(message)
    return Receipt(
        event_id=message.event_id,
        launch_id=event["launch_id"],
        campaign_id=event["campaign_id"],
        retailer_id=message.retailer_id,
        customer_id=message.customer_id,
        channel=event["channel"],
        variant=(event["experiment"] or {}).get("variant"),
        workspace=workspace,
        outcome=outcome,
        arrived_at=message.arrived_at,
        settled_at=now,
        batch_id=batch_id,
        reason=reason,
        vendor_id=vendor_id,
        attempt=attempt,
        resent=resent,
    )


def encode_receipt(receipt: Receipt, letter: DeadLetter | None = None) -> bytes:
    """A receipt in the bytes of the ledger, with the dead letter of a refused delivery."""
    return _ENCODER.encode(receipt if letter is None else (receipt, letter))


def decode_receipts(encoded: Iterable[bytes]) -> Receipts:
    """The receipts in the ledger's bytes, and their dead letters."""
    receipts, letters = list[Receipt](), list[DeadLetter]()
    for data in encoded:
        try:
            receipt, letter = _WITH_LETTER.decode(data)
            letters.append(letter)
        except msgspec.ValidationError:
            receipt = _PLAIN.decode(data)
        receipts.append(receipt)
    return Receipts(receipts, letters)


def refused_letter(message: Message, reason: str, detail: str, batch_id: str) -> DeadLetter:
    """The dead letter of a delivery that the vendor refused: the event's bytes, and what a replay needs. Text that
    UTF-8 cannot encode is escaped."""
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
