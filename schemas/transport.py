"""The readers of a transport, and what they give."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

POLL_BYTES = 4 << 20  # of bodies in one poll, unless a single message is larger


class Envelope(NamedTuple):
    """A message as it came: its id in the transport, attributes, bytes, and when it was published (epoch ms). `note` is
    what the reader knows of bytes that are no whole record of a schema of ours; it goes into the dead letter."""

    message_id: str
    attributes: dict[str, str]
    body: bytes
    published_at: int
    note: str = ""


def partition_of(envelope: Envelope) -> int:
    """The partition of an envelope that a PartitionedReader gave."""
    return int(envelope.message_id.partition(":")[0])


def position_of(envelope: Envelope) -> int:
    """The position in its partition of an envelope that a PartitionedReader gave."""
    return int(envelope.message_id.rpartition(":")[2])


class Poll(NamedTuple):
    """The envelopes that a reader got, and the handle to commit them by. `done`: nothing will ever come again.
    `source_resumes`: the source goes on behind what was committed, so that all but a few of these are new."""

    envelopes: list[Envelope]
    handle: Any = None
    done: bool = False
    source_resumes: bool = False


class Reader(Protocol):
    """One of several readers of a source, in one process. One thread at a time polls; `commit` comes from any."""

    def open(self) -> None:
        """Connect."""

    def close(self) -> None:
        """Disconnect."""

    def poll(self, most: int) -> Poll:
        """At most `most` envelopes, and no more than fill POLL_BYTES; waits a moment for the first one."""

    def commit(self, handle: Any) -> None:
        """Acknowledge the envelopes of a poll, which the engine keeps now."""

    def oldest(self) -> float:
        """Seconds since the epoch: nothing published earlier is still to come, as far as is known."""


class PartitionedReader(Protocol):
    """A source in numbered partitions, each read from an offset on; used by several threads of a process."""

    def open(self) -> None:
        """Connect."""

    def close(self) -> None:
        """Disconnect."""

    def starts(self, seen: int) -> list[int]:
        """The first offsets of the partitions from number `seen` on; empty when there are none."""

    def ended(self) -> bool:
        """Whether no partition will be added any more."""

    def poll(self, partition: int, offset: int, most: int) -> Poll:
        """At most `most` envelopes of a partition, and no more than fill POLL_BYTES; the handle is the offset behind
        them."""

    def commit(self, partition: int, offset: int) -> None:
        """Note in the source that the engine keeps everything before the offset, for monitoring."""

    def oldest(self, partition: int) -> float:
        """Seconds since the epoch: nothing published earlier is still to come from a partition, as far as is known."""
