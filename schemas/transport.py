"""What a transport gives to those who read it."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

POLL_BYTES = 4 << 20  # of bodies in one poll, unless a single message is larger


class Envelope(NamedTuple):
    """A message as it came: its name in the transport, attributes, bytes, and when it was published (epoch ms).
    `note` is for the dead letter of what is no whole record of a schema of ours: what the reader knows of it."""

    message_id: str
    attributes: dict[str, str]
    body: bytes
    published_at: int
    note: str = ""


class Poll(NamedTuple):
    """What a reader found: envelopes, what to commit them by, whether nothing will ever come again, and whether what
    is settled does not come again (`fresh`: it was committed), but for a few."""

    envelopes: list[Envelope]
    handle: Any = None
    done: bool = False
    fresh: bool = False


class Reader(Protocol):
    """One of several readers of a source, in one process. One thread at a time polls; `commit` comes from any."""

    def open(self) -> None:
        """Connect."""

    def close(self) -> None:
        """Disconnect."""

    def poll(self, most: int) -> Poll:
        """At most `most` envelopes, and no more than fill POLL_BYTES; waits a moment for the first one."""

    def commit(self, handle: Any) -> None:
        """The engine keeps what this poll brought: acknowledge it."""

    def oldest(self) -> float:
        """Seconds since the epoch: nothing published before is still to come, as far as is known."""


class PartitionedReader(Protocol):
    """A source in numbered partitions, each of which is read from an offset on; in one process, by several threads."""

    def open(self) -> None:
        """Connect."""

    def starts(self, seen: int) -> list[int]:
        """The first offsets of the partitions from number `seen` on, which may be none."""

    def ended(self) -> bool:
        """Whether no partition will be added any more."""

    def poll(self, partition: int, offset: int, most: int) -> Poll:
        """At most `most` envelopes of a partition, and no more than fill POLL_BYTES; the handle is the offset behind
        them."""

    def commit(self, partition: int, offset: int) -> None:
        """The engine keeps everything before the offset: tell the source, for those who watch it."""

    def oldest(self, partition: int) -> float:
        """Seconds since the epoch: nothing published before is still to come from there, as far as is known."""
