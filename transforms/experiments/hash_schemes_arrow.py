"""assignment.py for Arrow columns of texts, with equal results on every input; NaN for no bucket, -1 for no variant."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from transforms.columnar.hashing import FNV_BASIS, FnvRows, Hashes32, fnv1a32, fnv1a32_of_digits, fnv1a32_suffixed
from transforms.experiments.assignment import Range, in_space, scheme_named

Buckets = npt.NDArray[np.float64]


def bucket_column(scheme: str, seed: str, column: pa.Array) -> Buckets:
    """The bucket of every row in the scheme's own space, NaN where there is none."""
    place = scheme_named(scheme).place
    present = np.asarray(pc.fill_null(pc.greater(pc.binary_length(column), 0), False))
    texts = column if present.all() else column.filter(pa.array(present))
    buckets = np.full(len(present), np.nan)
    buckets[present] = place(_numbers(scheme, seed, texts))
    return buckets


def _numbers(scheme: str, seed: str, texts: pa.Array) -> Hashes32 | npt.NDArray[np.uint64]:
    """The hash number of each text, none of which is null or empty."""
    if scheme == "growthbook/1":
        return fnv1a32_suffixed(_fnv_rows(texts).hashed(FNV_BASIS), seed)
    if scheme == "growthbook/2":
        return fnv1a32_of_digits(_fnv_rows(texts).hashed(fnv1a32(seed)))
    number = scheme_named(scheme).number
    before, after = scheme_named(scheme).affixes(seed)
    return np.array([number(f"{before}{text}{after}") for text in texts.to_pylist()], np.uint64)


_last: tuple[pa.Array | None, FnvRows | None] = (None, None)


def _fnv_rows(texts: pa.Array) -> FnvRows:
    """The texts as FnvRows. The last result is cached: a campaign hashes its units under several seeds."""
    global _last
    column, rows = _last
    if column is not texts or rows is None:
        rows = FnvRows(texts)
        _last = (texts, rows)
    return rows


def bucket_column_each(seeds: Sequence[str], which: npt.NDArray[np.int64], column: pa.Array) -> Buckets:
    """The growthbook/2 bucket of every row under its own seed, `seeds[which[row]]`; NaN where there is none."""
    states = np.array([fnv1a32(seed) for seed in seeds], np.uint32)[which]
    present = np.asarray(pc.fill_null(pc.greater(pc.binary_length(column), 0), False))
    if not present.all():
        column, states = column.filter(pa.array(present)), states[present]
    buckets = np.full(len(present), np.nan)
    buckets[present] = scheme_named("growthbook/2").place(fnv1a32_of_digits(_fnv_rows(column).hashed(states)))
    return buckets


def choose_column(ranges: Sequence[Range], buckets: Buckets) -> npt.NDArray[np.int32]:
    """The index of the first range with lo ≤ bucket < hi for every row, -1 for none."""
    chosen = np.full(len(buckets), -1, np.int32)
    for index in range(len(ranges) - 1, -1, -1):
        lo, hi = ranges[index]
        chosen[(buckets >= lo) & (buckets < hi)] = index
    return chosen


def in_ranges_column(scheme: str, seed: str, column: pa.Array, ranges: Iterable[Range]) -> npt.NDArray[np.bool_]:
    """Whether each row's bucket is in one of several shares of [0, 1)."""
    return choose_column(in_space(scheme, ranges), bucket_column(scheme, seed, column)) >= 0


def normalise_column(scheme: str, buckets: Buckets) -> Buckets:
    """Buckets as numbers in [0, 1); NaN stays."""
    space = scheme_named(scheme).space
    numbers: Any = (buckets - space.lowest) / space.size
    return np.minimum(numbers, np.nextafter(1.0, 0.0))
