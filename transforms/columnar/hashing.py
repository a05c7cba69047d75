"""Hashes of texts and of Arrow columns: FNV-1a 32 for assignment, 64 bits for look-ups."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

FNV_BASIS = 0x811C9DC5
_FNV_PRIME = 0x01000193
_FEW_ROWS = 32
"""Below so many rows a step of numpy costs more than a Python loop over their characters."""

Hashes32 = npt.NDArray[np.uint32]
Hashes64 = npt.NDArray[np.uint64]
Offsets = npt.NDArray[np.int64]
Units = npt.NDArray[np.uint8] | npt.NDArray[np.uint16]


def fnv1a32(text: str, state: int = FNV_BASIS) -> int:
    """FNV-1a 32 over the UTF-16 code units of a text, continued from `state`.

    Units as in JavaScript's charCodeAt; source: Fowler, Noll, Vo; draft-eastlake-fnv.
    """
    return _continued(state, code_units(text))


def code_units(text: str) -> memoryview:
    """The UTF-16 code units of a text; a lone surrogate is one unit."""
    if text.isascii():
        return memoryview(text.encode("ascii"))
    return memoryview(text.encode("utf-16-le", "surrogatepass")).cast("H")


def _continued(state: int, units: Iterable[int]) -> int:
    for unit in units:
        state = ((state ^ unit) * _FNV_PRIME) & 0xFFFFFFFF
    return state


class FnvRows:
    """A string column without nulls, prepared once for several hashes.

    numpy steps over character positions, not rows. The last few, very long rows end in a plain loop, so that one text
    of 10 MB costs neither ten million steps of numpy nor memory for the other rows.
    """

    def __init__(self, column: pa.Array) -> None:
        units, offsets = _column_units(column)
        starts, lengths = offsets[:-1], np.diff(offsets)
        self._order: npt.NDArray[np.intp] | None = None
        if len(lengths) and lengths.min() != lengths.max():
            self._order = np.argsort(-lengths, kind="stable")
            starts, lengths = starts[self._order], lengths[self._order]
        ascending = -lengths
        self._steps: list[Units] = []
        while (live := int(np.searchsorted(ascending, -len(self._steps)))) > _FEW_ROWS:
            self._steps.append(units[starts[:live] + len(self._steps)])
        done = len(self._steps)
        self._rests = [units[starts[row] + done : starts[row] + lengths[row]] for row in range(live)]
        self._rows = len(lengths)

    def hashed(self, state: int | Hashes32) -> Hashes32:
        """FNV-1a 32 of every row, continued from `state`, of all rows or of each."""
        hashes = np.full(self._rows, state, np.uint32)
        if self._order is not None:
            hashes = hashes[self._order]
        for step in self._steps:
            part = hashes[: len(step)]
            part ^= step
            part *= np.uint32(_FNV_PRIME)
        for row, rest in enumerate(self._rests):
            hashes[row] = _continued(int(hashes[row]), rest.data)
        if self._order is None:
            return hashes
        ordered = np.empty_like(hashes)
        ordered[self._order] = hashes
        return ordered


def fnv1a32_suffixed(hashes: Hashes32, suffix: str) -> Hashes32:
    """The hashes of the same texts with a suffix."""
    longer = hashes.copy()
    for unit in code_units(suffix):
        longer ^= np.uint32(unit)
        longer *= np.uint32(_FNV_PRIME)
    return longer


def fnv1a32_of_digits(numbers: Hashes32) -> Hashes32:
    """FNV-1a 32 of the decimal digits of each number."""
    leading, rest = np.divmod(numbers, np.uint32(100_000))
    firsts, three, two = _digit_tables()
    hashes = firsts[leading]
    hashes = hashes * _power(3) + three[hashes & np.uint32(0xFF), rest // np.uint32(100)]
    hashes = hashes * _power(2) + two[hashes & np.uint32(0xFF), rest % np.uint32(100)]
    for row in np.flatnonzero(leading == 0).tolist():
        hashes[row] = fnv1a32(str(numbers[row]))
    return hashes


@cache
def _digit_tables() -> tuple[Hashes32, Hashes32, Hashes32]:
    """The tables that replace one step for each digit: the hash of every number below 42,950, and what three and two
    more digits add. A digit changes only the last byte of the hash before it is multiplied, so from a hash h
    a number of k digits leads to h × prime^k + table[last byte of h, number]."""
    firsts = np.array([fnv1a32(str(number)) for number in range((1 << 32) // 100_000 + 1)], np.uint32)
    return firsts, _added(3), _added(2)


def _added(digits: int) -> Hashes32:
    last = np.arange(256, dtype=np.uint32)[:, None]
    numbers = np.arange(10**digits, dtype=np.uint32)[None, :]
    hashes = np.broadcast_to(last, (256, 10**digits)).copy()
    for power in range(digits - 1, -1, -1):
        digit = numbers // np.uint32(10**power) % np.uint32(10) + np.uint32(ord("0"))
        hashes = (hashes ^ digit) * np.uint32(_FNV_PRIME)
    return hashes - last * _power(digits)


def _power(exponent: int) -> np.uint32:
    return np.uint32(pow(_FNV_PRIME, exponent, 1 << 32))


def string_buffers(column: pa.Array) -> tuple[npt.NDArray[np.uint8], Offsets]:
    """The UTF-8 bytes of a string or large_string column, and where each row starts; one offset more than rows."""
    kind = np.int64 if pa.types.is_large_string(column.type) else np.int32
    _, offsets, data = column.buffers()
    if not len(column) or data is None:
        return np.zeros(0, np.uint8), np.zeros(len(column) + 1, np.int64)
    places = np.frombuffer(offsets, kind)[column.offset : column.offset + len(column) + 1].astype(np.int64)
    return np.frombuffer(data, np.uint8)[places[0] : places[-1]], places - places[0]


def _column_units(column: pa.Array) -> tuple[Units, Offsets]:
    """The code units of all rows in one array, and where each row starts."""
    data, offsets = string_buffers(column)
    if not len(data) or data.max() < 0x80:
        return data, offsets
    units = np.frombuffer(data.tobytes().decode().encode("utf-16-le"), np.uint16)
    # A character is one unit, or two from U+10000 on, which is four bytes of UTF-8.
    per_byte = ((data & 0xC0) != 0x80).astype(np.int8) + (data >= 0xF0)
    return units, np.concatenate([[0], np.cumsum(per_byte, dtype=np.int64)])[offsets]


_WORD = 8
_MOST_WORDS = 32
_MASKS = np.array([(1 << 8 * kept) - 1 for kept in range(_WORD + 1)], np.uint64)
GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def hash64_rows(column: pa.Array) -> Hashes64:
    """64 well-mixed bits of every row of a string column without nulls; the same in every process.

    Reads words of eight bytes. Of a text over 256 bytes it reads the length, the first 248 and the last eight bytes: a
    caller that needs certainty compares the texts. Mixing: the finaliser of SplitMix64 (Steele, 2014).
    """
    data, offsets = string_buffers(column)
    words = _unaligned_words(data)
    starts, lengths = offsets[:-1], np.diff(offsets)
    hashes = _mixed(lengths.astype(np.uint64) * GOLDEN)
    last = np.maximum(lengths - _WORD, 0)
    shortest = int(lengths.min(initial=np.iinfo(np.int64).max))
    for word in range(min(-(-int(lengths.max(initial=0)) // _WORD), _MOST_WORDS)):
        place = word * _WORD
        rows = slice(None) if shortest > place else np.flatnonzero(lengths > place)
        at = last[rows] if word == _MOST_WORDS - 1 else np.full(1, place)
        kept = np.minimum(lengths[rows] - at, _WORD)
        hashes[rows] = _mixed(hashes[rows] + (words[starts[rows] + at] & _MASKS[kept]) * GOLDEN)
    return hashes


def _unaligned_words(data: npt.NDArray[np.uint8]) -> Any:
    """The eight bytes from each place on as a number, zeros after the end."""
    padded = np.concatenate([data, np.zeros(_WORD, np.uint8)])
    first = padded[:_WORD].view("<u8")
    return np.lib.stride_tricks.as_strided(first, shape=(len(data) + 1,), strides=(1,), writeable=False)


def _mixed(hashes: Hashes64) -> Hashes64:
    hashes ^= hashes >> np.uint64(30)
    hashes *= np.uint64(0xBF58476D1CE4E5B9)
    hashes ^= hashes >> np.uint64(27)
    hashes *= np.uint64(0x94D049BB133111EB)
    hashes ^= hashes >> np.uint64(31)
    return hashes
