"""The spool: messages of a broker that are not settled yet, on this machine's disk.

An engine that keeps its state in memory loses it when it is killed, also for messages that it has acknowledged. So each
poll is written here before it is acknowledged, and the next run reads the files of an earlier one.
"""

from __future__ import annotations

import time
import uuid
import zlib
from collections import deque
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import msgspec

from connectors.files.whole_file import write_whole
from schemas.problems import JobError
from schemas.transport import POLL_BYTES, Envelope, Poll, Reader

_MAGIC = b"SPOOL1"
_ENCODER, _DECODER = msgspec.msgpack.Encoder(), msgspec.msgpack.Decoder(list[Envelope])


class Spool:
    """A folder with a file per poll, seen only when complete."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def write(self, envelopes: list[Envelope]) -> Path:
        """Write a poll to disk; the path of its file."""
        data = _ENCODER.encode(envelopes)
        path = self.folder / f"{time.time_ns():020d}-{uuid.uuid4().hex[:8]}.spool"
        write_whole(str(path), [_MAGIC, zlib.crc32(data).to_bytes(4, "big"), data])
        return path

    def files(self) -> list[Path]:
        """The complete files, oldest first."""
        return sorted(self.folder.glob("*.spool"))

    def read(self, path: Path) -> list[Envelope]:
        """The envelopes of a file. Raises JobError if it is damaged."""
        data = path.read_bytes()
        if data[:6] != _MAGIC or zlib.crc32(data[10:]).to_bytes(4, "big") != data[6:10]:
            raise JobError(f"{path} is damaged", "Restore it, or move it away: its messages are then lost")
        return _DECODER.decode(data[10:])

    def sweep(self, settled: Callable[[list[Envelope]], bool], until: float) -> int:
        """Delete the files older than `until` (epoch seconds) of which everything is settled; how many."""
        swept = 0
        for path in self.files():
            if int(path.name[:20]) / 1e9 < until and settled(self.read(path)):
                path.unlink(missing_ok=True)
                swept += 1
        return swept


class SpooledReader(Reader):
    """A reader whose polls are on disk before they are returned. It is done when the disk has not `enough` room."""

    def __init__(self, reader: Reader, spool: Spool, enough: Callable[[], bool] = lambda: True) -> None:
        self._reader, self._spool, self._enough = reader, spool, enough

    def open(self) -> None:
        self._reader.open()

    def close(self) -> None:
        self._reader.close()

    def poll(self, most: int) -> Poll:
        """A poll of the reader, after it was written to disk. An earlier run committed what it had read."""
        if not self._enough():
            return Poll([], done=True)
        poll = self._reader.poll(most)
        if poll.envelopes:
            self._spool.write(poll.envelopes)
        return poll._replace(source_resumes=True)

    def commit(self, handle: Any) -> None:
        self._reader.commit(handle)

    def oldest(self) -> float:
        return self._reader.oldest()


class SpoolReader(Reader):
    """Reads these files of the spool, from earlier runs; then it is done."""

    def __init__(self, spool: Spool, files: Iterable[Path]) -> None:
        self._spool, self._files = spool, list(files)

    def open(self) -> None:
        """Begin with the first file."""
        self._unread = deque(self._files)

    def close(self) -> None:
        """Nothing to close."""

    def commit(self, handle: Any) -> None:
        """Nothing to commit: `Spool.sweep` deletes the files when all they hold is settled."""

    def poll(self, most: int) -> Poll:
        """Whole files: with the last one there may be more than `most` messages."""
        envelopes: list[Envelope] = []
        size = 0
        while self._unread and len(envelopes) < most and size < POLL_BYTES:
            path = self._unread.popleft()
            if path.exists():
                polled = self._spool.read(path)
                envelopes += polled
                size += sum(len(envelope.body) for envelope in polled)
        return Poll(envelopes, done=not self._unread)

    def oldest(self) -> float:
        return time.time()
