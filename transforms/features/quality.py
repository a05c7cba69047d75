"""The quality rules of an event type over columns of events: which events break which rule."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache, partial
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from schemas.events.event_types import EventType
from schemas.events.rules import Compare, Future, Lateness, NotNull, OneOf, Pattern, Range, Reference
from schemas.features.windows import duration_ms
from schemas.problems import shown
from transforms.features.event_columns import COMPARED, EventColumns, Mask, Numbers

LONGEST_ID = 256  # bytes of an event_id
_LAST_MS = 253_402_300_799_999  # the end of the year 9999
_NUMBERS_COMPARED: dict[str, Callable[[Any, Any], Any]] = {
    "==": np.equal,
    "!=": np.not_equal,
    "<": np.less,
    "<=": np.less_equal,
    ">": np.greater,
    ">=": np.greater_equal,
}


class Check(NamedTuple):
    """A rule of a type: what the value in a column must be, and which events break it at a time (epoch ms)."""

    rule: str
    severity: str
    column: str
    requires: str
    broken_by: Callable[[EventColumns, int], Mask]

    def reason(self, events: EventColumns, place: int) -> str:
        """Why the event in that place is rejected."""
        column = events.columns[self.column]
        null = self.column in events.present and not events.present[self.column][place]
        value = None if null else column[place].item() if isinstance(column, np.ndarray) else column[place].as_py()
        return f"{self.column} = {shown(repr(value), 120)} {self.requires}"


@lru_cache(maxsize=1_000)
def checks_of(event_type: EventType) -> tuple[Check, ...]:
    """The rules that every type has, then those that this one declares, in order."""
    return (*_of_every_type(event_type), *_declared(event_type))


def _of_every_type(event_type: EventType) -> Iterator[Check]:
    yield _always("event_id", "event_id", f"must have 1 to {LONGEST_ID} bytes", _bad_id)
    yield _always("type", "type", f"must be {event_type.name}", partial(_other_type, event_type.name))
    of_rules = [rule.column for rule in event_type.rules if isinstance(rule, Future | Lateness)]
    for column in dict.fromkeys((event_type.time, "occurred_at", "published_at", *of_rules)):
        yield _always(
            "time", column, "must be a time from 1970 to 9999, in epoch milliseconds", partial(_no_time, column)
        )
    for column, kind in event_type.columns.items():
        if kind == "double":
            yield _always("finite", column, "must be a finite number", partial(_not_finite, column))
    for column in event_type.key:
        yield _always("key", column, "must not be empty: it names the entity", partial(_no_key, column))


def _always(rule: str, column: str, requires: str, breaks: Callable[[EventColumns], Mask]) -> Check:
    return Check(rule, "quarantine", column, requires, lambda events, now_ms: breaks(events))


def _bad_id(events: EventColumns) -> Mask:
    length = _lengths(events.columns["event_id"])
    return (length == 0) | (length > LONGEST_ID)


def _other_type(name: str, events: EventColumns) -> Mask:
    return _mask(pc.not_equal(events.columns["type"], name))


def _no_time(column: str, events: EventColumns) -> Mask:
    time = events.columns[column]
    return events.has(column) & ((time < 0) | (time > _LAST_MS))


def _not_finite(column: str, events: EventColumns) -> Mask:
    return ~np.isfinite(events.columns[column])


def _no_key(column: str, events: EventColumns) -> Mask:
    values = events.columns[column]
    return ~events.has(column) if isinstance(values, np.ndarray) else _lengths(values) == 0


def _lengths(texts: pa.Array) -> Numbers:
    return pc.binary_length(texts).fill_null(0).to_numpy(zero_copy_only=False)


def _mask(values: pa.Array) -> Mask:
    return values.fill_null(False).to_numpy(zero_copy_only=False)


def _declared(event_type: EventType) -> Iterator[Check]:
    for rule in event_type.rules:
        breaks = partial(_BREAKS[type(rule)], rule, event_type)
        yield Check(rule.name, rule.severity, rule.column, rule.requires(), breaks)


def _range(rule: Range, _: EventType, events: EventColumns, now_ms: int) -> Mask:
    values = events.columns[rule.column]
    wrong = np.zeros(len(events), bool)
    if rule.least is not None:
        wrong |= values < rule.least
    if rule.most is not None:
        wrong |= values > rule.most
    return wrong & events.has(rule.column)


def _set(rule: OneOf, _: EventType, events: EventColumns, now_ms: int) -> Mask:
    return _outside(events, rule.column, rule.values)


def _reference(rule: Reference, event_type: EventType, events: EventColumns, now_ms: int) -> Mask:
    return _outside(events, rule.column, event_type.lists[rule.file])


def _outside(events: EventColumns, column: str, values: tuple[Any, ...]) -> Mask:
    given = events.columns[column]
    if isinstance(given, np.ndarray):
        return ~np.isin(given, values) & events.has(column)
    return ~_mask(pc.is_in(given, value_set=pa.array(values, given.type))) & events.has(column)


def _regex(rule: Pattern, _: EventType, events: EventColumns, now_ms: int) -> Mask:
    matched = pc.match_substring_regex(events.columns[rule.column], rf"\A(?:{rule.pattern})\z")
    return _mask(pc.invert(matched))


def _not_null(rule: NotNull, _: EventType, events: EventColumns, now_ms: int) -> Mask:
    return ~events.has(rule.column)


def _lateness(rule: Lateness, _: EventType, events: EventColumns, now_ms: int) -> Mask:
    late = events.columns["published_at"] - events.columns[rule.column] > duration_ms(rule.most)
    return late & events.has(rule.column)


def _future(rule: Future, _: EventType, events: EventColumns, now_ms: int) -> Mask:
    return (events.columns[rule.column] > now_ms + duration_ms(rule.most)) & events.has(rule.column)


def _compare(rule: Compare, _: EventType, events: EventColumns, now_ms: int) -> Mask:
    one, other = (events.columns[name] for name in (rule.column, rule.other))
    if isinstance(one, np.ndarray):
        holds = _NUMBERS_COMPARED[rule.comparison](one, other)
    else:
        holds = _mask(COMPARED[rule.comparison](one, other))
    return ~holds & events.has(rule.column) & events.has(rule.other)


_BREAKS: dict[type, Callable[[Any, EventType, EventColumns, int], Mask]] = {
    Range: _range,
    OneOf: _set,
    Reference: _reference,
    Pattern: _regex,
    NotNull: _not_null,
    Lateness: _lateness,
    Future: _future,
    Compare: _compare,
}
