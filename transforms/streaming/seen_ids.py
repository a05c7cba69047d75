"""The ids of a key that were seen: 128 bits each, in generations that are forgotten as a whole."""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import blake2b

import numpy as np
import numpy.typing as npt

GENERATIONS = 8  # an id is remembered for between 7/7 and 8/7 of the time that was asked for
_HEAD = 8  # bytes of a chunk that hold its generation

_MIX = np.uint64(0x9E3779B97F4A7C15)

Numbers = npt.NDArray[np.uint64]
Halves = tuple[Numbers, Numbers]


def id_bytes(text: str) -> bytes:
    """The 16 bytes of an id of 32 hex digits; of any other text, its hash."""
    if len(text) == 32:
        try:
            return bytes.fromhex(text)
        except ValueError:
            pass
    return blake2b(text.encode(), digest_size=16).digest()


def generation_s(remember_s: float) -> float:
    """The seconds that a generation lasts."""
    return remember_s / (GENERATIONS - 1)


def make_chunk(generation: int, ids: Iterable[bytes]) -> bytes:
    """The bytes that the state keeps of a list: the generation, then the new ids."""
    return generation.to_bytes(_HEAD, "big") + b"".join(ids)


def chunk_generation(chunk: bytes) -> int:
    """The generation of a chunk."""
    return int.from_bytes(chunk[:_HEAD], "big")


def is_live(generation: int, now_generation: int) -> bool:
    """Whether a generation is still remembered."""
    return generation > now_generation - GENERATIONS


class _Ids:
    """A set of 16-byte ids in 16 bytes each: most of them sorted, and a small set of the latest."""

    def __init__(self) -> None:
        self._sorted = _halves(b"")
        self._recent: set[bytes] = set()

    def __len__(self) -> int:
        return len(self._sorted[0]) + len(self._recent)

    def add(self, ids: Iterable[bytes]) -> None:
        self._recent.update(ids)
        if len(self._recent) > max(256, len(self._sorted[0]) // 4):
            recent = _halves(b"".join(self._recent))
            mixed, second = (np.concatenate(parts) for parts in zip(self._sorted, recent, strict=True))
            order = np.argsort(mixed)
            self._sorted = mixed[order], second[order]
            self._recent = set()

    def seen(self, ids: list[bytes], halves: Halves) -> list[bool]:
        """Whether each id is in the set; `halves` are the same ids as numbers."""
        recent = self._recent
        seen = [id_ in recent for id_ in ids]
        (mixed, second), (wanted, wanted_second) = self._sorted, halves
        if len(mixed):
            place = np.minimum(np.searchsorted(mixed, wanted), len(mixed) - 1)
            alike = mixed[place] == wanted
            same = alike & (second[place] == wanted_second)
            for at in np.flatnonzero(alike & ~same):  # two ids of one first number: rare, unless made on purpose
                same[at] = wanted_second[at] in second[place[at] : np.searchsorted(mixed, wanted[at], "right")]
            if same.any():
                seen = [a or b for a, b in zip(seen, same.tolist(), strict=True)]
        return seen


def _halves(ids: bytes) -> Halves:
    """Ids as two numbers each. They are sorted by the first, which mixes all 16 bytes, so that ids with a common
    beginning differ in it; both together determine the id. A search takes a third of the time that texts take."""
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
        """The places of the ids that were never seen, each id once; from now on they are remembered."""
        for old in [number for number in self._generations if not is_live(number, generation)]:
            del self._generations[old]
        halves = _halves(b"".join(ids))
        known = [False] * len(ids)
        for earlier in self._generations.values():
            known = [a or b for a, b in zip(known, earlier.seen(ids, halves), strict=True)]
        places: dict[bytes, int] = {}
        for place, id_ in enumerate(ids):
            if not known[place]:
                places.setdefault(id_, place)
        if places:
            self._generations.setdefault(generation, _Ids()).add(places)
        return list(places.values())
