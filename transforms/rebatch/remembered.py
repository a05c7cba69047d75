"""Which ids of a key were seen: 128 bits each, in generations that are forgotten as a whole."""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import blake2b

import numpy as np
import numpy.typing as npt

GENERATIONS = 8  # an id is remembered for between 7/7 and 8/7 of the time that was asked for
_HEAD = 8  # bytes of a chunk that say its generation

Ids = npt.NDArray[np.bytes_]


def id_bytes(event_id: str) -> bytes:
    """The 16 bytes of an event id of 32 hex digits; of any other text, its hash."""
    if len(event_id) == 32:
        try:
            return bytes.fromhex(event_id)
        except ValueError:
            pass
    return blake2b(event_id.encode(), digest_size=16).digest()


def generation_s(remember_s: float) -> float:
    """How long a generation lasts, in seconds."""
    return remember_s / (GENERATIONS - 1)


def make_chunk(generation: int, ids: Iterable[bytes]) -> bytes:
    """What is added to the state for a list: the generation, then the ids."""
    return generation.to_bytes(_HEAD, "big") + b"".join(ids)


def chunk_generation(chunk: bytes) -> int:
    """The generation of a chunk."""
    return int.from_bytes(chunk[:_HEAD], "big")


def is_live(generation: int, now_generation: int) -> bool:
    """Whether a generation is still remembered."""
    return generation > now_generation - GENERATIONS


class _Ids:
    """A set of 16-byte ids in 16 bytes each: most of them sorted, and a small set of those that came last."""

    def __init__(self) -> None:
        self._sorted = _array(b"")
        self._recent: set[bytes] = set()

    def __len__(self) -> int:
        return len(self._sorted) + len(self._recent)

    def add(self, ids: Iterable[bytes]) -> None:
        self._recent.update(ids)
        if len(self._recent) > max(256, len(self._sorted) // 4):
            self._sorted = np.sort(np.concatenate([self._sorted, _array(b"".join(self._recent))]))
            self._recent = set()

    def seen(self, ids: list[bytes], same: Ids) -> list[bool]:
        """Which of the ids are in it; `same` are the ids as an array."""
        recent = self._recent
        found = [one in recent for one in ids]
        if len(self._sorted):
            place = np.minimum(np.searchsorted(self._sorted, same), len(self._sorted) - 1)
            there = self._sorted[place] == same
            if there.any():
                found = [a or b for a, b in zip(found, there.tolist(), strict=True)]
        return found


def _array(ids: bytes) -> Ids:
    return np.frombuffer(ids, "S16")


class Remembered:
    """The ids of one key, from the chunks of its state."""

    def __init__(self, chunks: Iterable[bytes] = ()) -> None:
        self._generations: dict[int, _Ids] = {}
        for chunk in chunks:
            ids = [chunk[at : at + 16] for at in range(_HEAD, len(chunk), 16)]
            self._generations.setdefault(chunk_generation(chunk), _Ids()).add(ids)

    def __len__(self) -> int:
        return sum(len(ids) for ids in self._generations.values())

    def first_seen(self, ids: list[bytes], generation: int) -> list[int]:
        """The places of the ids that were never seen, each id once; they are remembered from now on."""
        for old in [one for one in self._generations if not is_live(one, generation)]:
            del self._generations[old]
        same = _array(b"".join(ids))
        known = [False] * len(ids)
        for earlier in self._generations.values():
            known = [a or b for a, b in zip(known, earlier.seen(ids, same), strict=True)]
        fresh: dict[bytes, int] = {}
        for place, one in enumerate(ids):
            if not known[place]:
                fresh.setdefault(one, place)
        if fresh:
            self._generations.setdefault(generation, _Ids()).add(fresh)
        return list(fresh.values())
