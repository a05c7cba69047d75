"""DeliverBatches: sends batches to the vendor as fast as the limits of their retailer allow; keeps those that wait."""

from __future__ import annotations

import atexit
import time
from collections import OrderedDict
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple, Protocol

import apache_beam as beam
from apache_beam import DoFn
from apache_beam.coders import VarIntCoder
from apache_beam.transforms.timeutil import TimeDomain
from apache_beam.transforms.userstate import BagStateSpec, ReadModifyWriteStateSpec, TimerSpec, on_timer
from apache_beam.utils.shared import Shared
from apache_beam.utils.timestamp import Timestamp
from msgspec.structs import replace

from schemas.contracts import DeadLetter
from schemas.delivery import Batch, Receipt
from transforms.delivery.batch_by_retailer import retry_shard_of
from transforms.delivery.counters import COUNTERS, LATENCY
from transforms.delivery.elements import HELD, Addressed, Held, Receipts, Waiting
from transforms.streaming.elements import END, StructCoder, at_finish, body_bytes
from transforms.streaming.engine_traits import Clock, EngineTraits
from transforms.streaming.state_on_disk import MakeBuffer, OnDisk

_RECEIPTS, _WAIT = "receipts", "wait"
_NEXT_LIST_MS = 1_000  # lists behind one of which nothing could be sent are not read before that
_CONCURRENT_RETAILERS = 48  # of a bundle, each in a thread that claims and sends


class DeliveryResult(NamedTuple):
    """The result of a delivery: receipts, dead letters, and batches that wait until `wake_at` (epoch ms)."""

    receipts: list[Receipt]
    dead: list[DeadLetter]
    waiting: list[Batch]
    wake_at: int


HandOver = Callable[[str, list[Batch]], None]  # keeps the batches of a retailer that this run could not send


class Dispatcher(Protocol):
    """Delivers batches of one retailer; one per process, used by several threads."""

    def open(self) -> None: ...
    def deliver(self, retailer: str, batches: list[Batch]) -> DeliveryResult: ...
    def close(self) -> None: ...


class _Deliver(DoFn):
    """Delivers through the process's dispatcher and counts the outcomes."""

    def __init__(self, make_dispatcher: Callable[[], Dispatcher], shared: Shared) -> None:
        self._make_dispatcher, self._shared = make_dispatcher, shared
        self._counts = {name: COUNTERS.counter(name) for name in ("accepted", "rejected", "expired", "unknown")}
        self._batched = COUNTERS.counter("batched")
        self._latency = beam.metrics.Metrics.distribution(COUNTERS.namespace, LATENCY)

    def setup(self) -> None:
        self._dispatcher: Dispatcher = self._shared.acquire(self._open_dispatcher)

    def _open_dispatcher(self) -> Dispatcher:
        dispatcher = self._make_dispatcher()
        dispatcher.open()
        atexit.register(dispatcher.close)  # settles the calls in flight, or the next run would send them again
        return dispatcher

    def _emit(self, result: DeliveryResult) -> Iterator[Any]:
        for receipt in result.receipts:
            self._counts[receipt.outcome].inc()
            if receipt.outcome == "accepted":
                self._latency.update(receipt.settled_at - receipt.arrived_at)
        if result.receipts:
            yield Receipts(result.receipts, result.dead)


class _Send(_Deliver):
    """Sends at once, the retailers of a bundle concurrently; what must wait goes to _Wait."""

    def setup(self) -> None:
        super().setup()
        self._pool = ThreadPoolExecutor(_CONCURRENT_RETAILERS, thread_name_prefix="send")

    def teardown(self) -> None:
        self._pool.shutdown()

    def start_bundle(self) -> None:
        self._in_flight: OrderedDict[str, Future[DeliveryResult]] = OrderedDict()
        self._sizes: dict[str, int] = {}

    def process(self, element: Addressed) -> Iterator[Any]:
        (retailer, _), batches = element
        self._batched.inc(sum(len(batch.messages) for batch in batches.items))
        if retailer in self._in_flight:
            yield from self._finish(retailer)
        self._sizes[retailer] = _body_bytes(batches.items)
        self._in_flight[retailer] = self._pool.submit(self._dispatcher.deliver, retailer, batches.items)

    def finish_bundle(self) -> Iterator[Any]:
        while self._in_flight:
            for value in self._finish(next(iter(self._in_flight))):
                tagged = isinstance(value, beam.pvalue.TaggedOutput)
                yield beam.pvalue.TaggedOutput(value.tag, at_finish(value.value)) if tagged else at_finish(value)

    def _finish(self, retailer: str) -> Iterator[Any]:
        result = self._in_flight.pop(retailer).result()
        self._batched.inc(0, self._sizes.pop(retailer) - _body_bytes(result.waiting))  # what waits goes to _Wait
        yield from self._emit(result)
        if result.waiting:
            key = (retailer, retry_shard_of(result.waiting[0]))
            yield beam.pvalue.TaggedOutput(_WAIT, (key, Waiting(result.waiting, result.wake_at)))


class _Wait(_Deliver):
    """Keyed by (retailer, retry shard): `waiting` holds the batches that could not be sent and dies when they were.
    Lists on disk are read when they are due, one after the other. When the input has ended, what may be sent within
    `patience_s` still is."""

    WAITING = BagStateSpec("waiting", StructCoder(Waiting))
    NEXT = ReadModifyWriteStateSpec("next", VarIntCoder())  # when WAKE fires: a timer cannot be asked
    WAKE = TimerSpec("wake", TimeDomain.REAL_TIME)
    OVER = TimerSpec("over", TimeDomain.WATERMARK)

    def __init__(
        self,
        make_dispatcher: Callable[[], Dispatcher],
        shared: Shared,
        clock: Clock,
        engine: EngineTraits,
        patience_s: float,
        hand_over: HandOver | None,
        buffer: MakeBuffer | None,
    ) -> None:
        super().__init__(make_dispatcher, shared)
        self._clock, self._wall_clock_timers, self._patience_s = clock, engine.wall_clock_timers, patience_s
        self._hand_over, self._make_buffer = hand_over, None if engine.durable_state else buffer
        self._left_waiting = COUNTERS.counter("left_waiting")

    def setup(self) -> None:
        super().setup()
        self._on_disk = OnDisk(Waiting, self._make_buffer)
        self._progress, self._tally = 0.0, -1

    def process(
        self,
        element: Held,
        waiting: Any = DoFn.StateParam(WAITING),
        following: Any = DoFn.StateParam(NEXT),
        wake: Any = DoFn.TimerParam(WAKE),
        over: Any = DoFn.TimerParam(OVER),
    ) -> Iterator[Any]:
        (retailer, _), batches = element
        self._batched.inc(0, _body_bytes(batches.items))
        if self._wall_clock_timers:
            waiting.add(self._on_disk.put(batches))
            before = following.read()
            if before is None or batches.wake_at < before:
                following.write(batches.wake_at)
                wake.set(_timestamp(batches.wake_at))
            over.set(END)
        else:
            yield from self._deliver_patiently(retailer, DeliveryResult([], [], batches.items, batches.wake_at))

    @on_timer(WAKE)
    def on_wake(
        self,
        key: Any = DoFn.KeyParam,
        waiting: Any = DoFn.StateParam(WAITING),
        following: Any = DoFn.StateParam(NEXT),
        wake: Any = DoFn.TimerParam(WAKE),
    ) -> Iterator[Any]:
        """Delivers the lists that are due; the others, and what could not be sent, wait on."""
        lists = list(waiting.read())
        waiting.clear()
        following.clear()
        times, earliest = list[int](), 0
        for batches in self._merged(lists):
            rest: Waiting | None = replace(batches, wake_at=max(batches.wake_at, earliest))
            if not batches.place or batches.wake_at <= self._clock() * 1000 >= earliest:
                rest = yield from self._retry(key[0], batches)
                if rest is not None and rest.place == batches.place != "":  # nothing could be sent
                    earliest = min(rest.wake_at, int(self._clock() * 1000) + _NEXT_LIST_MS)
            if rest is not None:
                waiting.add(rest)
                times.append(rest.wake_at)
        if times:
            following.write(min(times))
            wake.set(_timestamp(min(times)))

    def _retry(self, retailer: str, batches: Waiting) -> Generator[Any, None, Waiting | None]:
        """Emits the result of delivering a list; returns what of it waits on."""
        items = self._on_disk.read(batches).items
        result = self._dispatcher.deliver(retailer, items)
        yield from self._emit(result)
        if batches.place and is_unchanged(items, result.waiting):
            return replace(batches, wake_at=result.wake_at)
        self._on_disk.free(batches)
        return self._on_disk.put(Waiting(result.waiting, result.wake_at)) if result.waiting else None

    @staticmethod
    def _merged(lists: list[Waiting]) -> Iterator[Waiting]:
        """The lists in memory as one list, then those on disk."""
        in_memory = [batches for batches in lists if not batches.place]
        if in_memory:
            items = [batch for batches in in_memory for batch in batches.items]
            yield Waiting(items, min(batches.wake_at for batches in in_memory))
        yield from (batches for batches in lists if batches.place)

    @on_timer(OVER)
    def on_input_end(
        self, key: Any = DoFn.KeyParam, waiting: Any = DoFn.StateParam(WAITING), wake: Any = DoFn.TimerParam(WAKE)
    ) -> Iterator[Any]:
        """Makes a last attempt; then nothing keeps the job from ending."""
        lists = list(waiting.read())
        waiting.clear()
        wake.clear()
        for batches in self._merged(lists):
            items = self._on_disk.read(batches).items
            self._on_disk.free(batches)
            yield from self._deliver_patiently(key[0], DeliveryResult([], [], items, 0))

    def _deliver_patiently(self, retailer: str, result: DeliveryResult) -> Iterator[Any]:
        """Sleeps and delivers as long as some event, of whatever retailer, is settled within the patience; hands over
        or counts the rest."""
        if COUNTERS.tally.total() != self._tally:  # an event was settled since the last time
            self._progress = self._clock()
        while result.waiting and result.wake_at / 1000 <= self._progress + self._patience_s:
            time.sleep(max(0.0, result.wake_at / 1000 - self._clock()))
            result = self._dispatcher.deliver(retailer, result.waiting)
            yield from self._emit(result)
            if result.receipts:
                self._progress = self._clock()
        if self._hand_over is None:
            self._left_waiting.inc(sum(len(batch.messages) for batch in result.waiting))
        elif result.waiting:
            self._hand_over(retailer, result.waiting)
        self._tally = COUNTERS.tally.total()


def is_unchanged(before: list[Batch], after: list[Batch]) -> bool:
    """Whether the same batches wait, and no call was made."""
    attempts = {batch.batch_id: batch.attempt for batch in before}
    return len(before) == len(after) and all(attempts.get(batch.batch_id) == batch.attempt for batch in after)


def _body_bytes(batches: list[Batch]) -> int:
    return sum(body_bytes(batch.messages) for batch in batches)


def _timestamp(at_ms: int) -> Timestamp:
    return Timestamp(micros=at_ms * 1000)


class DeliverBatches(beam.PTransform):
    """Receipts of batches, with the dead letters of refused events. What may be sent is sent in the bundle that holds
    it; only what must wait goes through state. `make_dispatcher` is called once per worker process. Without
    `wall_clock_timers` the step sleeps until its batches are due. `hand_over` keeps batches for the next round of a
    drain in this process; without it they are counted as left_waiting. `buffer` makes the disk buffer, used where the
    engine's state is not durable. Counts `batched`, an outcome per event, `left_waiting`, and the latency. Steps: Send,
    Wait, Receipts."""

    def __init__(
        self,
        make_dispatcher: Callable[[], Dispatcher],
        clock: Clock,
        engine: EngineTraits,
        *,
        patience_s: float = 60.0,
        hand_over: HandOver | None = None,
        buffer: MakeBuffer | None = None,
    ) -> None:
        super().__init__()
        shared = Shared()
        self._send = _Send(make_dispatcher, shared)
        self._wait = _Wait(make_dispatcher, shared, clock, engine, patience_s, hand_over, buffer)

    def expand(self, batches: beam.PCollection[Addressed]) -> beam.PCollection[Receipts]:
        sent = batches | "Send" >> beam.ParDo(self._send).with_outputs(_WAIT, main=_RECEIPTS)
        sent[_RECEIPTS].element_type, sent[_WAIT].element_type = Receipts, HELD
        waited = sent[_WAIT] | "Wait" >> beam.ParDo(self._wait).with_output_types(Receipts)
        return (sent[_RECEIPTS], waited) | "Receipts" >> beam.Flatten()
