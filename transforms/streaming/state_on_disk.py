"""Lists that wait long, on the worker's disk instead of in the state of an engine that keeps its state in memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

from transforms.streaming.elements import Messages, StructCoder, Waiting

T = TypeVar("T", Messages, Waiting)


class Buffer(Protocol):
    """Keeps bytes as long as the process lives: stores/deliveries/disk_buffer.py."""

    def write(self, data: bytes) -> str | None:
        """Where the bytes are now; None when they cannot be kept."""

    def read(self, place: str) -> bytes:
        """The bytes that were written there."""

    def free(self, place: str) -> None:
        """Nobody will read them again."""


MakeBuffer = Callable[[], Buffer]


class OnDisk(Generic[T]):
    """Lists of a kind without their items, which are in a buffer. Without a buffer, or when it takes no more, a list
    stays as it is."""

    def __init__(self, kind: type[T], make: MakeBuffer | None) -> None:
        self._coder, self._buffer = StructCoder(kind), make and make()

    def put(self, value: T) -> T:
        """The list as the state is to keep it."""
        place = self._buffer and self._buffer.write(self._coder.encode(value))
        return value.stored_at(place) if place else value

    def read(self, value: T) -> T:
        """The list as it was put."""
        return self._coder.decode(self._buffer.read(value.place)) if self._buffer and value.place else value

    def free(self, value: T) -> None:
        """What the state had of a list is not needed any more."""
        if self._buffer and value.place:
            self._buffer.free(value.place)
