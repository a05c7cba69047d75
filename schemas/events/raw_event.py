"""RawEvent: an event on its way into the event store."""

from __future__ import annotations

from zlib import crc32

import msgspec


class RawEvent(msgspec.Struct, frozen=True):
    """An event that was let in. `entity` is the text of its entity key, `body` what the store keeps: the frame of its
    version, and the Avro bytes as they came. `message_id` is that in its source, for dead letters."""

    type: str
    version: int
    entity: str
    event_id: str
    published_at: int
    body: bytes
    message_id: str = ""


def partition_of(entity: str, partitions: int) -> int:
    """The partition of an entity: all of its events stand in one."""
    return crc32(entity.encode("utf-8", "surrogatepass")) % partitions
