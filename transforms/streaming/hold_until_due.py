"""HoldUntilDue: items whose time has not come wait; all others pass."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from typing import Any

import apache_beam as beam
from apache_beam import DoFn
from apache_beam.transforms.timeutil import TimeDomain
from apache_beam.transforms.userstate import BagStateSpec, TimerSpec, on_timer
from apache_beam.utils.timestamp import Timestamp
from msgspec import Raw

from transforms.streaming.counters import Counters, Limit
from transforms.streaming.elements import END, Items, Keyed, StructCoder, T, body_bytes, keyed
from transforms.streaming.engine_traits import Clock, EngineTraits
from transforms.streaming.state_on_disk import MakeBuffer, OnDisk

_DUE, _EARLY = "due", "early"
_RETRY_S = 0.1  # until more is released
_FARTHEST_S = 100 * 366 * 86_400  # no run lasts so long; engines' clocks and Beam's own end somewhere behind it
DueTimes = Callable[[list[T]], list[int]]
"""When each item of a list is due (epoch ms); 0 for at once."""


def split_due(items: list[T], due_times: list[int], now: int) -> tuple[list[T], dict[int, list[T]]]:
    """The items that are due at `now` (epoch ms), and the others by the second in which they become due."""
    due: list[T] = []
    early: dict[int, list[T]] = defaultdict(list)
    for item, due_at in zip(items, due_times, strict=True):
        if due_at <= now:
            due.append(item)
        else:
            early[-(-due_at // 1000)].append(item)
    return due, early


class _Split(DoFn):
    def __init__(self, kind: type[Items[Any]], due_times: DueTimes[Any], clock: Clock) -> None:
        self._kind, self._due_times, self._clock = kind, due_times, clock

    def process(self, element: Keyed[Any]) -> Iterator[Any]:
        key, arrived = element
        due_times, now = self._due_times(arrived.items), int(self._clock() * 1000)
        if max(due_times, default=0) <= now:
            yield element
            return
        due, early = split_due(arrived.items, due_times, now)
        if due:
            yield key, self._kind(due)
        for second, items in early.items():
            yield beam.pvalue.TaggedOutput(_EARLY, ((key[0], second), self._kind(items)))


class _Hold(DoFn):
    """Keyed by (key, second): the state dies when its timer fires, or when the input ends. What is due in a hundred
    years or later has no timer: no engine could be sure to hold it. What is due is released while no more than
    `most_in_flight` is in flight; the rest a moment later. `waiting` has lists as StructCoder encodes them."""

    WAITING = BagStateSpec("waiting", StructCoder(Raw))
    DUE = TimerSpec("due", TimeDomain.REAL_TIME)
    OVER = TimerSpec("over", TimeDomain.WATERMARK)

    def __init__(
        self,
        kind: type[Items[Any]],
        clock: Clock,
        engine: EngineTraits,
        counters: Counters,
        buffer: MakeBuffer | None,
        most_in_flight: Limit | None,
    ) -> None:
        self._kind, self._clock, self._counters = kind, clock, counters
        self._wall_clock_timers = engine.wall_clock_timers
        self._make_buffer = None if engine.durable_state else buffer
        self._most_in_flight = most_in_flight if engine.single_process else None
        self._held, self._released = counters.counter("held"), counters.counter("released")
        self._left = counters.counter("left_waiting")

    def setup(self) -> None:
        self._coder, self._on_disk = StructCoder(self._kind), OnDisk(self._kind, self._make_buffer)

    def process(
        self,
        element: Keyed[Any],
        waiting: Any = DoFn.StateParam(WAITING),
        due: Any = DoFn.TimerParam(DUE),
        over: Any = DoFn.TimerParam(OVER),
    ) -> Iterator[Keyed[Any]]:
        (_, second), held = element
        self._held.inc(held.total, body_bytes(held.items))
        if not self._wall_clock_timers:  # nothing would release them: they stay in their source, for the next run
            self._left.inc(held.total)
            return
        waiting.add(Raw(self._coder.encode(self._on_disk.put(held))))
        if second - self._clock() < _FARTHEST_S:
            due.set(Timestamp(second))
        over.set(END)
        yield from ()

    @on_timer(DUE)
    def release(
        self,
        key: Any = DoFn.KeyParam,
        waiting: Any = DoFn.StateParam(WAITING),
        due: Any = DoFn.TimerParam(DUE),
        over: Any = DoFn.TimerParam(OVER),
    ) -> Iterator[Keyed[Any]]:
        """The items of a second, in lists that have the shard 0 again."""
        lists = deque(waiting.read())
        waiting.clear()
        while lists and not self._counters.exceeds(self._most_in_flight):
            yield self._release(key, self._coder.decode(lists.popleft()))
        for encoded in lists:
            waiting.add(encoded)
        if lists:
            due.set(Timestamp(self._clock() + _RETRY_S))
        else:
            over.clear()

    @on_timer(OVER)
    def end(
        self, key: Any = DoFn.KeyParam, waiting: Any = DoFn.StateParam(WAITING), due: Any = DoFn.TimerParam(DUE)
    ) -> Iterator[Keyed[Any]]:
        """The input has ended: what is not due stays in its source, for the next run."""
        lists = [self._coder.decode(encoded) for encoded in waiting.read()]
        waiting.clear()
        due.clear()
        for held in lists:
            if key[1] <= self._clock():
                yield self._release(key, held)
            else:
                self._left.inc(held.total)
                self._on_disk.free(held)

    def _release(self, key: tuple[str, int], held: Items[Any]) -> Keyed[Any]:
        released = self._on_disk.read(held)
        self._on_disk.free(held)
        self._released.inc(released.total, body_bytes(released.items))
        return (key[0], 0), released


class HoldUntilDue(beam.PTransform):
    """(lists of items that were due when they came, lists that were held until they were due): two, since most engines
    need a hop to make one of them, and most items are due.

    `kind` is the class of the lists; `due_times` says when items are due. Where timers do not follow the clock, and
    when the input ends, items that are not due are left out and counted as left_waiting. Where the state is not
    durable, `buffer` makes what keeps the held items on disk; in a single process they are released while no more than
    `most_in_flight` is in flight. Counts `held`, `released`, `left_waiting`. Steps: Split, Hold.
    """

    def __init__(
        self,
        kind: type[Items[T]],
        due_times: DueTimes[T],
        clock: Clock,
        engine: EngineTraits,
        counters: Counters,
        *,
        buffer: MakeBuffer | None = None,
        most_in_flight: Limit | None = None,
    ) -> None:
        super().__init__()
        self._split = _Split(kind, due_times, clock)
        self._hold = _Hold(kind, clock, engine, counters, buffer, most_in_flight)
        self._type = keyed(kind)

    def expand(self, lists: beam.PCollection[Keyed[T]]) -> tuple[beam.PCollection[Keyed[T]], ...]:
        split = lists | "Split" >> beam.ParDo(self._split).with_outputs(_EARLY, main=_DUE)
        split[_DUE].element_type = split[_EARLY].element_type = self._type
        return split[_DUE], split[_EARLY] | "Hold" >> beam.ParDo(self._hold).with_output_types(self._type)
