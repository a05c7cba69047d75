"""A spool: what was taken from a broker and is not yet settled, kept on this machine's disk.

An engine that keeps its state in memory forgets, when it is killed, what it read and acknowledged. So each poll is
written here before it is acknowledged, and a start reads what an earlier run left.
"""

from __future__ import annotations

import time
import uuid
import zlib
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
    """A folder of polls, one file each, seen only when complete."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def write(self, envelopes: list[Envelope]) -> Path:
        """The file that now holds the poll, safe on the disk."""
        data = _ENCODER.encode(envelopes)
        path = self.folder / f"{time.time_ns():020d}-{uuid.uuid4().hex[:8]}.spool"
        write_whole(str(path), [_MAGIC, zlib.crc32(data).to_bytes(4, "big"), data])
        return path

    def files(self) -> list[Path]:
        """The complete files, oldest first."""
        return sorted(self.folder.glob("*.spool"))

    def read(self, path: Path) -> list[Envelope]:
        """A poll again. Raises JobError for a file that was damaged."""
        data = path.read_bytes()
        if data[:6] != _MAGIC or zlib.crc32(data[10:]).to_bytes(4, "big") != data[6:10]:
            raise JobError(f"{path} is damaged", "Restore it, or move it away: its messages are then lost")
        return _DECODER.decode(data[10:])

    def sweep(self, settled: Callable[[list[Envelope]], bool], until: float) -> int:
        """Deletes the files older than `until` (seconds since the epoch) of which everything is settled; how many."""
        swept = 0
        for path in self.files():
            if int(path.name[:20]) / 1e9 < until and settled(self.read(path)):
                path.unlink(missing_ok=True)
                swept += 1
        return swept


class SpooledReader:
    """A reader whose polls are on the disk before anyone else sees them. It is done when there is not
    `enough` room for more."""

    def __init__(self, reader: Reader, spool: Spool, enough: Callable[[], bool] = lambda: True) -> None:
        self._reader, self._spool, self._enough = reader, spool, enough

    def open(self) -> None:
        """Open the reader."""
        self._reader.open()

    def close(self) -> None:
        """Close the reader."""
        self._reader.close()

    def poll(self, most: int) -> Poll:
        """What the reader polled, after it was written down. An earlier run committed what it had read."""
        if not self._enough():
            return Poll([], done=True)
        poll = self._reader.poll(most)
        if poll.envelopes:
            self._spool.write(poll.envelopes)
        return poll._replace(source_resumes=True)

    def commit(self, handle: Any) -> None:
        """Passed on."""
        self._reader.commit(handle)

    def oldest(self) -> float:
        """The reader's."""
        return self._reader.oldest()


class SpoolReader:
    """What earlier runs left in the spool: the files that are there when it is made, then it is done."""

    def __init__(self, spool: Spool, files: Iterable[Path]) -> None:
        self._spool, self._files = spool, list(files)

    def open(self) -> None:
        """Nothing to open."""
        self._at = 0

    def close(self) -> None:
        """Nothing to close."""

    def poll(self, most: int) -> Poll:
        """The polls of files, whole: the last one may bring more than `most`."""
        got: list[Envelope] = []
        size = 0
        while self._at < len(self._files) and len(got) < most and size < POLL_BYTES:
            path = self._files[self._at]
            self._at += 1
            if path.exists():
                polled = self._spool.read(path)
                got += polled
                size += sum(len(envelope.body) for envelope in polled)
        return Poll(got, done=self._at >= len(self._files))

    def commit(self, handle: Any) -> None:
        """The sweep deletes the files, once all they hold is settled."""

    def oldest(self) -> float:
        """Now."""
        return time.time()
