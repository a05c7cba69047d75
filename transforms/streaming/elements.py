"""The elements of any streaming pipeline: lists of items, so that state is read and written once for many of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Generic, Protocol, Self, TypeVar

import apache_beam as beam
import msgspec
from apache_beam.transforms.window import GlobalWindow
from apache_beam.utils.timestamp import MIN_TIMESTAMP
from apache_beam.utils.windowed_value import WindowedValue
from msgspec.structs import replace

from schemas.transport import POLL_BYTES, Envelope

LIST, LIST_BYTES = 1_000, POLL_BYTES  # items, and bytes of their bodies, in one element: it holds up a worker briefly
END = GlobalWindow().max_timestamp()  # an event-time timer set to it fires when the input has ended


class Item(Protocol):
    """An item of a list: any msgspec struct that has its payload in `body`."""

    @property
    def body(self) -> bytes: ...


T = TypeVar("T", bound=Item)


class Envelopes(msgspec.Struct, frozen=True):
    """The envelopes of one poll; `source_resumes` as in Poll."""

    items: list[Envelope]
    source_resumes: bool = msgspec.field(default=False, name="fresh")


class Items(msgspec.Struct, Generic[T], frozen=True):
    """A list of items of one kind; a pipeline subclasses it for its own item, and registers StructCoder for that.
    `source_resumes` as in Poll. In a state the items may be on disk (state_on_disk.py): then `place` is their address
    there and `count` their number."""

    items: list[T]
    source_resumes: bool = msgspec.field(default=False, name="fresh")
    place: str = ""
    count: int = 0

    def stored_at(self, place: str) -> Self:
        """The list without its items, which are at `place`."""
        return replace(self, items=[], place=place, count=len(self.items))

    @property
    def total(self) -> int:
        """The number of items, in memory or on disk."""
        return self.count or len(self.items)


Keyed = tuple[tuple[str, int], Items[T]]  # ((key, shard), items)


class StructCoder(beam.coders.Coder):
    """Encodes a msgspec type as MessagePack: half a microsecond a message, and data only (a pickle could run code)."""

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
        """The value of encoded bytes."""
        return self._decoder.decode(encoded)

    def is_deterministic(self) -> bool:
        """Always False: values only, nothing is keyed by them."""
        return False

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._kind,)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, StructCoder) and other._kind is self._kind

    def __hash__(self) -> int:
        return hash(self._kind)


beam.coders.registry.register_coder(Envelopes, StructCoder)


def keyed(kind: type) -> Any:
    """Beam's type of ((key, shard), list), for a subclass of Items."""
    return beam.typehints.Tuple[beam.typehints.Tuple[str, int], kind]


def body_bytes(items: Sequence[Item]) -> int:
    """Bytes of the bodies of items."""
    return sum([len(item.body) for item in items])


def in_lists(items: list[T]) -> Iterator[list[T]]:
    """The items in order, in lists of at most LIST items and LIST_BYTES; a larger item is alone."""
    start = size = 0
    for position, item in enumerate(items):
        size += len(item.body)
        if position > start and (position - start == LIST or size > LIST_BYTES):
            yield items[start:position]
            start, size = position, len(item.body)
    if start < len(items):
        yield items[start:] if start else items


def at_finish(value: Any) -> WindowedValue:
    """A value as finish_bundle may yield it."""
    return WindowedValue(value, MIN_TIMESTAMP, (GlobalWindow(),))
