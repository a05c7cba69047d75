"""RecentIds: the ids of the last events of a partition, so that an event that comes again is not appended again."""

from __future__ import annotations

import os
from pathlib import Path

from connectors.log.batch import HEADER_BYTES, ID_BYTES
from connectors.log.segments import headers, list_segments
from schemas.columns.id_set import IdSet, halves


class RecentIds:
    """The last ids that were added: at least `most` of them, at most twice as many, 16 bytes each."""

    def __init__(self, most: int) -> None:
        self._most, self._old, self._new = most, IdSet(), IdSet()

    def unseen(self, ids: list[bytes]) -> list[int]:
        """The places of the ids that are not remembered, each id once."""
        numbers, places = halves(b"".join(ids)), dict[bytes, int]()
        known = zip(ids, self._old.seen(ids, numbers), self._new.seen(ids, numbers), strict=True)
        for place, (id_, old, new) in enumerate(known):
            if not (old or new):
                places.setdefault(id_, place)
        return list(places.values())

    def add(self, ids: list[bytes]) -> None:
        """Remembers ids."""
        for start in range(0, len(ids), self._most):
            if len(self._new) >= self._most:
                self._old, self._new = self._new, IdSet()
            self._new.add(ids[start : start + self._most])


def split_ids(ids: bytes) -> list[bytes]:
    """The ids that stand one behind the other."""
    return [ids[place : place + ID_BYTES] for place in range(0, len(ids), ID_BYTES)]


def read_ids(folder: Path, partition: int, start: int, most: int) -> bytes:
    """The ids of the whole batches with events from a position on, in their order: of the last `most` events, and of
    those that stand in one segment with them."""
    parts: list[bytes] = []
    for segment in reversed(list_segments(folder, partition)):
        with segment.path.open("rb") as file:
            handle = file.fileno()
            found = [
                os.pread(handle, header.id_bytes, place + HEADER_BYTES)
                for place, header in headers(handle)
                if header.end > start
            ]
        parts.insert(0, b"".join(found))
        if segment.first <= start or sum(map(len, parts)) >= most * ID_BYTES:
            break
    return b"".join(parts)
