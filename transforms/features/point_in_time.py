"""The value of every feature of a group for many (entity, instant) rows, from columns of events: training sets.

Correct to the millisecond: an event counts for a row if window_start(window, instant, exact) <= its time < instant. So
an event at the instant itself does not count. Events of one time are ordered by their tie. A null, NaN or infinity is
no value. Nothing else decides: not the order of the events, nor when they came.

The events are sorted once, by entity, time and tie, so a row's window is a slice of them. Counts and sums of whole
numbers are differences of prefix sums, everything that merges is read from a tree over the events
(transforms/features/slices/reduce.py), first, last and last_k stand at the ends of the slice.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from schemas.features.declarations import FeatureGroup, Where
from schemas.features.windows import DAY
from transforms.features.event_columns import EventColumns, entities, matches
from transforms.features.layout import Layout
from transforms.features.slices.values import Slices, value_of
from transforms.features.tiles import too_large
from transforms.features.values import window_start

Numbers = npt.NDArray[Any]


class Rows(NamedTuple):
    """What is asked: entities as `event_columns.entities` writes them, and an instant (epoch ms) of each."""

    entities: Sequence[str]
    times: Numbers


class _Index(NamedTuple):
    """Chosen events in order: their places among the given ones, and what finds a row's slice of them."""

    at: Numbers
    keys: Numbers  # ascending: the entity's number, then the time
    bases: Numbers  # the key of each row's entity at time 0
    first: int  # no event is earlier
    span: int  # keys of one entity are in one multiple of it

    def places(self, times: Numbers) -> Numbers:
        """The place of the first event of each row's entity that is not before the row's time."""
        return np.searchsorted(self.keys, self.bases + np.maximum(times, self.first))


def values_as_of(layout: Layout, events: EventColumns, rows: Rows) -> dict[str, pa.Array]:
    """The value of each feature for each row, by the name of the feature: int64, float64, text, or lists of them.

    A row without an event in the window has the declared default. Events that the group does not select or whose
    numbers are too large for it (Layout.limits) do not count. Raises OverflowError where a sum leaves 64 bits.
    """
    defaults = {name: one.default for name, one, _ in layout.group.features}
    return {name: filled(values, defaults[name]) for name, values in known_as_of(layout, events, rows).items()}


def known_as_of(layout: Layout, events: EventColumns, rows: Rows) -> dict[str, pa.Array]:
    """As `values_as_of`, with null where the default stands."""
    group, count = layout.group, len(rows.times)
    chosen = matches(events, group.where) & events.has(group.time) & ~too_large(layout, events)
    longest = max((window for _, _, window in group.features), default=0) + DAY
    index = _index(events, chosen, group.key, group.time, rows, longest)
    own = _taken(group, events, index.at)
    ends = index.places(rows.times)

    @cache
    def start(window: int, exact: bool) -> Numbers:
        return index.places(window_start(window, rows.times, exact))

    conditions: dict[tuple[tuple[Where, ...], str], tuple[Numbers, Numbers]] = {}
    found: dict[str, pa.Array] = {}
    for one in group.aggregations:
        if one.operation == "ratio":
            continue
        if (one.where, one.column) not in conditions:
            counted = matches(own, one.where)
            if one.column:
                counted &= own.counts(one.column)
            before = np.zeros(len(own) + 1, np.int64)
            np.cumsum(counted, out=before[1:])
            conditions[one.where, one.column] = (np.flatnonzero(counted), before)
        at, before = conditions[one.where, one.column]
        named = [(name, window) for name, each, window in group.features if each is one]
        starts = [start(window, one.exact) for _, window in named]
        low, high = before[np.concatenate(starts)], before[np.tile(ends, len(named))]
        slices = Slices(
            own, at, index.keys // index.span, own.columns[group.time], low, high, np.tile(rows.times, len(named))
        )
        values = value_of(layout, one, slices)
        for number, (name, _) in enumerate(named):
            found[name] = values.slice(number * count, count)
    for one in group.aggregations:
        for text in one.windows if one.operation == "ratio" else ():
            upper, lower = (found[group.titled(title).feature(text)] for title in one.of)
            found[one.feature(text)] = _quotients(upper, lower)
    return {name: found[name] for name, _, _ in group.features}


def last_as_of(changes: EventColumns, key: tuple[str, ...], time: str, rows: Rows) -> Numbers:
    """The place in `changes` of the last change of each row's entity before its instant; -1 where there is none.

    `changes` are the rows of a changing table: `time` is the column that says since when (epoch ms) one holds. The same
    rules as for events: a change at the instant itself does not hold yet, and of one time the greatest tie is last.
    """
    index = _index(changes, changes.has(time), key, time, rows, 1 << 61)
    ends, firsts = index.places(rows.times), index.places(np.full(len(rows.times), index.first))
    return np.where(ends > firsts, np.append(index.at, -1)[ends - 1], -1)


def _taken(group: FeatureGroup, events: EventColumns, at: Numbers) -> EventColumns:
    """The events at these places, with the columns that aggregations read."""
    names = dict.fromkeys([group.time, *(one.column for one in group.aggregations if one.column)])
    names |= dict.fromkeys(where.column for one in group.aggregations for where in one.where)
    columns = {
        name: column[at] if isinstance(column, np.ndarray) else column.take(pa.array(at))
        for name, column in events.columns.items()
        if name in names
    }
    present = {name: mask[at] for name, mask in events.present.items() if name in names}
    return EventColumns(events.positions[at], events.ties[at], columns, present)


def _index(events: EventColumns, chosen: Numbers, key: tuple[str, ...], time: str, rows: Rows, longest: int) -> _Index:
    """The chosen events of the rows' entities, from `longest` ms before the first row to the last row."""
    asked = pa.array(rows.entities, pa.string()).dictionary_encode()
    names, places = entities(events, key)
    numbers = pc.index_in(pa.array(names, pa.string()), asked.dictionary).fill_null(-1).to_numpy(zero_copy_only=False)
    owners, times = np.append(numbers, -1)[places].astype(np.int64), events.columns[time]
    earliest, latest = (int(rows.times.min()), int(rows.times.max())) if len(rows.times) else (0, 0)
    at = np.flatnonzero(chosen & (owners >= 0) & (times >= earliest - longest) & (times < latest))
    first = min(earliest, int(times[at].min())) if len(at) else earliest
    span = latest - first + 1
    if span * (len(asked.dictionary) + 1) >= 1 << 62:
        raise ValueError(f"{span} ms of {len(asked.dictionary)} entities are too much for one set; ask for fewer rows")
    keys = owners[at] * span + (times[at] - first)
    order = _order(keys, events.ties[at])
    bases = asked.indices.to_numpy(zero_copy_only=False).astype(np.int64) * span - first
    return _Index(at[order], keys[order], bases, first, span)


def _order(keys: Numbers, ties: Numbers) -> Numbers:
    """The order by key, then by tie. One sort by the key and as many bits of the tie as fit beside it in 63 does nearly
    all; what is equal by these is sorted again."""
    room = 63 - int(keys.max()).bit_length() if len(keys) else 0
    packed = keys << room | ties >> (63 - room)
    order = np.argsort(packed)
    packed = packed[order]
    same = packed[1:] == packed[:-1]
    if same.any():
        places = np.flatnonzero(np.append(same, False) | np.append(False, same))
        some = order[places]
        order[places] = some[np.lexsort((ties[some], packed[places]))]
    return order


def filled(values: pa.Array, default: Any) -> pa.Array:
    """The values, with the default for null."""
    if default is None or not values.null_count:
        return values
    return pc.if_else(values.is_valid(), values, pa.scalar(default, values.type))


def _quotients(upper: pa.Array, lower: pa.Array) -> pa.Array:
    """Nothing where the lower one is nothing or zero; nothing divided counts as zero."""
    above, below = (pc.cast(side, pa.float64(), safe=False) for side in (pc.fill_null(upper, 0), lower))
    return pc.divide(above, pc.if_else(pc.equal(below, 0.0), pa.scalar(None, pa.float64()), below))
