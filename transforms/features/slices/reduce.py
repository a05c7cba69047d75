"""Reductions of many slices of ordered columns at once: sums, extremes, variances, decayed sums, distinct values."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from transforms.features.slices.ranks import Ranks

Numbers = npt.NDArray[Any]
Columns = tuple[Numbers, ...]
Merge = Callable[[Columns, Columns], Columns]
_MOST = 1 << 22  # elements of slices that are looked at together: some 100 MB
_OVERLAP = 16  # slices that hold each element more often than this are answered from a wavelet matrix


def sums(values: Numbers, low: Numbers, high: Numbers) -> Numbers:
    """The sum of each slice of whole numbers. Raises OverflowError where one leaves 64 bits."""
    before = np.zeros(len(values) + 1, np.int64)
    np.cumsum(values, out=before[1:])  # it may wrap: a difference is right if it fits
    found = before[high] - before[low]
    size = max(abs(int(values.max())), abs(int(values.min()))) if len(values) else 0
    if len(low) and size * int((high - low).max()) >= 1 << 63:
        (rough,) = reduce_slices((values.astype(np.float64),), low, high, add, (0.0,))
        if np.abs(rough - found).max() > float(1 << 62):
            raise OverflowError("a sum of whole numbers does not fit in 64 bits")
    return found


def reduce_slices(columns: Columns, low: Numbers, high: Numbers, merge: Merge, zero: tuple[Any, ...]) -> Columns:
    """The elements of each slice merged: `columns` are the fields of the elements, `zero` those of nothing.

    `merge` is associative and commutative. A tree of pairs, pairs of pairs and so on is built level by level; each
    slice takes at most two nodes of a level. So n elements and m slices cost some 2n + 2m log(longest), however much
    the slices overlap, and floating point sums are pairwise.
    """
    found = tuple(np.full(len(low), one, column.dtype) for one, column in zip(zero, columns, strict=True))
    slices = np.flatnonzero(low < high)
    low, high = low[slices], high[slices]
    while len(slices):
        left = np.flatnonzero(low & 1)
        _merge_at(found, slices[left], columns, low[left], merge)
        right = np.flatnonzero(high & 1)
        _merge_at(found, slices[right], columns, high[right] - 1, merge)
        low, high = (low + 1) >> 1, high >> 1
        more = low < high
        slices, low, high = slices[more], low[more], high[more]
        if len(slices):
            end = len(columns[0]) & ~1
            columns = merge(tuple(one[:end:2] for one in columns), tuple(one[1:end:2] for one in columns))
    return found


def _merge_at(found: Columns, slices: Numbers, columns: Columns, at: Numbers, merge: Merge) -> None:
    merged = merge(tuple(one[slices] for one in found), tuple(one[at] for one in columns))
    for one, values in zip(found, merged, strict=True):
        one[slices] = values


def add(a: Columns, b: Columns) -> Columns:
    """Sums."""
    return (a[0] + b[0],)


def least(a: Columns, b: Columns) -> Columns:
    """The smaller ones."""
    return (np.minimum(a[0], b[0]),)


def greatest(a: Columns, b: Columns) -> Columns:
    """The larger ones."""
    return (np.maximum(a[0], b[0]),)


def add_spread(a: Columns, b: Columns) -> Columns:
    """(count, mean, squared deviations from the mean). Source: Chan, Golub, LeVeque, 1979."""
    count = a[0] + b[0]
    part, apart = b[0] / np.maximum(count, 1), b[1] - a[1]
    return count, a[1] + apart * part, a[2] + b[2] + apart * apart * a[0] * part


def decayed(half_life: int) -> Merge:
    """A merge of (time, sum as of that time), whose sums halve every `half_life` ms, at the later time."""

    def merge(a: Columns, b: Columns) -> Columns:
        time = np.maximum(a[0], b[0])
        return time, a[1] * np.exp2((a[0] - time) / half_life) + b[1] * np.exp2((b[0] - time) / half_life)

    return merge


def elements(low: Numbers, high: Numbers) -> Iterator[tuple[slice, Numbers, Numbers]]:
    """(some slices, the number of each element's slice among them, the place of each element), part by part."""
    ends = np.cumsum(high - low)
    first = 0
    while first < len(low):
        done = int(ends[first - 1]) if first else 0
        last = max(first + 1, int(np.searchsorted(ends, done + _MOST, "right")))
        part = slice(first, last)
        counts = high[part] - low[part]
        owners = np.repeat(np.arange(last - first), counts)
        yield part, owners, np.arange(len(owners)) + np.repeat(low[part] - (ends[part] - counts - done), counts)
        first = last


def distinct_counts(groups: Numbers, codes: Numbers, low: Numbers, high: Numbers, overlap: int = _OVERLAP) -> Numbers:
    """The number of different codes (small numbers from 0) of each slice, all of whose elements are of one group;
    groups ascend. An element counts unless the same code stands before it in the slice."""
    keys = groups * (int(codes.max()) + 1 if len(codes) else 1) + codes
    bits = len(keys).bit_length()
    if len(keys) and int(keys.max()).bit_length() + bits < 64:  # to sort values is faster than to sort their places
        order = np.sort(keys << bits | np.arange(len(keys))) & ((1 << bits) - 1)
    else:
        order = np.argsort(keys, kind="stable")
    same = keys[order[1:]] == keys[order[:-1]]
    previous = np.full(len(keys), -1)
    previous[order[1:][same]] = order[:-1][same]
    if int((high - low).sum()) > overlap * len(keys):
        return Ranks(previous + 1, len(keys)).below(low + 1, low, high)
    found = np.zeros(len(low), np.int64)
    for part, owners, places in elements(low, high):
        new = previous[places] < low[part][owners]
        found[part] = np.bincount(owners[new], minlength=part.stop - part.start)
    return found


def ranked(codes: Numbers, low: Numbers, high: Numbers, parts: tuple[float, ...], overlap: int = _OVERLAP) -> Numbers:
    """The code of rank floor(part * (n - 1)) of each slice of n elements, for each part from 0 to 1; 0 of none."""
    found = np.zeros((len(low), len(parts)), np.int64)
    bits = int(codes.max()).bit_length() if len(codes) else 0
    if int((high - low).sum()) > overlap * len(codes):
        matrix, largest = Ranks(codes, int(codes.max())), np.maximum(high - low - 1, 0)
        for number, share in enumerate(parts):
            found[:, number] = matrix.at_rank(np.floor(share * largest).astype(np.int64), low, high)
        found[low == high] = 0
        return found
    for part, owners, places in elements(low, high):
        small = (part.stop - part.start).bit_length() + bits < 32
        keys = (owners << bits | codes[places]).astype(np.uint32 if small else np.int64)
        ordered: Numbers = np.sort(keys) & ((1 << bits) - 1)
        counts = high[part] - low[part]
        some = np.flatnonzero(counts)
        firsts = (np.cumsum(counts) - counts)[some]
        for number, share in enumerate(parts):
            ranks = np.floor(share * (counts[some] - 1)).astype(np.int64)
            found[some + part.start, number] = ordered[firsts + ranks]
    return found
