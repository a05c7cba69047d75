"""FoldEvents: the events of a type, partition by partition, folded into the rows of its feature groups."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from threading import Lock
from typing import Any, NamedTuple, Protocol

import apache_beam as beam
import numpy as np
from apache_beam.utils.shared import Shared

from schemas.features.stamps import FIRST, Stamp
from schemas.transport import Envelope, partition_of, position_of
from transforms.features.counters import COUNTERS, FRESHNESS
from transforms.features.event_columns import EventColumns
from transforms.features.layout import Layout
from transforms.features.recent_ids import REMEMBERED, RecentIds
from transforms.features.rows import update_rows
from transforms.features.tiles import select
from transforms.streaming.elements import Envelopes
from transforms.streaming.engine_traits import Clock


class Scanned(Protocol):
    """Events as columns, their ids and publish times (epoch ms), and those that are refused."""

    @property
    def events(self) -> EventColumns: ...
    @property
    def event_ids(self) -> list[str]: ...
    @property
    def published(self) -> Any: ...
    @property
    def rejected(self) -> Sequence[Any]: ...


class Rows(Protocol):
    """What the step needs of a feature store (stores/features/protocol.py)."""

    def rows(self, group: str, partition: int, entities: Sequence[str]) -> list[bytes | None]: ...
    def write(self, group: str, partition: int, rows: Mapping[str, bytes]) -> int: ...
    def positions(self, group: str) -> dict[int, Stamp]: ...
    def advance(self, group: str, partition: int, stamp: Stamp) -> None: ...


Scan = Callable[[list[Envelope], int], Scanned]
ReadRange = Callable[[int, int, int], Iterator[list[Envelope]]]
"""The envelopes of a partition, from a position on and before another, in lists; without those that are gone."""


class Folding(NamedTuple):
    """What the step works with: the layouts of a type's groups, its scan, and how a process opens the store and reads
    the log again."""

    layouts: list[Layout]
    scan: Scan
    open_rows: Callable[[], Rows]
    read_range: ReadRange
    remembered: int = REMEMBERED


class PartitionFold:
    """Folds one partition in order. Whatever comes again is skipped; whatever is missing between is read again."""

    def __init__(self, folding: Folding, rows: Rows, partition: int, clock: Clock) -> None:
        self._folding, self._rows, self._partition, self._clock = folding, rows, partition, clock
        self._ids: RecentIds | None = None
        self._folded: dict[str, Stamp] = {}  # by group, once it has caught up
        self._count = {name: COUNTERS.counter(name) for name in COUNTERS.names}
        self._freshness = beam.metrics.Metrics.distribution(COUNTERS.namespace, FRESHNESS)

    def fold(self, envelopes: list[Envelope]) -> None:
        """Folds envelopes in order of their positions."""
        first = position_of(envelopes[0])
        if self._ids is None or first > self._ids.position:
            self._ids = self._catch_up(first)
        known = self._ids.position
        self._count["already_folded"].inc(sum(position_of(envelope) < known for envelope in envelopes))
        envelopes = [envelope for envelope in envelopes if position_of(envelope) >= known]
        if envelopes:
            self._fold(envelopes, self._ids)

    def _noted(self) -> dict[str, Stamp]:
        return {
            layout.group.id: self._rows.positions(layout.group.id).get(self._partition, FIRST)
            for layout in self._folding.layouts
        }

    def _catch_up(self, first: int) -> RecentIds:
        """The ids before a position, read again. Folds the events there that some group has not folded in yet."""
        self._folded = self._noted()
        start = min([first, *(stamp.position for stamp in self._folded.values())])
        before = max(0, start - self._folding.remembered)
        ids = RecentIds(before, self._folding.remembered)
        for envelopes in self._folding.read_range(self._partition, before, first):
            self._fold(envelopes, ids)
        ids.position = max(ids.position, first)
        return ids

    def _fold(self, envelopes: list[Envelope], ids: RecentIds) -> None:
        now = int(self._clock() * 1000)
        end = position_of(envelopes[-1]) + 1
        scanned = self._folding.scan(envelopes, now)
        events = scanned.events
        new = np.array(ids.first_seen(events.positions.tolist(), scanned.event_ids), bool)
        ids.position = max(ids.position, end)
        behind = [layout for layout in self._folding.layouts if self._folded[layout.group.id].position < end]
        if not behind:
            return
        self._count["read"].inc(len(envelopes))
        self._count["rejected"].inc(len(scanned.rejected))
        self._count["repeats"].inc(len(new) - int(np.count_nonzero(new)))
        for layout in behind:
            self._fold_group(layout, events, new, end, now)
        if len(scanned.published):
            readable = int(self._clock() * 1000)
            self._freshness.update(max(0, readable - int(scanned.published.min())))

    def _fold_group(self, layout: Layout, events: EventColumns, new: Any, end: int, now: int) -> None:
        group, stamp = layout.group.id, self._folded[layout.group.id]
        selected = select(layout, events.take(new & (events.positions >= stamp.position)), now)
        rows = self._rows.rows(group, self._partition, selected.entities)
        updated = update_rows(layout, selected, rows, end, now, epoch=stamp.epoch)
        self._count["rows_written"].inc(self._rows.write(group, self._partition, updated) if updated else 0)
        self._folded[group] = Stamp(stamp.epoch, end)
        self._rows.advance(group, self._partition, self._folded[group])
        self._count["folded"].inc(len(selected.events))
        self._count["filtered"].inc(selected.filtered)
        self._count["unkeyed"].inc(selected.unkeyed)
        self._count["late"].inc(len(selected.late))
        self._count["oversized"].inc(len(selected.oversized))


class _Folds:
    """The folds of a process: one a partition, each with a lock."""

    def __init__(self) -> None:
        self.lock = Lock()
        self.folds: dict[int, tuple[Lock, PartitionFold]] = {}
        self.rows: Rows | None = None


class Fold:
    """Folds the events of a type in this process: `open()` gives the function that takes envelopes in order, of one
    partition or several. Sent to workers by pickle."""

    def __init__(self, folding: Folding, clock: Clock) -> None:
        self._folding, self._clock, self._shared = folding, clock, Shared()

    def open(self) -> Callable[[list[Envelope]], None]:
        """The function; all of a process share its folds."""
        self._folds: _Folds = self._shared.acquire(_Folds)
        return self._take

    def _take(self, envelopes: list[Envelope]) -> None:
        by_partition: dict[int, list[Envelope]] = defaultdict(list)
        for envelope in envelopes:
            by_partition[partition_of(envelope)].append(envelope)
        for partition, own in by_partition.items():
            self._fold(partition, own)

    def _fold(self, partition: int, envelopes: list[Envelope]) -> None:
        with self._folds.lock:
            if self._folds.rows is None:
                self._folds.rows = self._folding.open_rows()
            if partition not in self._folds.folds:
                fold = PartitionFold(self._folding, self._folds.rows, partition, self._clock)
                self._folds.folds[partition] = Lock(), fold
            lock, fold = self._folds.folds[partition]
        with lock:
            try:
                fold.fold(envelopes)
            except BaseException:  # what it remembers may be half of a poll
                self._folds.folds.pop(partition, None)
                raise


class _FoldElements(beam.DoFn):
    def __init__(self, fold: Fold) -> None:
        self._fold = fold

    def setup(self) -> None:
        self._take = self._fold.open()

    def process(self, element: Envelopes) -> None:
        self._take(element.items)


class FoldEvents(beam.PTransform):
    """Folds envelopes of one type into the rows of its groups; gives nothing. An element holds envelopes in order, of
    one partition or several. A bundle that fails may run again: rows tell what is in them. Counts all of COUNTERS.
    Steps: Fold."""

    def __init__(self, fold: Fold) -> None:
        super().__init__()
        self._fold = fold

    def expand(self, envelopes: beam.PCollection[Envelopes]) -> beam.PCollection[None]:
        return envelopes | "Fold" >> beam.ParDo(_FoldElements(self._fold)).with_output_types(None)
