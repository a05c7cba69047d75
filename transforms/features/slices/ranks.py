"""Counts and order statistics of any slices of a column, at a cost that does not depend on how long they are."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Numbers = npt.NDArray[Any]


class Ranks:
    """A wavelet matrix (Claude, Navarro, Ordóñez, 2015) of whole numbers from 0 to below `end`: n log(end) to make, and
    log(end) for each question about a slice."""

    def __init__(self, values: Numbers, end: int) -> None:
        self._zeros: list[tuple[int, Numbers]] = []  # of each bit, the highest first: how many zeros are before a place
        for bit in reversed(range(end.bit_length())):
            one = (values >> bit & 1).astype(bool)
            zeros = np.zeros(len(values) + 1, np.int64)
            np.cumsum(~one, out=zeros[1:])
            self._zeros.append((bit, zeros))
            values = np.concatenate([values[~one], values[one]])

    def below(self, limits: Numbers, low: Numbers, high: Numbers) -> Numbers:
        """How many values of each slice are below its limit, which is at most `end`."""
        found = np.zeros(len(low), np.int64)
        for bit, zeros in self._zeros:
            one = (limits >> bit & 1).astype(bool)
            found += np.where(one, zeros[high] - zeros[low], 0)
            low, high = _descend(zeros, one, low, high)
        return found

    def at_rank(self, ranks: Numbers, low: Numbers, high: Numbers) -> Numbers:
        """The value of each slice that has this rank, from 0; anything where the slice has none such."""
        found = np.zeros(len(low), np.int64)
        for bit, zeros in self._zeros:
            smaller = zeros[high] - zeros[low]
            one = ranks >= smaller
            ranks = np.where(one, ranks - smaller, ranks)
            found |= one.astype(np.int64) << bit
            low, high = _descend(zeros, one, low, high)
        return found


def _descend(zeros: Numbers, one: Numbers, low: Numbers, high: Numbers) -> tuple[Numbers, Numbers]:
    """The slices among the values of the next bit: those with a zero stand first, then those with a one."""
    return (
        np.where(one, zeros[-1] + low - zeros[low], zeros[low]),
        np.where(one, zeros[-1] + high - zeros[high], zeros[high]),
    )
