"""Decode: what a poll brought becomes messages; what cannot be used becomes dead letters, bytes verbatim."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from hashlib import blake2b
from typing import Any

import apache_beam as beam
import orjson
from msgspec.structs import replace

from schemas.codec.avro_scan import Scan
from schemas.contracts import ContractError, DeadLetter, resolve, writer_schema
from schemas.delivery import Message
from schemas.transport import Envelope
from transforms.delivery.event_checks import LIMITS, NEEDED, expiry, find_flaw
from transforms.delivery.receipts import decoded_body
from transforms.streaming.counters import Counter
from transforms.streaming.elements import Envelopes, Messages

STEP = "Decode"
DEAD = "dead"
_MOST = 1_000_000  # bytes of a body
_NEEDED = ("event_id", "retailer_id", "schema")
_LONGEST = 256  # characters of an id
_LONGEST_DETAIL = 2_000
_TEXTS = ("event_id", "retailer_id", "customer_id", "campaign_id", "vendor_campaign")
_ROUTING = frozenset({*_TEXTS, *NEEDED, "deliver_after", "expires_at"})


class _Refused(ValueError):
    """(reason, detail)."""


def read_envelope(envelope: Envelope, now: int) -> Message | DeadLetter:
    """The message of an envelope that arrived at `now` (epoch ms), or the dead letter that it becomes; whether it is
    the one or the other does not depend on the time. Never raises."""
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
    """The attributes as JSON; text that UTF-8 cannot carry as escapes."""
    try:
        return orjson.dumps(attributes, option=orjson.OPT_SORT_KEYS).decode()
    except orjson.JSONEncodeError:
        texts = {_escaped(name): _escaped(value) for name, value in attributes.items()}
        return orjson.dumps(texts, option=orjson.OPT_SORT_KEYS).decode()


def _escaped(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()


def _read(envelope: Envelope, now: int) -> Message:
    attributes, replay = envelope.attributes, envelope.attributes.get("replay", "")
    if envelope.note and _is_known(attributes.get("schema", "")):
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
        event = decoded_body(attributes["schema"], envelope.body)
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


def _is_known(mark: str) -> bool:
    try:
        resolve(mark)
    except ContractError:
        return False
    return True


def dead_id(letter: DeadLetter) -> str:
    """The name of a dead letter in the ledger: the same message gives the same one."""
    return "dead:" + blake2b(letter.data + letter.trace.encode(), digest_size=16).hexdigest()


def read_envelopes(envelopes: list[Envelope], now: int) -> list[Message | DeadLetter]:
    """What each envelope becomes, as `read_envelope` has it, found for all of a schema together."""
    made: list[Message | DeadLetter | None] = [None] * len(envelopes)
    kinds: dict[str, list[int]] = defaultdict(list)
    for place, envelope in enumerate(envelopes):
        if len(envelope.body) <= _MOST:
            kinds[envelope.attributes.get("schema", "")].append(place)
    for mark, places in kinds.items():
        try:
            writer = writer_schema(mark)
        except ContractError:
            continue
        if {field["name"] for field in writer["fields"]} >= _ROUTING:
            some = [envelopes[place] for place in places]
            scan = Scan(writer, [one.body for one in some], _ROUTING, LIMITS, finite=True)
            for place, found in zip(places, _found(scan, some, now), strict=True):
                made[place] = found
    return [one or read_envelope(envelopes[place], now) for place, one in enumerate(made)]


def _found(scan: Scan, envelopes: list[Envelope], now: int) -> Iterator[Message | None]:
    """The message of each row; None for what `read_envelope` has to look at itself."""
    none = [0] * len(envelopes)
    columns = zip(
        envelopes,
        (scan.sound & scan.filled(NEEDED)).tolist(),
        *(scan.texts(name) for name in _TEXTS),
        scan.numbers["deliver_after"].tolist(),
        scan.numbers["expires_at"].tolist() if "expires_at" in scan.numbers else none,
        strict=True,
    )
    for envelope, sound, event_id, retailer_id, customer_id, campaign_id, vendor_campaign, after, expires in columns:
        attributes, campaign = envelope.attributes, vendor_campaign or campaign_id
        same = event_id == attributes.get("event_id") and retailer_id == attributes.get("retailer_id")
        replay = attributes.get("replay", "")
        short = max(len(event_id), len(retailer_id), len(customer_id), len(campaign), len(replay)) <= _LONGEST
        if sound and same and short and event_id and retailer_id:
            yield Message(
                event_id,
                retailer_id,
                campaign,
                customer_id,
                attributes["schema"],
                envelope.body,
                now,
                after,
                expires,
                replay,
            )
        else:
            yield None


class _Decode(beam.DoFn):
    def __init__(self, clock: Callable[[], float], ignore_times: bool) -> None:
        self._clock, self._ignore_times = clock, ignore_times
        self._read = Counter("read")
        self._dead = Counter("dead_lettered")

    def process(self, element: Envelopes) -> Iterator[Any]:
        now = int(self._clock() * 1000)
        made = read_envelopes(element.items, now)
        good = [one for one in made if isinstance(one, Message)]
        dead = [one for one in made if isinstance(one, DeadLetter)]
        self._read.inc(len(element.items), sum([len(one.body) for one in element.items]))
        self._dead.inc(len(dead), sum([len(one.data) for one in dead]))
        if self._ignore_times:
            good = [replace(one, deliver_after=0, expires_at=0) for one in good]
        if good:
            yield Messages(good, element.fresh)
        for letter in dead:
            yield beam.pvalue.TaggedOutput(DEAD, letter)


class Decode(beam.PTransform):
    """(Messages, DeadLetters) of Envelopes. `clock` gives seconds since the epoch. `ignore_times` takes off when a
    message is due and when it expires."""

    def __init__(self, clock: Callable[[], float], *, ignore_times: bool = False) -> None:
        super().__init__()
        self._clock, self._ignore_times = clock, ignore_times

    def expand(self, envelopes: beam.PCollection[Envelopes]) -> Any:
        made = envelopes | "Read" >> beam.ParDo(_Decode(self._clock, self._ignore_times)).with_outputs(
            DEAD, main="good"
        )
        made["good"].element_type = Messages
        made[DEAD].element_type = DeadLetter
        return made["good"], made[DEAD]
