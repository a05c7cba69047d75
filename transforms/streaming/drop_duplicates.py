"""DropRepeats: each event once, remembered by key for a set time."""

from __future__ import annotations

import secrets
from collections import OrderedDict
from collections.abc import Callable, Iterator
from threading import Lock
from typing import Any

import apache_beam as beam
from apache_beam.coders import BytesCoder
from apache_beam.transforms.timeutil import TimeDomain
from apache_beam.transforms.userstate import (
    BagStateSpec,
    ReadModifyWriteStateSpec,
    TimerSpec,
    on_timer,
)
from apache_beam.utils.shared import Shared
from apache_beam.utils.timestamp import Timestamp

from transforms.streaming.counters import Counter
from transforms.streaming.elements import END, KEYED, Keyed, Messages, body_bytes
from transforms.streaming.seen_ids import SeenIds, chunk_generation, generation_s, id_bytes, is_live, make_chunk

_ALONE = b"alone"  # the stamp of what needs none
CACHED = 8_000_000  # ids that a worker keeps beside the state, 16 bytes each


class _Cache:
    """Keys whose ids this process knows, with the stamp that the state had then. The longest unused go first."""

    def __init__(self) -> None:
        self._keys: OrderedDict[Any, tuple[bytes, SeenIds]] = OrderedDict()
        self._ids = 0
        self._lock = Lock()

    def take(self, key: Any, stamp: bytes | None) -> SeenIds | None:
        """The ids of a key, if they are those that the state has; they are not in the cache while in use."""
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


class _DropRepeats(beam.DoFn):
    """The state of a key: `ids`, a chunk for each list that held new ones, and `stamp`, new whenever `ids` changed.

    A process keeps the ids of its keys at hand, so that as a rule a list costs one small read (the stamp) and one
    append; when the stamp is not the one it knows (another worker had the key, or a bundle was rolled back) it
    reads the ids anew. Where the engine runs in this one process and takes nothing back (`alone`) what it knows is
    right without a stamp, and a list costs the append. The state dies chunk by chunk, a generation at a time, and
    with the window.
    """

    IDS = BagStateSpec("ids", BytesCoder())
    STAMP = ReadModifyWriteStateSpec("stamp", BytesCoder())
    FORGET = TimerSpec("forget", TimeDomain.REAL_TIME)
    OVER = TimerSpec("over", TimeDomain.WATERMARK)

    def __init__(
        self, remember_s: float, clock: Callable[[], float], shared: Shared, wall_clock_timers: bool, alone: bool
    ) -> None:
        self._span, self._clock, self._shared = generation_s(remember_s), clock, shared
        self._real_time, self._alone = wall_clock_timers, alone
        self._repeats = Counter("repeats")

    def setup(self) -> None:
        self._cache: _Cache = self._shared.acquire(_Cache)

    def process(
        self,
        element: Keyed,
        ids: Any = beam.DoFn.StateParam(IDS),
        stamp: Any = beam.DoFn.StateParam(STAMP),
        forget: Any = beam.DoFn.TimerParam(FORGET),
        over: Any = beam.DoFn.TimerParam(OVER),
    ) -> Iterator[Keyed]:
        key, messages = element
        generation = int(self._clock() // self._span)
        before = _ALONE if self._alone else stamp.read()
        known = self._cache.take(key, before)
        if known is None:
            known = SeenIds(ids.read() if before else ())
            over.set(END)
            if self._real_time:
                forget.set(Timestamp((generation + 1) * self._span))
        arrived = [id_bytes(message.event_id + message.replay) for message in messages.items]
        places = known.first_seen(arrived, generation)
        left = messages if len(places) == len(arrived) else Messages([messages.items[at] for at in places])
        if left is not messages:
            self._repeats.inc(len(arrived) - len(places), body_bytes(messages.items) - body_bytes(left.items))
        if places:
            ids.add(make_chunk(generation, [arrived[place] for place in places]))
            if not self._alone:
                before = secrets.token_bytes(16)
                stamp.write(before)
            yield key, left
        if before:
            self._cache.put(key, before, known)

    @on_timer(FORGET)
    def forget_generation(
        self,
        ids: Any = beam.DoFn.StateParam(IDS),
        stamp: Any = beam.DoFn.StateParam(STAMP),
        forget: Any = beam.DoFn.TimerParam(FORGET),
    ) -> Iterator[Keyed]:
        """Drops the chunks of generations that are no longer remembered."""
        now = self._clock()
        generation = int(now // self._span)
        chunks = list(ids.read())
        live = [chunk for chunk in chunks if is_live(chunk_generation(chunk), generation)]
        if len(live) < len(chunks):
            ids.clear()
            for chunk in live:
                ids.add(chunk)
            if not self._alone:
                stamp.write(secrets.token_bytes(16)) if live else stamp.clear()
        if live:
            forget.set(Timestamp((generation + 1) * self._span))
        yield from ()

    @on_timer(OVER)
    def end(
        self,
        ids: Any = beam.DoFn.StateParam(IDS),
        stamp: Any = beam.DoFn.StateParam(STAMP),
        forget: Any = beam.DoFn.TimerParam(FORGET),
    ) -> Iterator[Keyed]:
        """The input has ended: nothing is remembered, and no timer keeps the job waiting."""
        ids.clear()
        forget.clear()
        if not self._alone:
            stamp.clear()
        yield from ()


class DropDuplicates(beam.PTransform):
    """The lists without the events that came before, within `remember_s` seconds, under the same key.
    `wall_clock_timers`: whether the engine's timers follow the clock; on one where they do not, nothing is forgotten
    before the end. `alone`: whether the engine runs in this one process and never takes back a bundle."""

    def __init__(
        self, remember_s: float, clock: Callable[[], float], *, wall_clock_timers: bool = True, alone: bool = False
    ) -> None:
        super().__init__()
        if remember_s <= 0:
            raise ValueError(f"remember_s {remember_s} must be positive")
        self._drop = _DropRepeats(remember_s, clock, Shared(), wall_clock_timers, alone)

    def expand(self, lists: beam.PCollection[Keyed]) -> beam.PCollection[Keyed]:
        return lists | "Drop" >> beam.ParDo(self._drop).with_output_types(KEYED)
