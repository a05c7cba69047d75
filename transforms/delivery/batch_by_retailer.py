"""BatchByRetailer: batches of 50 and 2 MB of one retailer and vendor campaign, no customer twice in one."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any

import apache_beam as beam
from apache_beam.coders import FloatCoder
from apache_beam.transforms.timeutil import TimeDomain
from apache_beam.transforms.userstate import BagStateSpec, ReadModifyWriteStateSpec, TimerSpec, on_timer
from apache_beam.utils.shared import Shared
from apache_beam.utils.timestamp import Timestamp
from msgspec.structs import replace

from schemas.delivery import BATCH, Batch, Message
from transforms.delivery.elements import ADDRESSED, KEYED, Addressed, Batches, Keyed, Messages
from transforms.streaming.elements import END, LIST, LIST_BYTES, StructCoder, body_bytes
from transforms.streaming.engine_traits import EngineTraits

RETRY_SHARDS = 64  # queues a retailer: a backlog is spread over so many keys, each with a small state
BATCH_BYTES = 2 << 20  # of bodies in one batch: vendors take calls of 4 MB, and a body grows as JSON
_FULL, _REST = "full", "rest"
Target = tuple[str, str]  # retailer, vendor campaign


def retry_shard_of(batch: Batch) -> int:
    """The retry shard of a batch, from its first event's id: a batch that is tried again keeps its retry shard."""
    return sum(batch.messages[0].event_id.encode()) % RETRY_SHARDS


def cut(messages: list[Message]) -> tuple[list[Batch], list[Message]]:
    """Full batches, and what is left over, of messages of one retailer and vendor campaign.

    A batch is full with 50 messages, or when the next one would not fit into its 2 MB. A customer who stands in the
    messages more than once is never twice in one batch.
    """
    full: list[Batch] = []
    layers: list[list[Message]] = []
    times: dict[str, int] = defaultdict(int)
    for message in messages:
        layer = times[message.customer_id]
        times[message.customer_id] += 1
        if layer == len(layers):
            layers.append([])
        layers[layer].append(message)
    rest: list[Message] = []
    for layered in layers:
        *whole, last = _parts(layered)
        full += [Batch(part) for part in whole]
        if len(last) == BATCH:
            full.append(Batch(last))
        else:
            rest += last
    return full, rest


def _parts(messages: list[Message]) -> list[list[Message]]:
    """The messages in order, in parts as large as a batch may be."""
    longest = max([len(message.body) for message in messages])
    if longest * BATCH <= BATCH_BYTES:
        return [messages[at : at + BATCH] for at in range(0, len(messages), BATCH)]
    parts, size = [[messages[0]]], len(messages[0].body)
    for message in messages[1:]:
        size += len(message.body)
        if len(parts[-1]) == BATCH or size > BATCH_BYTES:
            parts.append([])
            size = len(message.body)
        parts[-1].append(message)
    return parts


def pack(messages: list[Message]) -> list[Batch]:
    """Batches of all the messages, the last ones not full."""
    full, rest = cut(messages)
    while rest:
        seen: set[str] = set()
        batch: list[Message] = []
        later: list[Message] = []
        size = 0
        for message in rest:
            small = not batch or size + len(message.body) <= BATCH_BYTES
            fits = small and message.customer_id not in seen and len(batch) < BATCH
            seen.add(message.customer_id)
            size += len(message.body) if fits else 0
            (batch if fits else later).append(message)
        full.append(Batch(batch))
        rest = later
    return full


def split(batch: Batch, messages: int) -> tuple[Batch, list[Batch]]:
    """So many messages of a batch, and the rest of it, if there is one."""
    if messages >= len(batch.messages):
        return batch, []
    return replace(batch, messages=batch.messages[:messages]), [replace(batch, messages=batch.messages[messages:])]


class _Cut(beam.DoFn):
    """What fills batches in its own list leaves; the rest goes on under the list's key."""

    def process(self, element: Keyed) -> Iterator[Any]:
        key, messages = element
        left: list[Message] = []
        for (retailer, _), own in _by_target(messages.items).items():
            full, rest = cut(own)
            left += rest
            if full:
                yield (retailer, retry_shard_of(full[0])), Batches(full)
        if left:
            yield beam.pvalue.TaggedOutput(_REST, (key, Messages(left)))


class _Gather(beam.DoFn):
    """Keyed as the lists are: `rest` holds the remainders of many retailers and dies when its timer fires, `wait_s`
    after the first of them came, or when the input ends. Where the engine runs in this one process (`alone`) it knows
    by itself when that is; elsewhere `due` says so."""

    REST = BagStateSpec("rest", StructCoder(Messages))
    DUE = ReadModifyWriteStateSpec("due", FloatCoder())
    LEAVE = TimerSpec("leave", TimeDomain.REAL_TIME)
    OVER = TimerSpec("over", TimeDomain.WATERMARK)

    def __init__(self, wait_s: float, clock: Callable[[], float], engine: EngineTraits) -> None:
        self._wait_s, self._clock, self._shared = wait_s, clock, Shared()
        self._real_time, self._alone = engine.wall_clock_timers, engine.memory_mirrors_state

    def setup(self) -> None:
        self._known: _Due = self._shared.acquire(_Due)

    def process(
        self,
        element: Keyed,
        rest: Any = beam.DoFn.StateParam(REST),
        due: Any = beam.DoFn.StateParam(DUE),
        leave: Any = beam.DoFn.TimerParam(LEAVE),
        over: Any = beam.DoFn.TimerParam(OVER),
    ) -> Iterator[Addressed]:
        key, messages = element
        rest.add(messages)
        if (self._known.at.get(key) if self._alone else due.read()) is None:
            at = self._clock() + self._wait_s
            if self._alone:
                self._known.at[key] = at
            else:
                due.write(at)
            if self._real_time:
                leave.set(Timestamp(at))
            over.set(END)
        yield from ()

    @on_timer(LEAVE)
    def waited(
        self,
        key: Any = beam.DoFn.KeyParam,
        rest: Any = beam.DoFn.StateParam(REST),
        due: Any = beam.DoFn.StateParam(DUE),
    ) -> Iterator[Addressed]:
        """The batches of what has gathered."""
        yield from self._leave(key, rest, due)

    @on_timer(OVER)
    def end(
        self,
        key: Any = beam.DoFn.KeyParam,
        rest: Any = beam.DoFn.StateParam(REST),
        due: Any = beam.DoFn.StateParam(DUE),
        leave: Any = beam.DoFn.TimerParam(LEAVE),
    ) -> Iterator[Addressed]:
        """The input has ended: nothing more will come."""
        leave.clear()
        yield from self._leave(key, rest, due)

    def _leave(self, key: Any, rest: Any, due: Any) -> Iterator[Addressed]:
        messages = [message for some in rest.read() for message in some.items]
        rest.clear()
        if self._alone:
            self._known.at.pop(key, None)
        else:
            due.clear()
        for (retailer, _), own in _by_target(messages).items():
            for batches in _in_elements(pack(own)):
                yield (retailer, retry_shard_of(batches[0])), Batches(batches)


def _in_elements(batches: list[Batch]) -> Iterator[list[Batch]]:
    """The batches in lists as large as an element may be."""
    some, size = list[Batch](), 0
    for batch in batches:
        size += body_bytes(batch.messages)
        if some and (len(some) == LIST // BATCH or size > LIST_BYTES):
            yield some
            some, size = [], body_bytes(batch.messages)
        some.append(batch)
    if some:
        yield some


class _Due:
    """When the remainders of each key leave, as this process knows."""

    def __init__(self) -> None:
        self.at: dict[Any, float] = {}


def _by_target(messages: list[Message]) -> dict[Target, list[Message]]:
    targets: dict[Target, list[Message]] = defaultdict(list)
    for message in messages:
        targets[message.retailer_id, message.vendor_campaign].append(message)
    return targets


class BatchByRetailer(beam.PTransform):
    """Lists of batches, keyed by (retailer, retry shard), of one or several collections of lists. What fills a batch in
    its own list leaves at once; the rest meets the rest of other lists and leaves, in batches as full as they come,
    after `wait_s` seconds (docs/decisions/010 says why not in GroupIntoBatches). `wall_clock_timers` and `alone` as
    DropDuplicates has them."""

    def __init__(self, wait_s: float, clock: Callable[[], float], engine: EngineTraits) -> None:
        super().__init__()
        if wait_s <= 0:
            raise ValueError(f"wait_s {wait_s} must be positive")
        self._gather = _Gather(wait_s, clock, engine)

    def expand(self, lists: tuple[beam.PCollection[Keyed], ...]) -> beam.PCollection[Addressed]:
        full, rest = list[beam.PCollection[Addressed]](), list[beam.PCollection[Keyed]]()
        for place, some in enumerate(lists):
            cuts = some | f"Cut{place}" >> beam.ParDo(_Cut()).with_outputs(_REST, main=_FULL)
            cuts[_FULL].element_type, cuts[_REST].element_type = ADDRESSED, KEYED
            full.append(cuts[_FULL])
            rest.append(cuts[_REST])
        whole = rest[0] if len(rest) == 1 else rest | "Rest" >> beam.Flatten()
        gathered = whole | "Gather" >> beam.ParDo(self._gather).with_output_types(ADDRESSED)
        return (*full, gathered) | "Batches" >> beam.Flatten()
