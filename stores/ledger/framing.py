"""Messages between two processes, over a pipe."""

from __future__ import annotations

from typing import Any, BinaryIO


def write_message(stream: BinaryIO | Any, data: bytes) -> None:
    """Writes a message with its length before it."""
    stream.write(len(data).to_bytes(4, "big") + data)
    stream.flush()


def read_message(stream: BinaryIO | Any) -> bytes | None:
    """The next message; None when the stream has ended, also in the middle of one."""
    head = stream.read(4)
    size = int.from_bytes(head, "big")
    data = stream.read(size) if len(head) == 4 else b""
    return data if len(head) == 4 and len(data) == size else None
