"""Messages that are read again between two times, whichever transport they come from."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

from schemas.transport import Envelope, Reader

MOST = 5_000  # messages at a time
Message = tuple[bytes, dict[str, str]]
"""A body and its attributes."""
Window = tuple[list[Envelope], Callable[[], None]]
"""Messages, and a function that acknowledges them."""
Publish = Callable[[Sequence[Message]], int]
"""Publishes messages; how many were accepted, once they are safe."""


def read_window(reader: Reader, since: int, until: int) -> Iterator[Window]:
    """Those messages of a reader, until it is done, that were published from `since` on and before `until`."""
    reader.open()
    try:
        done = False
        while not done:
            poll = reader.poll(MOST)
            done = poll.done
            inside = [since <= envelope.published_at < until for envelope in poll.envelopes]
            envelopes = [envelope for envelope, fits in zip(poll.envelopes, inside, strict=True) if fits]
            acks = [ack for ack, fits in zip(poll.handle or (), inside, strict=False) if fits]
            if envelopes:
                yield envelopes, partial(reader.commit, acks)
    finally:
        reader.close()


def group_messages(messages: Sequence[Message], key: Callable[[dict[str, str]], Any]) -> dict[Any, list[Message]]:
    """The messages by a key of their attributes, in the order in which the keys first appear."""
    groups: dict[Any, list[Message]] = {}
    for message in messages:
        groups.setdefault(key(message[1]), []).append(message)
    return groups
