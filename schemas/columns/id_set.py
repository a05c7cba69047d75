"""IdSet: a set of ids of 128 bits in 16 bytes each, asked and extended by lists."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

_MIX = np.uint64(0x9E3779B97F4A7C15)

Numbers = npt.NDArray[np.uint64]
Halves = tuple[Numbers, Numbers]


class IdSet:
    """A set of 16-byte ids in 16 bytes each: most of them sorted, and a small set of the latest."""

    def __init__(self) -> None:
        self._sorted = halves(b"")
        self._recent: set[bytes] = set()

    def __len__(self) -> int:
        return len(self._sorted[0]) + len(self._recent)

    def add(self, ids: Iterable[bytes]) -> None:
        """Adds ids that are not in the set."""
        self._recent.update(ids)
        if len(self._recent) > max(256, len(self._sorted[0]) // 4):
            recent = halves(b"".join(self._recent))
            mixed, second = (np.concatenate(parts) for parts in zip(self._sorted, recent, strict=True))
            order = np.argsort(mixed)
            self._sorted = mixed[order], second[order]
            self._recent = set()

    def seen(self, ids: list[bytes], numbers: Halves) -> list[bool]:
        """Whether each id is in the set; `numbers` are the `halves` of the same ids."""
        recent = self._recent
        seen = [id_ in recent for id_ in ids]
        (mixed, second), (wanted, wanted_second) = self._sorted, numbers
        if len(mixed):
            place = np.minimum(np.searchsorted(mixed, wanted), len(mixed) - 1)
            alike = mixed[place] == wanted
            same = alike & (second[place] == wanted_second)
            for at in np.flatnonzero(alike & ~same):  # two ids of one first number: rare, unless made on purpose
                same[at] = wanted_second[at] in second[place[at] : np.searchsorted(mixed, wanted[at], "right")]
            if same.any():
                seen = [a or b for a, b in zip(seen, same.tolist(), strict=True)]
        return seen


def halves(ids: bytes) -> Halves:
    """Ids as two numbers each. They are sorted by the first, which mixes all 16 bytes, so that ids with a common
    beginning differ in it; both together determine the id. A search takes a third of the time that texts take."""
    pairs = np.frombuffer(ids, np.uint64).reshape(-1, 2)
    second = pairs[:, 1].copy()
    return pairs[:, 0] ^ (second * _MIX), second
