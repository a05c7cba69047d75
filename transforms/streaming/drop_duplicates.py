"""DropDuplicates: each item once; its id is remembered under its key for a set time."""

from __future__ import annotations

import secrets
from collections import OrderedDict
from collections.abc import Callable, Iterator
from threading import Lock
from typing import Any

import apache_beam as beam
from apache_beam import DoFn
from apache_beam.coders import BytesCoder
from apache_beam.transforms.timeutil import TimeDomain
from apache_beam.transforms.userstate import BagStateSpec, ReadModifyWriteStateSpec, TimerSpec, on_timer
from apache_beam.utils.shared import Shared
from apache_beam.utils.timestamp import Timestamp
from msgspec.structs import replace

from transforms.streaming.counters import Counters
from transforms.streaming.elements import END, Keyed, T, body_bytes
from transforms.streaming.engine_traits import Clock, EngineTraits
from transforms.streaming.seen_ids import SeenIds, chunk_generation, generation_s, is_live, make_chunk

_NO_STAMP = b"alone"  # where the memory of the process mirrors the state
CACHED = 8_000_000  # ids that a worker keeps in memory beside the state, 16 bytes each
MakeIds = Callable[[list[T]], list[bytes]]
"""16 bytes for each item of a list: equal for duplicates, and for nothing else."""


class _Cache:
    """The ids of keys that this process knows, with the stamp that the state had then. The longest unused go first."""

    def __init__(self) -> None:
        self._keys: OrderedDict[Any, tuple[bytes, SeenIds]] = OrderedDict()
        self._ids = 0
        self._lock = Lock()

    def take(self, key: Any, stamp: bytes | None) -> SeenIds | None:
        """The ids of a key, if the state has the same; they are not in the cache while in use."""
        with self._lock:
            stamped, ids = self._keys.pop(key, (None, None))
            self._ids -= len(ids or ())
        return ids if stamp is not None and stamped == stamp else None

    def put(self, key: Any, stamp: bytes, ids: SeenIds) -> None:
        with self._lock:
            self._keys[key] = (stamp, ids)
            self._ids += len(ids)
            while self._ids > CACHED and len(self._keys) > 1:
                self._ids -= len(self._keys.popitem(last=False)[1][1])


class _Drop(DoFn):
    """The state of a key: `ids`, a chunk for each list that held new ones, and `stamp`, new whenever `ids` changed.

    A process caches the ids of its keys, so that as a rule a list costs one small read (the stamp) and one append.
    When the stamp is not the cached one (another worker had the key, or a bundle was retried) it reads the ids anew.
    Where the memory of the process mirrors the state no stamp is needed, and a list costs the append. The state dies
    chunk by chunk, a generation at a time, and with the window.
    """

    IDS = BagStateSpec("ids", BytesCoder())
    STAMP = ReadModifyWriteStateSpec("stamp", BytesCoder())
    FORGET = TimerSpec("forget", TimeDomain.REAL_TIME)
    OVER = TimerSpec("over", TimeDomain.WATERMARK)

    def __init__(
        self, make_ids: MakeIds[Any], remember_s: float, clock: Clock, engine: EngineTraits, counters: Counters
    ) -> None:
        self._make_ids, self._span, self._clock = make_ids, generation_s(remember_s), clock
        self._wall_clock_timers, self._stamped = engine.wall_clock_timers, not engine.memory_mirrors_state
        self._shared, self._repeats = Shared(), counters.counter("repeats")

    def setup(self) -> None:
        self._cache: _Cache = self._shared.acquire(_Cache)

    def process(
        self,
        element: Keyed[Any],
        ids: Any = DoFn.StateParam(IDS),
        stamp: Any = DoFn.StateParam(STAMP),
        forget: Any = DoFn.TimerParam(FORGET),
        over: Any = DoFn.TimerParam(OVER),
    ) -> Iterator[Keyed[Any]]:
        key, arrived = element
        generation = int(self._clock() // self._span)
        current = stamp.read() if self._stamped else _NO_STAMP
        known = self._cache.take(key, current)
        if known is None:
            known = SeenIds(ids.read() if current else ())
            over.set(END)
            if self._wall_clock_timers:
                forget.set(Timestamp((generation + 1) * self._span))
        arrived_ids = self._make_ids(arrived.items)
        places = known.first_seen(arrived_ids, generation)
        fresh = arrived
        if len(places) < len(arrived_ids):
            fresh = replace(arrived, items=[arrived.items[place] for place in places], source_resumes=False)
            dropped = len(arrived_ids) - len(places)
            self._repeats.inc(dropped, body_bytes(arrived.items) - body_bytes(fresh.items))
        if places:
            ids.add(make_chunk(generation, [arrived_ids[place] for place in places]))
            if self._stamped:
                current = secrets.token_bytes(16)
                stamp.write(current)
            yield key, fresh
        if current:
            self._cache.put(key, current, known)

    @on_timer(FORGET)
    def forget_generation(
        self,
        ids: Any = DoFn.StateParam(IDS),
        stamp: Any = DoFn.StateParam(STAMP),
        forget: Any = DoFn.TimerParam(FORGET),
    ) -> Iterator[Keyed[Any]]:
        """Drops the chunks of generations that are no longer remembered."""
        generation = int(self._clock() // self._span)
        chunks = list(ids.read())
        live = [chunk for chunk in chunks if is_live(chunk_generation(chunk), generation)]
        if len(live) < len(chunks):
            ids.clear()
            for chunk in live:
                ids.add(chunk)
            if self._stamped:
                stamp.write(secrets.token_bytes(16)) if live else stamp.clear()
        if live:
            forget.set(Timestamp((generation + 1) * self._span))
        yield from ()

    @on_timer(OVER)
    def end(
        self,
        ids: Any = DoFn.StateParam(IDS),
        stamp: Any = DoFn.StateParam(STAMP),
        forget: Any = DoFn.TimerParam(FORGET),
    ) -> Iterator[Keyed[Any]]:
        """Clears all when the input has ended, so that no timer keeps the job waiting."""
        ids.clear()
        forget.clear()
        if self._stamped:
            stamp.clear()
        yield from ()


class DropDuplicates(beam.PTransform):
    """The lists without the items that came before under the same key, within `remember_s` seconds (to 8/7 of them).
    `make_ids` gives the ids of a list's items. Where timers do not follow the clock nothing is forgotten before the
    input ends. Counts `repeats`. Steps: Drop."""

    def __init__(
        self, make_ids: MakeIds[T], remember_s: float, clock: Clock, engine: EngineTraits, counters: Counters
    ) -> None:
        super().__init__()
        if remember_s <= 0:
            raise ValueError(f"remember_s {remember_s} must be positive")
        self._drop = _Drop(make_ids, remember_s, clock, engine, counters)

    def expand(self, lists: beam.PCollection[Keyed[T]]) -> beam.PCollection[Keyed[T]]:
        return lists | "Drop" >> beam.ParDo(self._drop).with_output_types(lists.element_type)
