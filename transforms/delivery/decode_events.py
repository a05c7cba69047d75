"""The message of each envelope, or its dead letter with the bytes verbatim."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from hashlib import blake2b

import orjson
from msgspec.structs import replace

from schemas.codec.avro_scan import Scan
from schemas.contracts import ContractError, DeadLetter, is_known, resolve, writer_schema
from schemas.delivery import Message
from schemas.transport import Envelope
from transforms.delivery.event_checks import LIMITS, NEEDED, expiry, find_flaw
from transforms.delivery.receipts import decode_body

STEP = "Decode"
_MOST = 1_000_000  # bytes of a body
_NEEDED = ("event_id", "retailer_id", "schema")
_LONGEST = 256  # characters of an id
_LONGEST_DETAIL = 2_000
_TEXTS = ("event_id", "retailer_id", "customer_id", "campaign_id", "vendor_campaign")
_ROUTING = frozenset({*_TEXTS, *NEEDED, "deliver_after", "expires_at"})


class _Refused(ValueError):
    """(reason, detail)."""


def read_envelope(envelope: Envelope, now: int) -> Message | DeadLetter:
    """The message of an envelope that arrived at `now` (epoch ms), or, at any time, its dead letter. Never raises."""
    try:
        return _read(envelope, now)
    except _Refused as refused:
        reason, detail = refused.args
    return DeadLetter(
        STEP,
        reason,
        detail[:_LONGEST_DETAIL] + (f"; {envelope.note}" if envelope.note else ""),
        source=f"message {envelope.message_id}",
        data=envelope.body,
        trace=_trace(envelope.attributes),
    )


def _trace(attributes: Mapping[str, str]) -> str:
    """The attributes as JSON; text that UTF-8 cannot encode is escaped."""
    try:
        return orjson.dumps(attributes, option=orjson.OPT_SORT_KEYS).decode()
    except orjson.JSONEncodeError:
        texts = {_escaped(name): _escaped(value) for name, value in attributes.items()}
        return orjson.dumps(texts, option=orjson.OPT_SORT_KEYS).decode()


def _escaped(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()


def _read(envelope: Envelope, now: int) -> Message:
    attributes, replay = envelope.attributes, envelope.attributes.get("replay", "")
    if envelope.note and is_known(attributes.get("schema", "")):
        raise _Refused("broken_bytes", "not whole records of its schema")
    missing = [name for name in _NEEDED if not attributes.get(name)]
    if missing:
        raise _Refused("missing_attributes", f"the message has no {', '.join(missing)}; publish it as the launch does")
    if len(envelope.body) > _MOST:
        raise _Refused("over_size", f"{len(envelope.body):,} bytes; a message holds at most {_MOST:,}")
    try:
        resolve(attributes["schema"])
    except ContractError as error:
        raise _Refused("unknown_schema", f"{error.problem}, then replay") from error
    try:
        event = decode_body(attributes["schema"], envelope.body)
    except ContractError as error:
        raise _Refused("broken_bytes", error.problem) from error
    for name in ("event_id", "retailer_id"):
        if event[name] != attributes[name]:
            detail = f"the attribute {name} says {attributes[name][:80]!r}, the event {event[name][:80]!r}"
            raise _Refused("attributes_differ", detail)
    ids = {name: event[name] or "" for name in ("event_id", "retailer_id", "customer_id", "vendor_campaign")}
    for name, text in [*ids.items(), ("the attribute replay", replay)]:
        if len(text) > _LONGEST:
            raise _Refused("over_size", f"{name} has {len(text):,} characters; at most {_LONGEST} are taken")
    if flaw := find_flaw(event):
        raise _Refused(*flaw)
    return Message(
        event_id=event["event_id"],
        retailer_id=event["retailer_id"],
        vendor_campaign=event["vendor_campaign"] or event["campaign_id"],
        customer_id=event["customer_id"],
        schema=attributes["schema"],
        body=envelope.body,
        arrived_at=now,
        deliver_after=event["deliver_after"],
        expires_at=expiry(event),
        replay=replay,
    )


def dead_id(letter: DeadLetter) -> str:
    """The id of a dead letter in the ledger: a function of the message's bytes and attributes."""
    return "dead:" + blake2b(letter.data + letter.trace.encode(), digest_size=16).hexdigest()


def read_envelopes(envelopes: list[Envelope], now: int, *, ignore_times: bool = False) -> list[Message | DeadLetter]:
    """The message or dead letter of each envelope, as `read_envelope` gives it; decodes the envelopes of one schema
    together. `ignore_times` removes from messages when they are due and when they expire."""
    decoded: list[Message | DeadLetter | None] = [None] * len(envelopes)
    by_schema: dict[str, list[int]] = defaultdict(list)
    for place, envelope in enumerate(envelopes):
        if len(envelope.body) <= _MOST:
            by_schema[envelope.attributes.get("schema", "")].append(place)
    for fingerprint, places in by_schema.items():
        try:
            writer = writer_schema(fingerprint)
        except ContractError:
            continue
        if {field["name"] for field in writer["fields"]} >= _ROUTING:
            same = [envelopes[place] for place in places]
            scan = Scan(writer, [envelope.body for envelope in same], _ROUTING, LIMITS, finite=True)
            for place, message in zip(places, _scanned(scan, same, now), strict=True):
                decoded[place] = message
    messages = [item or read_envelope(envelopes[place], now) for place, item in enumerate(decoded)]
    return [_without_times(item) for item in messages] if ignore_times else messages


def _without_times(item: Message | DeadLetter) -> Message | DeadLetter:
    return replace(item, deliver_after=0, expires_at=0) if isinstance(item, Message) else item


def _scanned(scan: Scan, envelopes: list[Envelope], now: int) -> Iterator[Message | None]:
    """The message of each row; None for rows that `read_envelope` has to decode itself."""
    never = [0] * len(envelopes)
    columns = zip(
        envelopes,
        (scan.sound & scan.filled(NEEDED)).tolist(),
        *(scan.texts(name) for name in _TEXTS),
        scan.numbers["deliver_after"].tolist(),
        scan.numbers["expires_at"].tolist() if "expires_at" in scan.numbers else never,
        strict=True,
    )
    for envelope, sound, event_id, retailer, customer, campaign_id, vendor_campaign, due, expires in columns:
        attributes, campaign = envelope.attributes, vendor_campaign or campaign_id
        same = event_id == attributes.get("event_id") and retailer == attributes.get("retailer_id")
        schema, replay = attributes.get("schema", ""), attributes.get("replay", "")
        short = max(len(event_id), len(retailer), len(customer), len(campaign), len(replay)) <= _LONGEST
        if sound and same and short and event_id and retailer:
            body = envelope.body
            yield Message(event_id, retailer, campaign, customer, schema, body, now, due, expires, replay)
        else:
            yield None
