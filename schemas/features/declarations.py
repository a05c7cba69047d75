"""FeatureGroup: what a team declares once, and what the stream, the backfill, training sets and reads all follow."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from schemas.features.windows import HOPS, duration_ms, hop_of, window_ms

NUMERIC = frozenset({"sum", "mean", "variance", "min", "max", "decayed_sum", "quantiles"})
VALUED = NUMERIC | {"first", "last", "last_k", "distinct", "count_by"}  # operations that need a column
OPERATIONS = VALUED | {"count", "ratio"}
COMPARISONS = frozenset({"==", "!=", "<", "<=", ">", ">=", "in", "is_null", "not_null"})
EXACT_DISTINCT = 1_024  # distinct counts are exact up to here, then estimated within 3 % (one standard error)
MOST_LAST = 100
_NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")


@dataclass(frozen=True)
class Where:
    """A condition on one column of an event; a null satisfies `is_null` alone. `value` of `in` is a tuple."""

    column: str
    comparison: str
    value: Any = None


@dataclass(frozen=True)
class Aggregation:
    """One operation over a column, in one or several windows; each is a feature, `NAME_WINDOW`.

    `where` limits it to some events. `default` is the value of an entity without such an event. `exact` windows begin
    at the millisecond; others at the start of the tile that holds it (sawtooth). By operation:
    `last_k` keeps `k` values; `count_by` counts `values`, and all others together; `quantiles` gives the `quantiles`
    within 1 %; `decayed_sum` halves an event's weight every `half_life`; `ratio` divides two aggregations of the group
    by name. Text of `first`, `last` and `last_k` is cut after `width` bytes.
    """

    operation: str
    column: str = ""
    windows: tuple[str, ...] = ()
    where: tuple[Where, ...] = ()
    name: str = ""
    default: Any = None
    exact: bool = False
    k: int = 0
    values: tuple[Any, ...] = ()
    quantiles: tuple[float, ...] = ()
    half_life: str = ""
    of: tuple[str, str] = ("", "")
    width: int = 32

    @property
    def title(self) -> str:
        """The name of its features, without the window."""
        return self.name or "_".join(part for part in (self.column, self.operation) if part)

    def feature(self, window: str) -> str:
        """The name of its feature over a window."""
        return f"{self.title}_{window}"


@dataclass(frozen=True)
class FeatureGroup:
    """Features of one kind of entity from one type of event.

    `key` are the columns that name the entity. `time` is the column (epoch ms) that places an event in its window: with
    the time at which a label became known it is a window over known labels. Events that come more than `lateness` late
    for the longest window are counted and left to the compaction. Values older than `max_age` are stale.
    """

    name: str
    version: int
    source: str
    key: tuple[str, ...]
    aggregations: tuple[Aggregation, ...]
    owner: str
    where: tuple[Where, ...] = ()
    time: str = "occurred_at"
    max_age: str = "1d"
    lateness: str = "1d"
    description: str = ""
    consumers: tuple[str, ...] = field(default=())

    @property
    def id(self) -> str:
        """Its name and version, as stores and lineage write them."""
        return f"{self.name}@{self.version}"

    def titled(self, title: str) -> Aggregation:
        """The aggregation with a title. Raises KeyError."""
        return {one.title: one for one in self.aggregations}[title]

    @cached_property
    def features(self) -> tuple[tuple[str, Aggregation, int], ...]:
        """(name, aggregation, window in ms) of each feature, as declared."""
        pairs = [(one, text) for one in self.aggregations for text in one.windows]
        return tuple((one.feature(text), one, window_ms(text)) for one, text in pairs)

    @cached_property
    def retention_ms(self) -> dict[int, int]:
        """How long the tiles of each hop (its place in HOPS) are kept: the longest window over them, the tile in
        which it begins, and lateness."""
        kept: dict[int, int] = {}
        for _, _, window in self.features:
            hop = hop_of(window)
            kept[hop] = max(kept.get(hop, 0), window + HOPS[hop] + duration_ms(self.lateness))
        return kept

    @cached_property
    def columns(self) -> tuple[str, ...]:
        """The columns that the group reads, in order, each once."""
        conditions = [*self.where, *(where for one in self.aggregations for where in one.where)]
        names = [*self.key, self.time, *(where.column for where in conditions)]
        return tuple(dict.fromkeys([*names, *(one.column for one in self.aggregations if one.column)]))

    def mistakes(self, types: dict[str, str]) -> list[tuple[str, Any, str]]:
        """(place, value, remedy) of what is wrong. `types` are the columns of the source: long, double, boolean or
        string by name."""
        wrong: list[tuple[str, Any, str]] = []
        if not _NAME.fullmatch(self.name):
            wrong.append(("name", self.name, "a name is a lower-case letter, then letters, digits and _, at most 63"))
        if self.version < 1:
            wrong.append(("version", self.version, "a version is a whole number from 1"))
        for place, text in (("max_age", self.max_age), ("lateness", self.lateness)):
            try:
                duration_ms(text)
            except ValueError as error:
                wrong.append((place, text, str(error)))
        known = ", ".join(sorted(types))
        for place, column in [*(("key", column) for column in self.key), ("time", self.time)]:
            if column not in types:
                wrong.append((place, column, f"{self.source} has no such column; it has {known}"))
        if types.get(self.time, "long") != "long":
            wrong.append(("time", self.time, "the time of an event is a long: milliseconds since 1970"))
        if not self.key:
            wrong.append(("key", (), "name the columns that say whose features these are"))
        wrong += [(f"where.{place}", *rest) for place, *rest in _where_mistakes(self.where, types)]
        titles = [one.title for one in self.aggregations]
        windows = {one.title: {*one.windows} for one in self.aggregations if one.operation != "ratio"}
        for number, one in enumerate(self.aggregations):
            place = f"aggregations[{number}]"
            if titles.count(one.title) > 1:
                wrong.append((f"{place}.name", one.title, "each aggregation needs a name of its own"))
            wrong += [(f"{place}.{part}", *rest) for part, *rest in _mistakes(one, types, windows)]
        return wrong


def _where_mistakes(conditions: tuple[Where, ...], types: dict[str, str]) -> list[tuple[str, Any, str]]:
    wrong: list[tuple[str, Any, str]] = []
    for where in conditions:
        if where.column not in types:
            wrong.append(("column", where.column, f"the source has {', '.join(sorted(types))}"))
        if where.comparison not in COMPARISONS:
            wrong.append(("comparison", where.comparison, f"one of {', '.join(sorted(COMPARISONS))}"))
        if where.comparison == "in" and not isinstance(where.value, tuple):
            wrong.append(("value", where.value, "`in` compares with a tuple of values"))
    return wrong


def _mistakes(one: Aggregation, types: dict[str, str], windows: dict[str, set[str]]) -> list[tuple[str, Any, str]]:
    wrong = [(f"where.{place}", value, fix) for place, value, fix in _where_mistakes(one.where, types)]
    if one.operation not in OPERATIONS:
        return [*wrong, ("operation", one.operation, f"one of {', '.join(sorted(OPERATIONS))}")]
    if not _NAME.fullmatch(one.title):
        wrong.append(("name", one.title, "a name is a lower-case letter, then letters, digits and _, at most 63"))
    if not one.windows:
        wrong.append(("windows", (), "name at least one window, such as 1h or 7d"))
    for text in one.windows:
        try:
            window_ms(text)
        except ValueError as error:
            wrong.append(("windows", text, str(error)))
    if one.operation in VALUED and one.column not in types:
        wrong.append(("column", one.column, f"the source has {', '.join(sorted(types))}"))
    if one.operation in NUMERIC and types.get(one.column) == "string":
        wrong.append(("column", one.column, f"{one.operation} needs numbers, this is text"))
    if one.operation == "last_k" and not 1 <= one.k <= MOST_LAST:
        wrong.append(("k", one.k, f"last_k keeps 1 to {MOST_LAST} values"))
    if one.operation == "count_by" and not 1 <= len(set(one.values)) == len(one.values) <= 50:
        wrong.append(("values", one.values, "count_by counts 1 to 50 different values"))
    if one.operation == "quantiles" and not (one.quantiles and all(0 <= part <= 1 for part in one.quantiles)):
        wrong.append(("quantiles", one.quantiles, "name at least one quantile, from 0 to 1"))
    if one.operation == "ratio" and not all(windows.get(title, set()) >= {*one.windows} for title in one.of):
        wrong.append(("of", one.of, "the names of two aggregations of this group, no ratios, that have its windows"))
    if not 1 <= one.width <= 64:
        wrong.append(("width", one.width, "1 to 64 bytes"))
    if one.operation == "decayed_sum":
        try:
            duration_ms(one.half_life)
        except ValueError as error:
            wrong.append(("half_life", one.half_life, str(error)))
    return wrong
