"""However a partition is delivered, by whomever, and whoever dies: its rows are what one reader of the log makes."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from schemas.features.declarations import Aggregation, FeatureGroup
from schemas.features.stamps import FIRST, Stamp, stamp_of
from schemas.transport import Envelope
from transforms.features.event_columns import EventColumns
from transforms.features.fold_events import Folding, PartitionFold
from transforms.features.layout import Layout
from transforms.features.rows import decode_rows

NOW = 1_800_000_000_000
SPANS = ("5m", "1h", "7d")
TYPES = {"household": "string", "amount": "long", "occurred_at": "long"}
GROUPS = [
    FeatureGroup(
        name,
        1,
        "order",
        ("household",),
        (
            Aggregation("count", windows=SPANS),
            Aggregation("last", "amount", SPANS),
            Aggregation("sum", "amount", SPANS),
        ),
        "me",
    )
    for name in ("a", "b")
]


class Scanned(NamedTuple):
    """What a scan gives."""

    events: EventColumns
    event_ids: list[str]
    published: Any
    rejected: list[Any]


def scan(envelopes: Sequence[Envelope], now: int) -> Scanned:
    """Events whose body is `ID HOUSEHOLD AMOUNT`; one second apart by their positions."""
    fields = [envelope.body.decode().split() for envelope in envelopes]
    positions = np.array([int(envelope.message_id.split(":")[1]) for envelope in envelopes])
    columns = {
        "household": pa.array([one[1] for one in fields]),
        "amount": np.array([int(one[2]) for one in fields]),
        "occurred_at": NOW - 1_000 * (positions % 50),
    }
    ids = [one[0] for one in fields]
    ties = np.array([int(one[1:]) for one in ids])
    return Scanned(EventColumns(positions, ties, columns, {}), ids, np.full(len(fields), NOW), [])


class Rows:
    """A feature store in memory. After `calls` more calls it fails, as when its process dies."""

    def __init__(self) -> None:
        self.kept: dict[tuple[str, str], bytes] = {}
        self.noted: dict[str, Stamp] = {}
        self.calls: int | None = None

    def _call(self) -> None:
        if self.calls is not None:
            self.calls -= 1
            if self.calls < 0:
                self.calls = None
                raise ConnectionError("killed")

    def rows(self, group: str, partition: int, entities: Sequence[str]) -> list[bytes | None]:
        self._call()
        return [self.kept.get((group, entity)) for entity in entities]

    def write(self, group: str, partition: int, rows: Mapping[str, bytes]) -> int:
        for entity, row in rows.items():
            self._call()  # a batch may be written in part
            if stamp_of(row) > stamp_of(self.kept.get((group, entity))):
                self.kept[group, entity] = row
        return len(rows)

    def positions(self, group: str) -> dict[int, Stamp]:
        return {0: self.noted[group]} if group in self.noted else {}

    def advance(self, group: str, partition: int, stamp: Stamp) -> None:
        self._call()
        self.noted[group] = max(stamp, self.noted.get(group, FIRST))


class Deliveries(RuleBasedStateMachine):
    """A log that grows, and two workers that read it: anew, again, late, and dying in the middle."""

    def __init__(self) -> None:
        super().__init__()
        self.log: list[Envelope] = []
        self.store = Rows()
        self.random = random.Random(1)
        self.workers = [self._worker(), self._worker()]

    def _worker(self) -> PartitionFold:
        folding = Folding([Layout(group, TYPES) for group in GROUPS], scan, lambda: self.store, self._read, 20)
        return PartitionFold(folding, self.store, 0, lambda: NOW / 1_000)

    def _read(self, partition: int, first: int, end: int) -> Iterator[list[Envelope]]:
        while first < end:
            step = self.random.randint(1, 9)
            yield self.log[first : min(first + step, end)]
            first += step

    @rule(events=st.lists(st.tuples(st.integers(0, 60), st.integers(0, 3), st.integers(-9, 9)), min_size=1, max_size=9))
    def publish(self, events: list[tuple[int, int, int]]) -> None:
        """An id may come again."""
        for number, household, amount in events:
            body = f"e{number} h{household} {amount}".encode()
            self.log.append(Envelope(f"0:{len(self.log)}", {}, body, NOW))

    @rule(worker=st.integers(0, 1), back=st.integers(0, 30), most=st.integers(1, 40))
    def deliver(self, worker: int, back: int, most: int) -> None:
        """From the noted position, or from before it."""
        self._fold(worker, back, most)

    @rule(worker=st.integers(0, 1), back=st.integers(0, 30), calls=st.integers(0, 12))
    def die(self, worker: int, back: int, calls: int) -> None:
        """The worker dies at one of its calls to the store; a new one takes its place."""
        self.store.calls = calls
        try:
            self._fold(worker, back, 100)
        except ConnectionError:
            self.workers[worker] = self._worker()
        self.store.calls = None

    @rule(worker=st.integers(0, 1))
    def rescale(self, worker: int) -> None:
        """A worker that knows nothing takes the partition over; the other one lives on as a zombie."""
        self.workers[worker] = self._worker()

    def _fold(self, worker: int, back: int, most: int) -> None:
        noted = min([self.store.noted.get(group.id, FIRST).position for group in GROUPS])
        first = max(0, noted - back)
        if self.log[first : first + most]:
            self.workers[worker].fold(self.log[first : first + most])

    def _is_first(self, place: int) -> bool:
        """Whether its id does not stand in the twenty events before."""
        names = [envelope.body.decode().split()[0] for envelope in self.log[max(0, place - 20) : place + 1]]
        return names[-1] not in names[:-1]

    @invariant()
    def rows_are_a_recount(self) -> None:
        """Every row holds what the log gives before its position, each id once among twenty."""
        for (name, entity), row in self.store.kept.items():
            layout = Layout(next(group for group in GROUPS if group.id == name), TYPES)
            position = stamp_of(row).position
            tiles = decode_rows(layout, [row]).tiles
            counts: dict[int, list[int]] = {}
            for place, envelope in enumerate(self.log[:position]):
                _, household, amount = envelope.body.decode().split()
                if household == entity and self._is_first(place):
                    time = NOW - 1_000 * (place % 50)
                    for hop, length in ((0, 1_000), (1, 60_000), (3, 3_600_000)):
                        tile = counts.setdefault((time // length) << 3 | hop, [0, 0])
                        tile[0] += 1
                        tile[1] += int(amount)
            found = {int(tile["tile"]): [int(tile["0.n"]), int(tile["2.sum"])] for tile in tiles}
            assert found == counts, (name, entity, position)

    def teardown(self) -> None:
        """In the end a fresh worker folds the rest: every household of the log has its row."""
        if self.log:
            worker = self._worker()
            noted = min([self.store.noted.get(group.id, FIRST).position for group in GROUPS])
            if self.log[noted:]:
                worker.fold(self.log[noted:])
            for group in GROUPS:
                assert self.store.noted[group.id].position == len(self.log)
                first = [envelope for place, envelope in enumerate(self.log) if self._is_first(place)]
                households = {envelope.body.decode().split()[1] for envelope in first}
                assert {entity for name, entity in self.store.kept if name == group.id} == households
            self.rows_are_a_recount()


TestDeliveries = Deliveries.TestCase
TestDeliveries.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
