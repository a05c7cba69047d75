"""Which ids of a key were seen: 128 bits each, in generations that are forgotten as a whole."""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import blake2b

import numpy as np
import numpy.typing as npt

GENERATIONS = 8  # an id is remembered for between 7/7 and 8/7 of the time that was asked for
_HEAD = 8  # bytes of a chunk that say its generation

_MIX = np.uint64(0x9E3779B97F4A7C15)

Numbers = npt.NDArray[np.uint64]
Halves = tuple[Numbers, Numbers]


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
        self._sorted = _halves(b"")
        self._recent: set[bytes] = set()

    def __len__(self) -> int:
        return len(self._sorted[0]) + len(self._recent)

    def add(self, ids: Iterable[bytes]) -> None:
        self._recent.update(ids)
        if len(self._recent) > max(256, len(self._sorted[0]) // 4):
            news = _halves(b"".join(self._recent))
            mixed, second = (np.concatenate(parts) for parts in zip(self._sorted, news, strict=True))
            order = np.argsort(mixed)
            self._sorted = mixed[order], second[order]
            self._recent = set()

    def seen(self, ids: list[bytes], same: Halves) -> list[bool]:
        """Which of the ids are in it; `same` are the ids as numbers."""
        recent = self._recent
        found = [one in recent for one in ids]
        (mixed, second), (wanted, rest) = self._sorted, same
        if len(mixed):
            place = np.minimum(np.searchsorted(mixed, wanted), len(mixed) - 1)
            alike = mixed[place] == wanted
            there = alike & (second[place] == rest)
            for one in np.flatnonzero(alike & ~there):  # two ids of one number: nobody meets them but on purpose
                there[one] = rest[one] in second[place[one] : np.searchsorted(mixed, wanted[one], "right")]
            if there.any():
                found = [a or b for a, b in zip(found, there.tolist(), strict=True)]
        return found


def _halves(ids: bytes) -> Halves:
    """Ids as two numbers each, by the first of which they are sorted: it is of all 16 bytes, so that ids with a common
    beginning differ in it, and of both together an id could be made again. Numbers are found in a third of the time
    that texts take."""
    pairs = np.frombuffer(ids, np.uint64).reshape(-1, 2)
    second = pairs[:, 1].copy()
    return pairs[:, 0] ^ (second * _MIX), second


class SeenIds:
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
        same = _halves(b"".join(ids))
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
