"""BatchByRetailer: batches of up to 50 messages and 2 MB, of one retailer and vendor campaign, no customer twice."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Any

import apache_beam as beam
from apache_beam import DoFn
from apache_beam.coders import FloatCoder
from apache_beam.transforms.timeutil import TimeDomain
from apache_beam.transforms.userstate import BagStateSpec, ReadModifyWriteStateSpec, TimerSpec, on_timer
from apache_beam.transforms.util import GroupIntoBatches
from apache_beam.utils.shared import Shared
from apache_beam.utils.timestamp import Timestamp
from msgspec.structs import replace

from schemas.delivery import BATCH, Batch, Message
from transforms.delivery.elements import ADDRESSED, KEYED, Addressed, Batches, Keyed, Messages
from transforms.streaming.elements import END, LIST, LIST_BYTES, StructCoder, at_finish, body_bytes
from transforms.streaming.engine_traits import Clock, EngineTraits

RETRY_SHARDS = 64  # queues a retailer: a backlog is spread over so many keys, each with a small state
BATCH_BYTES = 2 << 20  # of bodies in one batch: vendors take calls of 4 MB, and a body grows as JSON
_FULL, _REST = "full", "rest"
Target = tuple[str, str]  # retailer, vendor campaign
_TARGETED = beam.typehints.Tuple[beam.typehints.Tuple[str, str], Message]


def retry_shard_of(batch: Batch) -> int:
    """The retry shard of a batch, from its first event's id: a batch that is tried again keeps its retry shard."""
    return sum(batch.messages[0].event_id.encode()) % RETRY_SHARDS


def cut(messages: list[Message]) -> tuple[list[Batch], list[Message]]:
    """(full batches, the remainder) of messages of one retailer and vendor campaign. A batch is full with 50 messages,
    or when the next one would not fit into its 2 MB. No customer is in a batch twice."""
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
    """The messages in order, in parts as large as a batch may be; of large bodies a part has fewer."""
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
    """Batches of all messages of one retailer and vendor campaign, the last ones not full."""
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
    """(a batch of the first `messages` messages, the rest of it if there is one)."""
    if messages >= len(batch.messages):
        return batch, []
    return replace(batch, messages=batch.messages[:messages]), [replace(batch, messages=batch.messages[messages:])]


class _Cut(DoFn):
    """Yields the batches that a list fills by itself; the remainders go on under the list's key."""

    def process(self, element: Keyed) -> Iterator[Any]:
        key, messages = element
        remainders: list[Message] = []
        for (retailer, _), targeted in _by_target(messages.items).items():
            full, remainder = cut(targeted)
            remainders += remainder
            if full:
                yield (retailer, retry_shard_of(full[0])), Batches(full)
        if remainders:
            yield beam.pvalue.TaggedOutput(_REST, (key, Messages(remainders)))


class _Gather(DoFn):
    """Keyed as the lists are: `rest` holds the remainders of many retailers and dies when its timer fires, `wait_s`
    after the first of them came, or when the input ends. `due` is the time of the timer, or the process's memory where
    that mirrors the state."""

    REST = BagStateSpec("rest", StructCoder(Messages))
    DUE = ReadModifyWriteStateSpec("due", FloatCoder())
    LEAVE = TimerSpec("leave", TimeDomain.REAL_TIME)
    OVER = TimerSpec("over", TimeDomain.WATERMARK)

    def __init__(self, wait_s: float, clock: Clock, engine: EngineTraits) -> None:
        self._wait_s, self._clock, self._shared = wait_s, clock, Shared()
        self._wall_clock_timers, self._in_memory = engine.wall_clock_timers, engine.memory_mirrors_state

    def setup(self) -> None:
        self._due: _DueTimes = self._shared.acquire(_DueTimes)

    def process(
        self,
        element: Keyed,
        rest: Any = DoFn.StateParam(REST),
        due: Any = DoFn.StateParam(DUE),
        leave: Any = DoFn.TimerParam(LEAVE),
        over: Any = DoFn.TimerParam(OVER),
    ) -> Iterator[Addressed]:
        key, messages = element
        rest.add(messages)
        if (self._due.by_key.get(key) if self._in_memory else due.read()) is None:
            due_at = self._clock() + self._wait_s
            if self._in_memory:
                self._due.by_key[key] = due_at
            else:
                due.write(due_at)
            if self._wall_clock_timers:
                leave.set(Timestamp(due_at))
            over.set(END)
        yield from ()

    @on_timer(LEAVE)
    def waited(
        self, key: Any = DoFn.KeyParam, rest: Any = DoFn.StateParam(REST), due: Any = DoFn.StateParam(DUE)
    ) -> Iterator[Addressed]:
        """Yields the batches of the gathered remainders."""
        yield from self._leave(key, rest, due)

    @on_timer(OVER)
    def end(
        self,
        key: Any = DoFn.KeyParam,
        rest: Any = DoFn.StateParam(REST),
        due: Any = DoFn.StateParam(DUE),
        leave: Any = DoFn.TimerParam(LEAVE),
    ) -> Iterator[Addressed]:
        """Yields them when the input has ended: nothing more will come."""
        leave.clear()
        yield from self._leave(key, rest, due)

    def _leave(self, key: Any, rest: Any, due: Any) -> Iterator[Addressed]:
        messages = [message for gathered in rest.read() for message in gathered.items]
        rest.clear()
        if self._in_memory:
            self._due.by_key.pop(key, None)
        else:
            due.clear()
        for (retailer, _), targeted in _by_target(messages).items():
            yield from _addressed(retailer, pack(targeted))


class _DueTimes:
    """When the remainders of each key leave, as this process remembers it."""

    def __init__(self) -> None:
        self.by_key: dict[Any, float] = {}


class _Pack(DoFn):
    """Packs the groups of GroupIntoBatches, and yields the batches of a bundle together: as few lists as may be."""

    def start_bundle(self) -> None:
        self._batches: dict[str, list[Batch]] = defaultdict(list)

    def process(self, element: tuple[Any, Iterable[Message]]) -> Iterator[Addressed]:
        messages = list(element[1])
        self._batches[messages[0].retailer_id] += pack(messages)
        yield from ()

    def finish_bundle(self) -> Iterator[Any]:
        for retailer, batches in self._batches.items():
            yield from map(at_finish, _addressed(retailer, batches))


def _addressed(retailer: str, batches: list[Batch]) -> Iterator[Addressed]:
    """((retailer, retry shard), batches) in lists as large as an element may be."""
    part, size = list[Batch](), 0
    for batch in batches:
        size += body_bytes(batch.messages)
        if part and (len(part) == LIST // BATCH or size > LIST_BYTES):
            yield (retailer, retry_shard_of(part[0])), Batches(part)
            part, size = [], body_bytes(batch.messages)
        part.append(batch)
    if part:
        yield (retailer, retry_shard_of(part[0])), Batches(part)


def _targeted(element: Keyed) -> Iterator[tuple[Target, Message]]:
    for message in element[1].items:
        yield (message.retailer_id, message.vendor_campaign), message


def _by_target(messages: list[Message]) -> dict[Target, list[Message]]:
    targets: dict[Target, list[Message]] = defaultdict(list)
    for message in messages:
        targets[message.retailer_id, message.vendor_campaign].append(message)
    return targets


class BatchByRetailer(beam.PTransform):
    """Lists of batches, keyed by (retailer, retry shard), of one or several collections of lists.

    Messages that fill a batch in their own list leave at once. Remainders wait for others, at most `wait_s` seconds:
    in Beam's GroupIntoBatches where the engine has `native_batches` (docs/decisions/015), in a step of our own
    elsewhere (docs/decisions/010). Where timers do not follow the clock they wait for the end of the input. Steps:
    Cut0, Cut1, Rest, then Gather, or Targets, GroupIntoBatches and Pack; Batches.
    """

    def __init__(self, wait_s: float, clock: Clock, engine: EngineTraits) -> None:
        super().__init__()
        if wait_s <= 0:
            raise ValueError(f"wait_s {wait_s} must be positive")
        self._wait_s, self._clock, self._engine = wait_s, clock, engine

    def expand(self, lists: tuple[beam.PCollection[Keyed], ...]) -> beam.PCollection[Addressed]:
        full, rest = list[beam.PCollection[Addressed]](), list[beam.PCollection[Keyed]]()
        for place, collection in enumerate(lists):
            parts = collection | f"Cut{place}" >> beam.ParDo(_Cut()).with_outputs(_REST, main=_FULL)
            parts[_FULL].element_type, parts[_REST].element_type = ADDRESSED, KEYED
            full.append(parts[_FULL])
            rest.append(parts[_REST])
        remainders = rest[0] if len(rest) == 1 else rest | "Rest" >> beam.Flatten()
        waited = self._group(remainders) if self._engine.native_batches else self._gather(remainders)
        return (*full, waited) | "Batches" >> beam.Flatten()

    def _gather(self, remainders: beam.PCollection[Keyed]) -> beam.PCollection[Addressed]:
        gather = _Gather(self._wait_s, self._clock, self._engine)
        return remainders | "Gather" >> beam.ParDo(gather).with_output_types(ADDRESSED)

    def _group(self, remainders: beam.PCollection[Keyed]) -> beam.PCollection[Addressed]:
        """The same by Beam's own transform; a cluster spreads the messages of a key over shards."""
        group = GroupIntoBatches if self._engine.single_process else GroupIntoBatches.WithShardedKey
        wait_s = self._wait_s if self._engine.wall_clock_timers else None
        return (
            remainders
            | "Targets" >> beam.FlatMap(_targeted).with_output_types(_TARGETED)
            | "GroupIntoBatches" >> group(BATCH, wait_s, self._clock)
            | "Pack" >> beam.ParDo(_Pack()).with_output_types(ADDRESSED)
        )
