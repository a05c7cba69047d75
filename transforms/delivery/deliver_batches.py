"""DeliverBatches: batches reach the vendor as fast as their retailer may be sent to; what must wait, waits."""

from __future__ import annotations

import atexit
import time
from collections import OrderedDict
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple, Protocol

import apache_beam as beam
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
from transforms.streaming.engine_traits import EngineTraits
from transforms.streaming.state_on_disk import MakeBuffer, OnDisk

_RECEIPTS, _WAIT = "receipts", "wait"
_AFTER_MS = 1_000  # lists behind one of which nothing could leave are not read before that
_SIDE_BY_SIDE = 48  # lists of a bundle that are claimed and sent at the same time, each of another retailer


class DeliveryResult(NamedTuple):
    """What came of batches: receipts, refused deliveries, and what waits until `wake_at` (epoch ms)."""

    receipts: list[Receipt]
    dead: list[DeadLetter]
    waiting: list[Batch]
    wake_at: int


Leave = Callable[[str, list[Batch]], None]  # takes the batches of a retailer that could not leave in this run


class Dispatcher(Protocol):
    """Delivers batches of one retailer; one a process, used by several threads."""

    def open(self) -> None: ...
    def deliver(self, retailer: str, batches: list[Batch]) -> DeliveryResult: ...
    def close(self) -> None: ...


class _Delivering(beam.DoFn):
    """What sending and waiting have in common."""

    def __init__(self, make: Callable[[], Dispatcher], shared: Shared) -> None:
        self._make, self._shared = make, shared
        self._counts = {name: COUNTERS.counter(name) for name in ("accepted", "rejected", "expired", "unknown")}
        self._latency = beam.metrics.Metrics.distribution(COUNTERS.namespace, LATENCY)

    def setup(self) -> None:
        self._dispatcher: Dispatcher = self._shared.acquire(self._opened)

    def _opened(self) -> Dispatcher:
        dispatcher = self._make()
        dispatcher.open()
        atexit.register(dispatcher.close)  # what is still out then is settled, not sent again by the next run
        return dispatcher

    def _handle(self, retailer: str, batches: list[Batch]) -> DeliveryResult:
        return self._dispatcher.deliver(retailer, batches)

    def _put_out(self, handled: DeliveryResult) -> Iterator[Any]:
        for receipt in handled.receipts:
            self._counts[receipt.outcome].inc()
            if receipt.outcome == "accepted":
                self._latency.update(receipt.settled_at - receipt.arrived_at)
        if handled.receipts:
            yield Receipts(handled.receipts, handled.dead)


class _Send(_Delivering):
    """Sends at once, a bundle's retailers side by side; what must wait goes on to _Wait."""

    def __init__(self, make: Callable[[], Dispatcher], shared: Shared) -> None:
        super().__init__(make, shared)
        self._batched = COUNTERS.counter("batched")

    def setup(self) -> None:
        super().setup()
        self._pool = ThreadPoolExecutor(_SIDE_BY_SIDE, thread_name_prefix="send")

    def teardown(self) -> None:
        self._pool.shutdown()

    def start_bundle(self) -> None:
        self._under_way: OrderedDict[str, Future[DeliveryResult]] = OrderedDict()
        self._sizes: dict[str, int] = {}

    def process(self, element: Addressed) -> Iterator[Any]:
        (retailer, _), batches = element
        self._batched.inc(sum(len(batch.messages) for batch in batches.items))
        if retailer in self._under_way:
            yield from self._finish(retailer)
        self._sizes[retailer] = _size(batches.items)
        self._under_way[retailer] = self._pool.submit(self._handle, retailer, batches.items)

    def finish_bundle(self) -> Iterator[Any]:
        while self._under_way:
            for value in self._finish(next(iter(self._under_way))):
                tagged = isinstance(value, beam.pvalue.TaggedOutput)
                yield beam.pvalue.TaggedOutput(value.tag, at_finish(value.value)) if tagged else at_finish(value)

    def _finish(self, retailer: str) -> Iterator[Any]:
        handled = self._under_way.pop(retailer).result()
        self._batched.inc(0, self._sizes.pop(retailer) - _size(handled.waiting))  # what waits is on its way to _Wait
        yield from self._put_out(handled)
        if handled.waiting:
            key = (retailer, retry_shard_of(handled.waiting[0]))
            yield beam.pvalue.TaggedOutput(_WAIT, (key, Waiting(handled.waiting, handled.wake_at)))


class _Wait(_Delivering):
    """Keyed by (retailer, retry shard): `waiting` holds the batches that could not be sent and dies when they were.
    Lists on disk are read when they are due, one after the other. When the input has ended, what may leave within
    `patience_s` still does."""

    WAITING = BagStateSpec("waiting", StructCoder(Waiting))
    NEXT = ReadModifyWriteStateSpec("next", VarIntCoder())  # when WAKE fires: a timer cannot be asked
    WAKE = TimerSpec("wake", TimeDomain.REAL_TIME)
    OVER = TimerSpec("over", TimeDomain.WATERMARK)

    def __init__(
        self,
        make: Callable[[], Dispatcher],
        shared: Shared,
        clock: Callable[[], float],
        engine: EngineTraits,
        patience_s: float,
        leave: Leave | None,
        buffer: MakeBuffer | None,
    ) -> None:
        super().__init__(make, shared)
        self._clock, self._real_time, self._patience_s, self._leave = clock, engine.wall_clock_timers, patience_s, leave
        self._make_buffer = None if engine.durable_state else buffer
        self._left, self._batched = COUNTERS.counter("left_waiting"), COUNTERS.counter("batched")

    def setup(self) -> None:
        super().setup()
        self._on_disk = OnDisk(Waiting, self._make_buffer)
        self._progress, self._tally = 0.0, -1

    def process(
        self,
        element: Held,
        waiting: Any = beam.DoFn.StateParam(WAITING),
        following: Any = beam.DoFn.StateParam(NEXT),
        wake: Any = beam.DoFn.TimerParam(WAKE),
        over: Any = beam.DoFn.TimerParam(OVER),
    ) -> Iterator[Any]:
        (retailer, _), held = element
        self._batched.inc(0, _size(held.items))
        if self._real_time:
            waiting.add(self._on_disk.put(held))
            before = following.read()
            if before is None or held.wake_at < before:
                following.write(held.wake_at)
                wake.set(_moment(held.wake_at))
            over.set(END)
        else:
            yield from self._to_the_end(retailer, DeliveryResult([], [], held.items, held.wake_at))

    @on_timer(WAKE)
    def again(
        self,
        key: Any = beam.DoFn.KeyParam,
        waiting: Any = beam.DoFn.StateParam(WAITING),
        following: Any = beam.DoFn.StateParam(NEXT),
        wake: Any = beam.DoFn.TimerParam(WAKE),
    ) -> Iterator[Any]:
        """What may leave now, leaves; the rest waits on."""
        lists = list(waiting.read())
        waiting.clear()
        following.clear()
        times, earliest = list[int](), 0
        for held in self._due(lists):
            rest: Waiting | None = replace(held, wake_at=max(held.wake_at, earliest))
            if not held.place or held.wake_at <= self._clock() * 1000 >= earliest:
                rest = yield from self._try(key[0], held)
                if rest is not None and rest.place == held.place != "":  # nothing could leave
                    earliest = min(rest.wake_at, int(self._clock() * 1000) + _AFTER_MS)
            if rest is not None:
                waiting.add(rest)
                times.append(rest.wake_at)
        if times:
            following.write(min(times))
            wake.set(_moment(min(times)))

    def _try(self, retailer: str, held: Waiting) -> Generator[Any, None, Waiting | None]:
        """Puts out what came of a list; what of it waits on."""
        items = self._on_disk.read(held).items
        handled = self._handle(retailer, items)
        yield from self._put_out(handled)
        if held.place and is_unchanged(items, handled.waiting):
            return replace(held, wake_at=handled.wake_at)
        self._on_disk.free(held)
        return self._on_disk.put(Waiting(handled.waiting, handled.wake_at)) if handled.waiting else None

    @staticmethod
    def _due(lists: list[Waiting]) -> Iterator[Waiting]:
        """What is in memory as one list, then those on disk."""
        here = [held for held in lists if not held.place]
        if here:
            yield Waiting([batch for held in here for batch in held.items], min(held.wake_at for held in here))
        yield from (held for held in lists if held.place)

    @on_timer(OVER)
    def end(
        self,
        key: Any = beam.DoFn.KeyParam,
        waiting: Any = beam.DoFn.StateParam(WAITING),
        wake: Any = beam.DoFn.TimerParam(WAKE),
    ) -> Iterator[Any]:
        """The input has ended: a last attempt, then nothing keeps the job waiting."""
        lists = list(waiting.read())
        waiting.clear()
        wake.clear()
        for held in self._due(lists):
            items = self._on_disk.read(held).items
            self._on_disk.free(held)
            yield from self._to_the_end(key[0], DeliveryResult([], [], items, 0))

    def _to_the_end(self, retailer: str, handled: DeliveryResult) -> Iterator[Any]:
        """Waits in place as long as something leaves within the patience, whatever retailer it is of; then all that
        is left tries once more and stays for the next run."""
        if COUNTERS.tally.total() != self._tally:  # something has moved since the last time
            self._progress = self._clock()
        while handled.waiting and handled.wake_at / 1000 <= self._progress + self._patience_s:
            time.sleep(max(0.0, handled.wake_at / 1000 - self._clock()))
            handled = self._handle(retailer, handled.waiting)
            yield from self._put_out(handled)
            if handled.receipts:
                self._progress = self._clock()
        if self._leave is None:
            self._left.inc(sum(len(batch.messages) for batch in handled.waiting))
        elif handled.waiting:
            self._leave(retailer, handled.waiting)
        self._tally = COUNTERS.tally.total()


def is_unchanged(before: list[Batch], after: list[Batch]) -> bool:
    """Whether batches wait as they did: nothing left, and no call was made."""
    known = {batch.batch_id: batch.attempt for batch in before}
    return len(before) == len(after) and all(known.get(batch.batch_id) == batch.attempt for batch in after)


def _size(batches: list[Batch]) -> int:
    return sum(body_bytes(batch.messages) for batch in batches)


def _moment(wake_at: int) -> Timestamp:
    return Timestamp(micros=wake_at * 1000)


class DeliverBatches(beam.PTransform):
    """Receipts of batches, with the letters of what was refused. What may leave is sent in the bundle that brought it;
    only what must wait goes through state. `make` makes the dispatcher, once a worker process. Where
    timers do not follow the clock, waiting is done in place. `leave` takes what could not leave in an engine that ends
    and begins again in this process; without it that is counted as left_waiting. Where the engine's state is not
    durable, `buffer` makes what keeps the waiting batches on disk."""

    def __init__(
        self,
        make: Callable[[], Dispatcher],
        clock: Callable[[], float],
        engine: EngineTraits,
        *,
        patience_s: float = 60.0,
        leave: Leave | None = None,
        buffer: MakeBuffer | None = None,
    ) -> None:
        super().__init__()
        shared = Shared()
        self._send = _Send(make, shared)
        self._wait = _Wait(make, shared, clock, engine, patience_s, leave, buffer)

    def expand(self, batches: beam.PCollection[Addressed]) -> beam.PCollection[Receipts]:
        sent = batches | "Send" >> beam.ParDo(self._send).with_outputs(_WAIT, main=_RECEIPTS)
        sent[_RECEIPTS].element_type, sent[_WAIT].element_type = Receipts, HELD
        waited = sent[_WAIT] | "Wait" >> beam.ParDo(self._wait).with_output_types(Receipts)
        return (sent[_RECEIPTS], waited) | "Receipts" >> beam.Flatten()
