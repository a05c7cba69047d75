"""EventColumns: the events of one partition as columns, and the conditions over them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from schemas.features.declarations import Where

Numbers = npt.NDArray[Any]
Mask = npt.NDArray[np.bool_]
SEPARATOR = "\x1f"


class EventColumns(NamedTuple):
    """Events in the order of their positions. `ties` are 63 bits of each event's id: they decide between events of one
    time. A column is an array of int64 or float64, of which `present` says which are not null, or an Arrow array of
    text with nulls."""

    positions: Numbers
    ties: Numbers
    columns: Mapping[str, Any]
    present: Mapping[str, Mask]

    def __len__(self) -> int:
        return len(self.positions)

    def take(self, chosen: Mask) -> EventColumns:
        """The events for which `chosen` is true."""
        if chosen.all():
            return self
        columns = {
            name: column[chosen] if isinstance(column, np.ndarray) else column.filter(pa.array(chosen))
            for name, column in self.columns.items()
        }
        present = {name: mask[chosen] for name, mask in self.present.items()}
        return EventColumns(self.positions[chosen], self.ties[chosen], columns, present)

    def has(self, name: str) -> Mask:
        """Where a column is not null."""
        if name in self.present:
            return self.present[name]
        column = self.columns[name]
        if isinstance(column, np.ndarray):
            return np.ones(len(self), bool)
        return column.is_valid().to_numpy(zero_copy_only=False)

    def counts(self, name: str) -> Mask:
        """Where a column has a value that features count: no null, no NaN, no infinity."""
        column = self.columns[name]
        return self.has(name) & np.isfinite(column) if getattr(column, "dtype", None) == np.float64 else self.has(name)


def matches(events: EventColumns, conditions: tuple[Where, ...]) -> Mask:
    """Where all conditions hold. A null (also NaN, an infinity) satisfies `is_null` alone."""
    chosen = np.ones(len(events), bool)
    for where in conditions:
        chosen &= _matches(events, where)
    return chosen


COMPARED: dict[str, Callable[[Any, Any], Any]] = {
    "==": pc.equal,
    "!=": pc.not_equal,
    "<": pc.less,
    "<=": pc.less_equal,
    ">": pc.greater,
    ">=": pc.greater_equal,
}


def _matches(events: EventColumns, where: Where) -> Mask:
    present = events.counts(where.column)
    if where.comparison in ("is_null", "not_null"):
        return present if where.comparison == "not_null" else ~present
    column = pa.array(events.columns[where.column])
    if where.comparison == "in":
        result = pc.is_in(column, value_set=pa.array(where.value).cast(column.type))
    else:
        result = COMPARED[where.comparison](column, pa.scalar(where.value).cast(column.type))
    return present & result.fill_null(False).to_numpy(zero_copy_only=False)


def entities(events: EventColumns, key: tuple[str, ...]) -> tuple[list[str], Numbers]:
    """(the different entities, the place in them of each event's); -1 for an event with a null in its key."""
    columns = [_nullable(events, name) for name in key]
    if len(columns) == 1:
        encoded = columns[0].dictionary_encode()  # then only the different ones become text
    else:
        texts = [column.cast(pa.string()) for column in columns]
        encoded = pc.binary_join_element_wise(*texts, SEPARATOR).dictionary_encode()
    places = encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
    return encoded.dictionary.cast(pa.string()).to_pylist(), places


def _nullable(events: EventColumns, name: str) -> pa.Array:
    column = events.columns[name]
    if isinstance(column, np.ndarray):
        mask = ~events.has(name)
        return pa.array(column, mask=mask if mask.any() else None)
    return column


def concatenate(parts: Sequence[EventColumns]) -> EventColumns:
    """The events of several lists, which have the same columns; there is at least one list."""
    columns: dict[str, Any] = {}
    for name, first in parts[0].columns.items():
        pieces = [part.columns[name] for part in parts]
        columns[name] = np.concatenate(pieces) if isinstance(first, np.ndarray) else pa.concat_arrays(pieces)
    masked = dict.fromkeys(name for part in parts for name in part.present)
    present = {name: np.concatenate([part.has(name) for part in parts]) for name in masked}
    positions, ties = (np.concatenate([getattr(part, name) for part in parts]) for name in ("positions", "ties"))
    return EventColumns(positions, ties, columns, present)
