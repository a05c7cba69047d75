"""The lists that flow through `collect`, and the ids and keys of their events."""

from __future__ import annotations

import apache_beam as beam

from schemas.events.raw_event import RawEvent
from transforms.streaming.elements import Items, StructCoder
from transforms.streaming.seen_ids import id_bytes


class RawEvents(Items[RawEvent], frozen=True):
    """A list of events of any types."""


beam.coders.registry.register_coder(RawEvents, StructCoder)


def event_ids(events: list[RawEvent]) -> list[bytes]:
    """16 bytes for each event: two of one type with the same event_id are duplicates."""
    return [id_bytes(f"{event.type}/{event.event_id}") for event in events]


def type_of(event: RawEvent) -> str:
    """The key that events are grouped by."""
    return event.type


def event_id_of(event: RawEvent) -> str:
    """The id by which an event's shard is chosen."""
    return event.event_id
