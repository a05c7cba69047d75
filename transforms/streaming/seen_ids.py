"""The ids of a key that were seen: 128 bits each, in generations that are forgotten as a whole."""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import blake2b

from schemas.columns.id_set import IdSet, halves

GENERATIONS = 8  # an id is remembered for between 7/7 and 8/7 of the time that was asked for
_HEAD = 8  # bytes of a chunk that hold its generation


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


class SeenIds:
    """The ids of one key, from the chunks of its state."""

    def __init__(self, chunks: Iterable[bytes] = ()) -> None:
        self._generations: dict[int, IdSet] = {}
        for chunk in chunks:
            ids = [chunk[at : at + 16] for at in range(_HEAD, len(chunk), 16)]
            self._generations.setdefault(chunk_generation(chunk), IdSet()).add(ids)

    def __len__(self) -> int:
        return sum(len(ids) for ids in self._generations.values())

    def first_seen(self, ids: list[bytes], generation: int) -> list[int]:
        """The places of the ids that were never seen, each id once; from now on they are remembered."""
        for old in [number for number in self._generations if not is_live(number, generation)]:
            del self._generations[old]
        numbers = halves(b"".join(ids))
        known = [False] * len(ids)
        for earlier in self._generations.values():
            known = [a or b for a, b in zip(known, earlier.seen(ids, numbers), strict=True)]
        places: dict[bytes, int] = {}
        for place, id_ in enumerate(ids):
            if not known[place]:
                places.setdefault(id_, place)
        if places:
            self._generations.setdefault(generation, IdSet()).add(places)
        return list(places.values())
