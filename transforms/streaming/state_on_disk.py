"""Lists that wait long, on the worker's disk instead of in the state of an engine that keeps its state in memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, Protocol, Self, TypeVar

from transforms.streaming.elements import StructCoder


class Storable(Protocol):
    """A list that can be without its items: then `place` is their address on disk."""

    @property
    def place(self) -> str: ...
    def stored_at(self, place: str) -> Self: ...


L = TypeVar("L", bound=Storable)


class Buffer(Protocol):
    """Keeps bytes as long as the process lives, as stores/deliveries/disk_buffer.py does."""

    def write(self, data: bytes) -> str | None:
        """The address of the bytes; None when they cannot be kept."""

    def read(self, place: str) -> bytes:
        """The bytes at an address."""

    def free(self, place: str) -> None:
        """Forget the bytes at an address."""


MakeBuffer = Callable[[], Buffer]


class OnDisk(Generic[L]):
    """Moves the items of lists to a buffer and back. Without a buffer, or when it is full, a list stays as it is."""

    def __init__(self, kind: type[L], make: MakeBuffer | None) -> None:
        self._coder, self._buffer = StructCoder(kind), make and make()

    def put(self, value: L) -> L:
        """The list as the state keeps it."""
        place = self._buffer and self._buffer.write(self._coder.encode(value))
        return value.stored_at(place) if place else value

    def read(self, value: L) -> L:
        """The list with its items."""
        return self._coder.decode(self._buffer.read(value.place)) if self._buffer and value.place else value

    def free(self, value: L) -> None:
        """Deletes what the buffer holds of a list."""
        if self._buffer and value.place:
            self._buffer.free(value.place)
