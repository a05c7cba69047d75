"""Batches that could not leave in a part of a drain, on this machine's disk until a later part takes them."""

from __future__ import annotations

import shutil
from collections import deque
from pathlib import Path
from typing import NamedTuple

import msgspec

from schemas.delivery import Batch

_ENCODER, _DECODER = msgspec.msgpack.Encoder(), msgspec.msgpack.Decoder(tuple[str, list[Batch]])


class WaitingFile(NamedTuple):
    """A file with batches of one retailer: how many messages, bytes of bodies, and when the first may leave (epoch
    ms)."""

    path: str
    retailer: str
    messages: int
    size: int
    wake_at: int


class WaitingBatches:
    """Files of batches, in the order in which they came. The folder is emptied: what a run that was killed left there
    comes again from the source, or from the spool."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._number = folder, 0
        self._files: deque[WaitingFile] = deque()
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)

    def __len__(self) -> int:
        return sum(one.messages for one in self._files)

    def add(self, retailer: str, batches: list[Batch]) -> None:
        """One more file. It needs no fsync, for nothing depends on it after a crash."""
        path = self._folder / f"{self._number:08d}"
        self._number += 1
        path.write_bytes(_ENCODER.encode((retailer, batches)))
        messages = [message for batch in batches for message in batch.messages]
        size, wake_at = sum(len(one.body) for one in messages), min(batch.not_before for batch in batches)
        self._files.append(WaitingFile(str(path), retailer, len(messages), size, wake_at))

    def take(self, messages: int, size: int, now: float = float("inf")) -> list[WaitingFile]:
        """The next files whose batches may leave at `now` (epoch ms), at least one and then no more than hold so much.
        They are yours to remove."""
        taken, left = list[WaitingFile](), deque[WaitingFile]()
        for one in self._files:
            fits = one.messages <= messages and one.size <= size
            if one.wake_at <= now and (fits or not taken):
                taken.append(one)
                messages, size = messages - one.messages, size - one.size
            else:
                left.append(one)
        self._files = left
        return taken

    def drop(self, retailers: set[str]) -> int:
        """Removes the files of some retailers; how many messages they held."""
        gone = [one for one in self._files if one.retailer in retailers]
        self._files = deque(one for one in self._files if one.retailer not in retailers)
        for one in gone:
            Path(one.path).unlink()
        return sum(one.messages for one in gone)


def read_waiting(path: str) -> tuple[str, list[Batch]]:
    """(retailer, batches) of a file."""
    return _DECODER.decode(Path(path).read_bytes())
