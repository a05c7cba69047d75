"""The elements of rebatch: lists of messages, of batches and of receipts."""

from __future__ import annotations

from operator import attrgetter

import apache_beam as beam
import msgspec
from msgspec.structs import replace

from schemas.contracts import DeadLetter
from schemas.delivery import Batch, Message, Receipt
from transforms.streaming.elements import Items, StructCoder, keyed
from transforms.streaming.seen_ids import id_bytes

retailer_of, event_id_of = attrgetter("retailer_id"), attrgetter("event_id")


class Messages(Items[Message], frozen=True):
    """Messages that move together."""


class Batches(msgspec.Struct, frozen=True):
    """Batches of one retailer."""

    items: list[Batch]


class Waiting(msgspec.Struct, frozen=True):
    """Batches of one retailer that wait until `wake_at` (epoch ms). In a state they may be on disk
    (transforms/streaming/state_on_disk.py): then `place` is their address there."""

    items: list[Batch]
    wake_at: int
    place: str = ""

    def stored_at(self, place: str) -> Waiting:
        """The same without its items, which are at `place`."""
        return replace(self, items=[], place=place)


class Receipts(msgspec.Struct, frozen=True):
    """Receipts that are written together, and the dead letters of the refused among them."""

    items: list[Receipt]
    letters: list[DeadLetter] = []


Keyed = tuple[tuple[str, int], Messages]  # ((retailer or group, shard), …)
Addressed = tuple[tuple[str, int], Batches]  # ((retailer, retry shard), …)
Held = tuple[tuple[str, int], Waiting]  # ((retailer, retry shard), …)
KEYED, ADDRESSED, HELD = keyed(Messages), keyed(Batches), keyed(Waiting)

for _kind in (Message, Messages, Batches, Waiting, Receipts):
    beam.coders.registry.register_coder(_kind, StructCoder)


def duplicate_ids(messages: list[Message]) -> list[bytes]:
    """16 bytes a message, equal for duplicates: of the event id and the replay, since a replay is no duplicate."""
    return [id_bytes(message.event_id + message.replay) for message in messages]


def due_times(messages: list[Message]) -> list[int]:
    """When each message may be delivered (epoch ms). A message that expires before it is due goes on at once: the
    delivery counts it as expired."""
    return [0 if 0 < message.expires_at <= message.deliver_after else message.deliver_after for message in messages]
