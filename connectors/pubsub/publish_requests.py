"""Pub/Sub publish requests as Arrow columns: whole batches of messages without a Python object a message.

A protobuf message is its fields one after the other (tag, length, content), so a framed message is a row of
joined parts (schemas/codec/varints.py), and a request is the topic's field and a slice of the framed messages.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from schemas.codec.varints import Numbers, Part, constant, join, offsets, sizes, varint, varints
from schemas.contracts import ContractError

# https://cloud.google.com/pubsub/quotas#resource_limits
MAX_MESSAGES, MAX_BYTES = 1_000, 10_000_000  # a request
MAX_DATA, MAX_ATTRIBUTES, MAX_KEY, MAX_VALUE = 10_000_000, 100, 256, 1_024  # a message

# Field tags of google.pubsub.v1 (number << 3 | 2): everything here has a length.
_TOPIC, _MESSAGE = b"\x0a", b"\x12"
_DATA, _ATTRIBUTE = b"\x0a", b"\x12"
_MAP_KEY, _MAP_VALUE = b"\x0a", b"\x12"

Texts: TypeAlias = Any
"""One text a row: a string array, possibly dictionary encoded, or a str for all rows; null leaves it out."""


class Refused(NamedTuple):
    """A message that was not published: its row in the batch, a stable name of the reason, what to know."""

    row: int
    code: str
    detail: str


class Messages(NamedTuple):
    """Framed messages, empty where refused."""

    framed: pa.LargeBinaryArray
    refused: list[Refused]


@dataclass(frozen=True, eq=False)
class PublishRequest:
    """Some neighbouring messages of a batch, for one topic; rows that were refused are empty ones among them."""

    topic: str
    framed: pa.LargeBinaryArray
    first_row: int

    @property
    def size(self) -> int:
        """Bytes of the messages."""
        edges = offsets(self.framed)
        return int(edges[-1] - edges[0])

    def payload(self) -> bytes:
        """The serialised google.pubsub.v1.PublishRequest (the one copy of the messages that is made)."""
        edges = offsets(self.framed)
        return b"".join([_topic_field(self.topic), memoryview(self.framed.buffers()[2])[edges[0] : edges[-1]]])

    def halves(self) -> list[PublishRequest]:
        """The same messages in two requests, or in one where one half is empty."""
        middle = len(self.framed) // 2
        front = PublishRequest(self.topic, self.framed.slice(0, middle), self.first_row)
        back = PublishRequest(self.topic, self.framed.slice(middle), self.first_row + middle)
        return [half for half in (front, back) if half.size]


class Requests(NamedTuple):
    """What is to be published, in order, and the messages that are too large even alone."""

    requests: list[PublishRequest]
    refused: list[Refused]


def pubsub_messages(bodies: pa.Array, attributes: Mapping[str, Texts]) -> Messages:
    """One framed message a row: its body, and its attributes in the given order.

    Rows over a limit of Pub/Sub (10 MB of data, 1,024 bytes in an attribute) are refused.
    Raises ContractError for what is wrong with every row: too many attributes, a name that is too long or
    reserved (goog…), a constant that is too long, null bodies, lengths that differ.
    """
    length = len(bodies)
    _check_names(attributes)
    if bodies.null_count:
        raise ContractError("data", "a message without a body", int(np.argmax(np.asarray(bodies.is_null()))))
    data = bodies.cast(pa.large_binary())
    refused = _over("data", "TOO_LARGE", np.diff(offsets(data)), MAX_DATA)
    parts: list[Part] = _field(_DATA, [data], length)
    for name, column in attributes.items():
        if not isinstance(column, str) and len(column) != length:
            raise ContractError(name, f"{len(column)} values for {length} rows")
        refused += _over(name, "ATTRIBUTE_TOO_LONG", _lengths(name, column), MAX_VALUE)
        parts += _attribute(name, column, length)
    framed = join(_field(_MESSAGE, parts, length), length)
    if refused:
        bad = np.zeros(length, bool)
        bad[[refusal.row for refusal in refused]] = True
        # An Arrow null may keep its bytes in the buffer, and requests are slices of that: joined again without.
        framed = join([pc.if_else(pa.array(bad), pa.scalar(None, framed.type), framed)], length)
    first = {refusal.row: refusal for refusal in reversed(refused)}
    return Messages(framed, [first[row] for row in sorted(first)])


def publish_requests(topic: str, messages: Messages) -> Requests:
    """The messages as requests of at most 1,000 messages and 10,000,000 bytes. The requests
    share the messages' buffer. `refused` adds to what the messages themselves were refused for."""
    edges, room = offsets(messages.framed), MAX_BYTES - len(_topic_field(topic))
    large = _over("message", "TOO_LARGE", np.diff(edges), room)
    around_large = [row for refusal in large for row in (refusal.row, refusal.row + 1)]
    stops = np.unique([*around_large, len(messages.framed)])
    skipped, requests, start = {refusal.row for refusal in large}, [], 0
    while start < len(messages.framed):
        fits = np.searchsorted(edges, edges[start] + room, side="right") - 1
        stop = int(min(start + MAX_MESSAGES, fits, stops[np.searchsorted(stops, start, side="right")]))
        stop = max(stop, start + 1)
        request = PublishRequest(topic, messages.framed.slice(start, stop - start), start)
        if start not in skipped and request.size:
            requests.append(request)
        start = stop
    return Requests(requests, large)


def _topic_field(topic: str) -> bytes:
    return _TOPIC + varint(len(topic.encode())) + topic.encode()


def _field(tag: bytes, parts: list[Part], length: int, present: Numbers | None = None) -> list[Part]:
    """A protobuf field with a length, for the rows that are present; the parts are empty for the others."""
    return [constant(tag, length, present), varints(sizes(parts, length), present), *parts]


def _attribute(name: str, column: Texts, length: int) -> list[Part]:
    """An attribute of each row that has one."""
    if isinstance(column, str):
        return _entry(name, [column.encode()], 1, None)
    if pa.types.is_dictionary(column.type):
        size = len(column.dictionary)
        return [join(_attribute(name, column.dictionary, size), size).take(column.indices)]
    valid = np.asarray(column.is_valid()) if column.null_count else None
    return _entry(name, [column.cast(pa.large_binary())], length, valid)


def _entry(name: str, text: list[Part], length: int, present: Numbers | None) -> list[Part]:
    key = constant(_MAP_KEY + varint(len(name.encode())) + name.encode(), length, present)
    return _field(_ATTRIBUTE, [key, *_field(_MAP_VALUE, text, length, present)], length, present)


def _check_names(attributes: Mapping[str, Texts]) -> None:
    if len(attributes) > MAX_ATTRIBUTES:
        raise ContractError("attributes", f"{len(attributes)} of them; Pub/Sub takes {MAX_ATTRIBUTES}")
    for name in attributes:
        if not 0 < len(name.encode()) <= MAX_KEY or name.startswith("goog"):
            raise ContractError(name, f"no attribute's name: 1 to {MAX_KEY} bytes, not starting with goog")


def _lengths(name: str, column: Texts) -> Numbers:
    """The bytes of each row's text; of none for a constant, which is checked here."""
    if isinstance(column, str):
        if len(column.encode()) > MAX_VALUE:
            raise ContractError(name, f"{len(column.encode())} bytes; Pub/Sub takes {MAX_VALUE}")
        return np.zeros(0, np.int64)
    coded = pa.types.is_dictionary(column.type)
    values = column.dictionary if coded else column
    if not (pa.types.is_string(values.type) or pa.types.is_large_string(values.type)):
        raise ContractError(name, f"{column.type} is no text")
    lengths = pc.binary_length(values)
    return np.asarray((lengths.take(column.indices) if coded else lengths).fill_null(0))


def _over(what: str, code: str, lengths: Numbers, limit: int) -> list[Refused]:
    rows = np.flatnonzero(lengths > limit).tolist()
    return [Refused(row, code, f"{what} has {lengths[row]:,} bytes; Pub/Sub takes {limit:,}") for row in rows]
