"""Bytes on this machine's disk instead of in memory, for as long as this process lives."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

SEGMENT = 64 << 20  # bytes of a file; it is closed when all its parts are freed


@dataclass
class _Segment:
    file: int
    end: int = 0
    parts: int = 0  # that were not freed


class DiskBuffer:
    """Bytes in files without a name, so that their disk space is free again when the process ends, however it ends.
    Nothing is fsynced. Safe for several threads."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._lock = folder, Lock()
        self._segments: dict[int, _Segment] = {}
        self._last = 0

    def write(self, data: bytes) -> str | None:
        """Write bytes; their address, or None when the disk is full."""
        try:
            with self._lock:
                segment = self._open_segment()
                number, start = self._last, segment.end
                segment.end += len(data)
                segment.parts += 1
            _write_at(segment.file, data, start)
        except OSError:
            return None
        return f"{number}:{start}:{len(data)}"

    def read(self, place: str) -> bytes:
        """The bytes at an address."""
        number, start, size = _parsed(place)
        return _read_at(self._segments[number].file, size, start)

    def free(self, place: str) -> None:
        """Forget the bytes at an address."""
        number = _parsed(place)[0]
        with self._lock:
            self._segments[number].parts -= 1
            if not self._segments[number].parts and number != self._last:
                self._drop(number)

    def _open_segment(self) -> _Segment:
        segment = self._segments.get(self._last)
        if segment is not None and segment.end < SEGMENT:
            return segment
        self._folder.mkdir(parents=True, exist_ok=True)
        file, name = tempfile.mkstemp(dir=self._folder)
        os.unlink(name)
        if segment is not None and not segment.parts:
            self._drop(self._last)
        self._last += 1
        segment = self._segments[self._last] = _Segment(file)
        return segment

    def _drop(self, number: int) -> None:
        os.close(self._segments.pop(number).file)


def _parsed(place: str) -> tuple[int, int, int]:
    number, start, size = map(int, place.split(":"))
    return number, start, size


def _write_at(file: int, data: bytes, start: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(file, view, start)
        view, start = view[written:], start + written


def _read_at(file: int, size: int, start: int) -> bytes:
    parts = list[bytes]()
    while size:
        parts.append(os.pread(file, size, start))
        if not parts[-1]:
            raise OSError("a file of this process has become shorter")
        size, start = size - len(parts[-1]), start + len(parts[-1])
    return b"".join(parts)
