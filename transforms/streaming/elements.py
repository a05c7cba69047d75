"""What moves between the steps of rebatch: lists of messages and of batches, in one compact coding."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import apache_beam as beam
import msgspec
from apache_beam.transforms.window import GlobalWindow
from apache_beam.typehints.native_type_compatibility import convert_to_beam_type
from apache_beam.utils.timestamp import MIN_TIMESTAMP
from apache_beam.utils.windowed_value import WindowedValue

from schemas.contracts import DeadLetter
from schemas.delivery import Batch, Message, Receipt
from schemas.transport import POLL_BYTES, Envelope

LIST, LIST_BYTES = 1_000, POLL_BYTES  # messages, and bytes of bodies, in one element: none holds up a worker for long
END = GlobalWindow().max_timestamp()  # an event-time timer set to it fires when the input has ended


class Envelopes(msgspec.Struct, frozen=True):
    """What one poll brought; `fresh` as Poll has it."""

    items: list[Envelope]
    fresh: bool = False


class Messages(msgspec.Struct, frozen=True):
    """Messages that go together; `fresh` as Poll has it. In a state they may be on disk (on_disk.py): then `place` says
    where, and `count` how many they are."""

    items: list[Message]
    fresh: bool = False
    place: str = ""
    count: int = 0

    def stored_at(self, place: str) -> Messages:
        """The same without its items, which are there."""
        return Messages([], self.fresh, place, len(self.items))

    @property
    def total(self) -> int:
        """How many they are, wherever."""
        return self.count or len(self.items)


class Batches(msgspec.Struct, frozen=True):
    """Batches of one retailer."""

    items: list[Batch]


class Waiting(msgspec.Struct, frozen=True):
    """Batches of one retailer that wait until `wake_at` (epoch ms). In a state they may be on disk (on_disk.py): then
    `place` says where."""

    items: list[Batch]
    wake_at: int
    place: str = ""

    def stored_at(self, place: str) -> Waiting:
        """The same without its items, which are there."""
        return Waiting([], self.wake_at, place)


class Receipts(msgspec.Struct, frozen=True):
    """Receipts that go together, and the dead letters of the refused among them."""

    items: list[Receipt]
    letters: list[DeadLetter] = []


Keyed = tuple[tuple[str, int], Messages]  # ((retailer, shard), …)
Addressed = tuple[tuple[str, int], Batches]  # ((retailer, retry shard), …)
Held = tuple[tuple[str, int], Waiting]  # ((retailer, retry shard), …)
KEYED, ADDRESSED, HELD = map(convert_to_beam_type, (Keyed, Addressed, Held))  # for the coders


class StructCoder(beam.coders.Coder):
    """A msgspec type as MessagePack: half a microsecond a message, and data only (a pickle could run code)."""

    def __init__(self, kind: type) -> None:
        self._kind = kind
        self._encoder = msgspec.msgpack.Encoder()
        self._decoder: Any = msgspec.msgpack.Decoder(kind)

    @classmethod
    def from_type_hint(cls, typehint: type, registry: Any) -> StructCoder:
        """The coder of a registered type."""
        return cls(typehint)

    def encode(self, value: Any) -> bytes:
        """The value as bytes."""
        return self._encoder.encode(value)

    def decode(self, encoded: bytes) -> Any:
        """The value again."""
        return self._decoder.decode(encoded)

    def is_deterministic(self) -> bool:
        """Values only: nothing is keyed by them."""
        return False

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._kind,)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, StructCoder) and other._kind is self._kind

    def __hash__(self) -> int:
        return hash(self._kind)


def body_bytes(messages: list[Message]) -> int:
    """Bytes of the bodies of messages."""
    return sum([len(message.body) for message in messages])


def in_lists(messages: list[Message]) -> Iterator[list[Message]]:
    """The messages in order, in lists of at most LIST and LIST_BYTES; a larger message is alone."""
    start = size = 0
    for at, message in enumerate(messages):
        size += len(message.body)
        if at > start and (at - start == LIST or size > LIST_BYTES):
            yield messages[start:at]
            start, size = at, len(message.body)
    if start < len(messages):
        yield messages[start:] if start else messages


for _kind in (Envelopes, Messages, Batches, Waiting, Receipts):
    beam.coders.registry.register_coder(_kind, StructCoder)


def at_finish(value: Any) -> WindowedValue:
    """A value as finish_bundle may put it out."""
    return WindowedValue(value, MIN_TIMESTAMP, (GlobalWindow(),))
