"""Messages between two processes, over a pipe."""

from __future__ import annotations

from typing import Any, BinaryIO


def write_message(stream: BinaryIO | Any, data: bytes) -> None:
    """Write the length of a message, then the message."""
    stream.write(len(data).to_bytes(4, "big") + data)
    stream.flush()


def read_message(stream: BinaryIO | Any) -> bytes | None:
    """The next message; None at the end of the stream, also in the middle of a message."""
    head = stream.read(4)
    size = int.from_bytes(head, "big")
    data = stream.read(size) if len(head) == 4 else b""
    return data if len(head) == 4 and len(data) == size else None
