"""FeatureGroup: what a team declares once, and what the stream, the backfill, training sets and reads all follow."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from schemas.features.checks import group_mistakes
from schemas.features.operations import EXACT_DISTINCT as EXACT_DISTINCT
from schemas.features.operations import TILED
from schemas.features.windows import HOPS, duration_ms, hop_of, window_ms


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

    def kind(self, types: dict[str, str]) -> tuple[str, int | None]:
        """(long, double or string; None, or the most values where it is a list): the type of its features."""
        column = {"double": "double", "string": "string"}.get(types.get(self.column, ""), "long")
        lists = {"last_k": self.k, "count_by": len(self.values) + 1, "quantiles": len(self.quantiles)}
        if self.operation in ("count", "distinct", "count_by"):
            column = "long"
        elif self.operation in ("mean", "variance", "decayed_sum", "ratio", "quantiles"):
            column = "double"
        return column, lists.get(self.operation)

    def feature(self, window: str) -> str:
        """The name of its feature over a window."""
        return f"{self.title}_{window}"


@dataclass(frozen=True)
class FeatureGroup:
    """Features of one kind of entity from one type of event.

    `key` are the columns that name the entity. `time` is the column (epoch ms) that places an event in its window: with
    the time at which a label became known it is a window over known labels. Events that come more than `lateness` late
    for the longest window are counted and left to the compaction. Values older than `max_age` are stale.

    A chained group reads another group: `source` is that group's id, and `every` the length of its tiles (1s, 1m, 5m,
    1h or 1d). Each complete tile of an entity is an event, at its last millisecond, whose columns are the values of the
    group's aggregations over that tile, by title. So the maximum over 7 days of the hourly count is `max` of `count`
    with `every` 1h. Nothing more is stored: its features are read from the other group's rows.
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
    every: str = ""
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
        return group_mistakes(self, types)

    def tile_types(self, types: dict[str, str]) -> dict[str, str]:
        """The columns of this group's tiles, as a chained group reads them; `types` are those of its source."""
        tiled = [one for one in self.aggregations if one.operation in TILED and not one.exact]
        keys = dict.fromkeys(self.key, "string")
        return {**keys, "occurred_at": "long", **{one.title: one.kind(types)[0] for one in tiled}}
