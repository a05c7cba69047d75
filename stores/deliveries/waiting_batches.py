"""Batches that one round of a drain could not send, on this machine's disk until a later round takes them."""

from __future__ import annotations

import shutil
from collections import deque
from pathlib import Path
from typing import NamedTuple

import msgspec

from schemas.delivery import Batch

_ENCODER, _DECODER = msgspec.msgpack.Encoder(), msgspec.msgpack.Decoder(tuple[str, list[Batch]])


class WaitingFile(NamedTuple):
    """A file with batches of one retailer: messages, bytes of bodies, and when the first may be sent (epoch ms)."""

    path: str
    retailer: str
    messages: int
    size: int
    wake_at: int


class WaitingBatches:
    """Files of batches, in the order in which they were added. The folder is emptied first: batches of a killed run are
    read again from the source or the spool."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._number = folder, 0
        self._files: deque[WaitingFile] = deque()
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)

    def __len__(self) -> int:
        return sum(file.messages for file in self._files)

    def add(self, retailer: str, batches: list[Batch]) -> None:
        """Write a file. It needs no fsync: nothing depends on it after a crash."""
        path = self._folder / f"{self._number:08d}"
        self._number += 1
        path.write_bytes(_ENCODER.encode((retailer, batches)))
        messages = [message for batch in batches for message in batch.messages]
        size, wake_at = sum(len(message.body) for message in messages), min(batch.not_before for batch in batches)
        self._files.append(WaitingFile(str(path), retailer, len(messages), size, wake_at))

    def take(self, messages: int, size: int, now: float = float("inf")) -> list[WaitingFile]:
        """The next files whose batches may be sent at `now` (epoch ms): at least one, and no more than hold so much.
        The caller removes them."""
        taken, rest = list[WaitingFile](), deque[WaitingFile]()
        for file in self._files:
            fits = file.messages <= messages and file.size <= size
            if file.wake_at <= now and (fits or not taken):
                taken.append(file)
                messages, size = messages - file.messages, size - file.size
            else:
                rest.append(file)
        self._files = rest
        return taken

    def drop(self, retailers: set[str]) -> int:
        """Delete the files of some retailers; how many messages they held."""
        dropped = [file for file in self._files if file.retailer in retailers]
        self._files = deque(file for file in self._files if file.retailer not in retailers)
        for file in dropped:
            Path(file.path).unlink()
        return sum(file.messages for file in dropped)


def read_waiting(path: str) -> tuple[str, list[Batch]]:
    """(retailer, batches) of a file."""
    return _DECODER.decode(Path(path).read_bytes())
