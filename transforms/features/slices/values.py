"""The value of an aggregation over slices of ordered events."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from schemas.features.declarations import EXACT_DISTINCT, Aggregation
from schemas.features.windows import duration_ms
from transforms.features.event_columns import EventColumns
from transforms.features.layout import NEVER, Layout
from transforms.features.slices.reduce import (
    add,
    add_spread,
    decayed,
    distinct_counts,
    greatest,
    least,
    ranked,
    reduce_slices,
    sums,
)
from transforms.features.tiles import bin_middle, bin_of, bucket_of, hash_of, squares_of, values_of
from transforms.features.values import distinct_count, variance

Numbers = npt.NDArray[Any]


class Slices(NamedTuple):
    """Events in order (of entity, time and tie), the places of those that an aggregation counts, and slices of these
    places, each with the instant (epoch ms) as of which its value is asked."""

    events: EventColumns
    at: Numbers
    owners: Numbers  # the entity of each event, ascending
    times: Numbers  # of each event
    low: Numbers
    high: Numbers
    instants: Numbers

    @property
    def counts(self) -> Numbers:
        """The number of events of each slice."""
        return self.high - self.low


def value_of(layout: Layout, one: Aggregation, slices: Slices) -> pa.Array:
    """The value of an aggregation (no ratio) over each slice; null where no event counts."""
    return _BY_OPERATION[one.operation](layout, one, slices)


def _array(values: Any, slices: Slices) -> pa.Array:
    return pa.array(values, mask=slices.counts == 0)


def _values(one: Aggregation, slices: Slices) -> Numbers:
    return slices.events.columns[one.column][slices.at]


def _count(layout: Layout, one: Aggregation, slices: Slices) -> pa.Array:
    return _array(slices.counts, slices)


def _totals(one: Aggregation, slices: Slices) -> Numbers:
    values = _values(one, slices)
    if values.dtype.kind == "i":
        return sums(values, slices.low, slices.high)
    return reduce_slices((values,), slices.low, slices.high, add, (0.0,))[0]


def _sum(layout: Layout, one: Aggregation, slices: Slices) -> pa.Array:
    return _array(_totals(one, slices), slices)


def _mean(layout: Layout, one: Aggregation, slices: Slices) -> pa.Array:
    return _array(_totals(one, slices) / np.maximum(slices.counts, 1), slices)


def _variance(layout: Layout, one: Aggregation, slices: Slices) -> pa.Array:
    values = _values(one, slices)
    if layout.is_float(one):
        fields = (np.ones(len(values)), values, np.zeros(len(values)))
        counts, _, spread = reduce_slices(fields, slices.low, slices.high, add_spread, (0.0, 0.0, 0.0))
        return _array(spread / np.maximum(counts, 1), slices)
    totals = (sums(part, slices.low, slices.high) for part in (values, *squares_of(values)))
    columns = (column.tolist() for column in (slices.counts, *totals))
    return pa.array([variance(*row) for row in zip(*columns, strict=True)], pa.float64())


def _extreme(layout: Layout, one: Aggregation, slices: Slices) -> pa.Array:
    values = _values(one, slices)
    limits = np.finfo(values.dtype) if values.dtype.kind == "f" else np.iinfo(values.dtype)
    merge, zero = (least, limits.max) if one.operation == "min" else (greatest, limits.min)
    return _array(reduce_slices((values,), slices.low, slices.high, merge, (zero,))[0], slices)


def _decayed_sum(layout: Layout, one: Aggregation, slices: Slices) -> pa.Array:
    half_life = duration_ms(one.half_life)
    fields = (slices.times[slices.at], _values(one, slices).astype(np.float64))
    times, totals = reduce_slices(fields, slices.low, slices.high, decayed(half_life), (NEVER, 0.0))
    return _array(totals * np.exp2((times - slices.instants) / half_life), slices)


def _read(layout: Layout, one: Aggregation, slices: Slices, places: Numbers) -> pa.Array:
    """The column's values at these places among those that count."""
    column, at = slices.events.columns[one.column], slices.at[places]
    if isinstance(column, np.ndarray):
        return pa.array(column[at])
    cut = values_of(EventColumns(at, at, {one.column: column.take(pa.array(at))}, {}), one)
    return pa.array([text.decode("utf-8", "ignore") for text in cut.tolist()], pa.string())


def _edge(layout: Layout, one: Aggregation, slices: Slices) -> pa.Array:
    some = np.flatnonzero(slices.counts)
    read = _read(layout, one, slices, slices.low[some] if one.operation == "first" else slices.high[some] - 1)
    places = np.full(len(slices.low), -1)
    places[some] = np.arange(len(some))
    return read.take(pa.array(places, mask=places < 0))


def _last_k(layout: Layout, one: Aggregation, slices: Slices) -> pa.Array:
    counts = np.minimum(slices.counts, one.k)
    ends = np.cumsum(counts)
    back = np.arange(counts.sum()) - np.repeat(ends - counts, counts)
    return _lists(_read(layout, one, slices, np.repeat(slices.high, counts) - 1 - back), ends, slices)


def _lists(values: pa.Array, ends: Numbers, slices: Slices) -> pa.Array:
    """The lists of values that end at these places; null where no event counts."""
    offsets = pa.array(np.append(0, ends).astype(np.int32))
    return pa.ListArray.from_arrays(offsets, values, mask=pa.array(slices.counts == 0))


def _distinct(layout: Layout, one: Aggregation, slices: Slices) -> pa.Array:
    column = slices.events.columns[one.column]
    codes = _encoded(column[slices.at] if isinstance(column, np.ndarray) else column.take(pa.array(slices.at)))[1]
    found = distinct_counts(slices.owners[slices.at], codes, slices.low, slices.high)
    for number in np.flatnonzero(found >= EXACT_DISTINCT).tolist() if not one.exact else ():
        at = slices.at[slices.low[number] : slices.high[number]]
        found[number] = distinct_count(np.unique(hash_of(column, at)))
    return _array(found, slices)


def _encoded(values: Any) -> tuple[pa.Array, Numbers]:
    """(the different values, the place of each among them)"""
    floating = isinstance(values, np.ndarray) and values.dtype.kind == "f"
    encoded = pa.array(values + 0.0 if floating else values).dictionary_encode()  # -0.0 becomes 0.0
    return encoded.dictionary, encoded.indices.to_numpy().astype(np.int64)


def _count_by(layout: Layout, one: Aggregation, slices: Slices) -> pa.Array:
    buckets, size = bucket_of(slices.events, one)[slices.at], len(one.values) + 1
    counts = np.stack([sums(buckets == bucket, slices.low, slices.high) for bucket in range(size)], axis=1)
    return _lists(pa.array(counts.ravel()), np.arange(1, len(counts) + 1) * size, slices)


def _quantiles(layout: Layout, one: Aggregation, slices: Slices) -> pa.Array:
    different, places = _encoded(bin_of(_values(one, slices)))
    bins, ranks = np.unique(different.to_numpy(), return_inverse=True)
    found = ranked(ranks[places], slices.low, slices.high, one.quantiles)
    middles = bin_middle(bins)[found] if len(bins) else np.zeros(found.shape)
    return _lists(pa.array(middles.ravel()), np.arange(1, len(found) + 1) * len(one.quantiles), slices)


_BY_OPERATION: dict[str, Callable[[Layout, Aggregation, Slices], pa.Array]] = {
    "count": _count,
    "sum": _sum,
    "mean": _mean,
    "variance": _variance,
    "min": _extreme,
    "max": _extreme,
    "decayed_sum": _decayed_sum,
    "first": _edge,
    "last": _edge,
    "last_k": _last_k,
    "distinct": _distinct,
    "count_by": _count_by,
    "quantiles": _quantiles,
}
