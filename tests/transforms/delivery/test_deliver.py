"""DeliverBatches under TestStream, with a dispatcher that delivers each event at its time."""

from __future__ import annotations

import threading
from itertools import chain
from types import SimpleNamespace
from typing import Any

import apache_beam as beam
import pytest
from apache_beam.testing.test_stream import TestStream
from support.receipts_factory import any_receipt
from support.streams import LOCAL, Memory, any_message, run_stream, stream_clock

from schemas.contracts import DeadLetter
from schemas.delivery import Batch
from transforms.delivery import deliver_batches as deliver
from transforms.delivery.batch_by_retailer import retry_shard_of
from transforms.delivery.counters import COUNTERS
from transforms.delivery.deliver_batches import DeliverBatches, DeliveryResult, is_unchanged
from transforms.delivery.elements import ADDRESSED, Batches, Receipts

SHARD = [1 << 4 * place for place in range(9)]  # numbers of events that share a retry shard
SLEPT = [0.0]
PATIENCE_S = 60.0
NEVER = 1e6


def clock() -> float:
    """The stream's seconds and those that the step slept."""
    return stream_clock() + SLEPT[0]


class Gate:
    """Delivers an event at its second, rejects the `bad` ones, and records its calls."""

    def __init__(self) -> None:
        self.due: dict[int, float] = {}
        self.bad: set[int] = set()
        self.asked: list[tuple[str, float, list[int]]] = []
        self.opened = 0

    def open(self) -> None:
        self.opened += 1

    def close(self) -> None:
        pass

    def deliver(self, retailer: str, batches: list[Batch]) -> DeliveryResult:
        self.start(retailer, batches)
        return self.finish(retailer, batches)

    def start(self, retailer: str, batches: list[Batch]) -> None:
        self.asked.append(("start", clock(), numbers(*batches)))

    def finish(self, retailer: str, batches: list[Batch]) -> DeliveryResult:
        self.asked.append(("finish", clock(), numbers(*batches)))
        result = DeliveryResult([], [], [], 0)
        for batch in batches:
            due = max(self.due.get(number, 0) for number in numbers(batch))
            if due > clock():
                result.waiting.append(Batch(batch.messages, batch.attempt, int(due * 1000)))
            for message in batch.messages if due <= clock() else []:
                bad = int(message.event_id, 16) in self.bad
                outcome = "rejected" if bad else "accepted"
                now = int(clock() * 1000)
                result.receipts.append(any_receipt(event_id=message.event_id, outcome=outcome, settled_at=now))
                result.dead.extend([DeadLetter("DeliverBatches", "r", "", "", message.body, "")] if bad else [])
        return result._replace(wake_at=min((one.not_before for one in result.waiting), default=0))

    def times(self, verb: str = "start") -> list[float]:
        return [at for said, at, _ in self.asked if said == verb]


GATE = [Gate()]


def make() -> Gate:
    return GATE[0]


@pytest.fixture(autouse=True)
def gate(monkeypatch: pytest.MonkeyPatch) -> Gate:
    GATE[0], SLEPT[0] = Gate(), 0.0

    def sleep(seconds: float) -> None:
        SLEPT[0] += seconds

    monkeypatch.setattr(deliver, "time", SimpleNamespace(sleep=sleep))
    return GATE[0]


def numbers(*batches: Batch) -> list[int]:
    return [int(message.event_id, 16) for batch in batches for message in batch.messages]


def addressed(*numbered: int, retailer: str = "kroger") -> Any:
    """A list of batches of one event each."""
    batches = [Batch([any_message(number, retailer_id=retailer)]) for number in numbered]
    return ((retailer, retry_shard_of(batches[0])), Batches(batches))


def delivered_at(
    stream: TestStream, *, dead: bool = False, wall_clock_timers: bool = True
) -> list[tuple[float, list[int]]]:
    """(time, numbers) of the receipts, or the bytes of the dead letters, until the input ends."""

    def step(batches: Any) -> Any:
        transform = DeliverBatches(
            make, clock, LOCAL._replace(wall_clock_timers=wall_clock_timers), patience_s=PATIENCE_S
        )
        describe = _letters if dead else _at
        return batches | "DeliverBatches" >> transform | beam.Map(describe).with_output_types(Any)

    if dead:
        return [(at, sizes) for at, sizes in run_stream(stream, step, ADDRESSED) if sizes]
    return [told for _, told in run_stream(stream, step, ADDRESSED)]


def _at(receipts: Receipts) -> Any:
    return receipts.items[0].settled_at / 1000, [int(item.event_id, 16) for item in receipts.items]


def _letters(receipts: Receipts) -> list[int]:
    return [len(letter.data) for letter in receipts.letters]


def ended(*elements: Any) -> TestStream:
    return TestStream().add_elements(list(elements)).advance_watermark_to_infinity()


def test_batches_are_sent_at_once(gate: Gate) -> None:
    assert delivered_at(ended(addressed(1, 2), addressed(3, retailer="aldi"))) == [(0, [1, 2]), (0, [3])]
    assert gate.opened == 1


def test_refused_deliveries_become_dead_letters_with_their_receipts(gate: Gate) -> None:
    gate.bad = {2}
    before = {name: COUNTERS.tally[name] for name in ("batched", "accepted", "rejected")}
    assert delivered_at(ended(addressed(1, 2, 3)), dead=True) == [(0, [len(b"body")])]
    assert {name: COUNTERS.tally[name] - count for name, count in before.items()} == {
        "batched": 3,
        "accepted": 2,
        "rejected": 1,
    }


def test_a_waiting_batch_is_sent_at_its_time_and_not_tried_before(gate: Gate) -> None:
    gate.due = {1: 30.0}
    stream = TestStream().add_elements([addressed(1, 2)])
    for _ in range(4):
        stream = stream.advance_processing_time(10)
    assert delivered_at(stream.advance_watermark_to_infinity()) == [(0, [2]), (30, [1])]
    assert gate.times() == [0, 30]


@pytest.mark.parametrize("order", [(10, 20, 30), (30, 20, 10), (20, 30, 10)])
def test_several_lists_of_one_retry_shard_are_sent_each_at_its_own_time(gate: Gate, order: tuple[float, ...]) -> None:
    gate.due = dict(zip(SHARD, order, strict=False))
    stream = TestStream()
    for number in SHARD[:3]:
        stream = stream.add_elements([addressed(number)])
    for _ in range(3):
        stream = stream.advance_processing_time(10)
    delivered = delivered_at(stream.advance_watermark_to_infinity())
    assert delivered == sorted((due, [number]) for number, due in gate.due.items())


def test_new_lists_do_not_delay_waiting_ones(gate: Gate) -> None:
    gate.due = {number: 25.0 if place == 0 else NEVER for place, number in enumerate(SHARD)}
    stream = TestStream()
    for number in SHARD[:6]:
        stream = stream.add_elements([addressed(number)]).advance_processing_time(10)
    assert delivered_at(stream.advance_watermark_to_infinity()) == [(30, [SHARD[0]])]


def test_retry_shards_and_retailers_wait_apart(gate: Gate) -> None:
    gate.due = {1: 20.0, 2: 10.0, 3: 30.0}
    stream = TestStream().add_elements([addressed(1), addressed(2), addressed(3, retailer="aldi")])
    for _ in range(3):
        stream = stream.advance_processing_time(10)
    assert delivered_at(stream.advance_watermark_to_infinity()) == [(10, [2]), (20, [1]), (30, [3])]


def test_at_the_end_of_the_input_batches_due_within_the_patience_are_sent(gate: Gate) -> None:
    gate.due = {SHARD[0]: 20.0, SHARD[1]: 79.0, SHARD[2]: 200.0, SHARD[3]: NEVER}
    before = COUNTERS.tally["left_waiting"]
    assert delivered_at(ended(addressed(*SHARD[:4]))) == [(20, [SHARD[0]]), (79, [SHARD[1]])]
    assert COUNTERS.tally["left_waiting"] - before == 2
    assert clock() == 79.0


def test_the_patience_is_shared_by_all_retailers_and_shards(gate: Gate) -> None:
    gate.due = {1: NEVER, 2: 30.0, 3: 30.0}
    before = COUNTERS.tally["left_waiting"]
    delivered = delivered_at(ended(addressed(1), addressed(2), addressed(3, retailer="aldi")), wall_clock_timers=False)
    assert delivered == [(30, [2]), (30, [3])]
    assert COUNTERS.tally["left_waiting"] - before == 1


def test_an_engine_whose_timers_do_not_follow_the_clock_sleeps_in_the_step(gate: Gate) -> None:
    gate.due = {1: 5.0, 2: 50.0, 3: 300.0}
    before = COUNTERS.tally["left_waiting"]
    delivered = delivered_at(ended(addressed(1, 2, 3, 4)), wall_clock_timers=False)
    assert delivered == [(0, [4]), (5, [1]), (50, [2])]
    assert COUNTERS.tally["left_waiting"] - before == 1


class Meeting(Gate):
    """Lets a list be concluded only while one of another retailer is under way; tells what was under way together."""

    def __init__(self) -> None:
        super().__init__()
        self.two = threading.Barrier(2, timeout=30)
        self.lock, self.under_way, self.together = threading.Lock(), list[str](), list[list[str]]()

    def start(self, retailer: str, batches: list[Batch]) -> None:
        with self.lock:
            self.under_way.append(retailer)
            self.together.append(sorted(self.under_way))
        super().start(retailer, batches)

    def finish(self, retailer: str, batches: list[Batch]) -> DeliveryResult:
        self.two.wait()
        with self.lock:
            self.under_way.remove(retailer)
        return super().finish(retailer, batches)


def test_retailers_are_sent_concurrently_and_lists_of_one_in_order() -> None:
    GATE[0] = meeting = Meeting()
    delivered = delivered_at(
        ended(addressed(1), addressed(2, retailer="aldi"), addressed(3), addressed(4, retailer="coop"))
    )
    assert sorted(number for _, some in delivered for number in some) == [1, 2, 3, 4]
    assert any(len(some) > 1 for some in meeting.together)
    assert not [some for some in meeting.together if len(some) > len(set(some))]
    verbs = [(verb, some[0]) for verb, _, some in meeting.asked if some[0] in (1, 3)]
    assert verbs == [("start", 1), ("finish", 1), ("start", 3), ("finish", 3)]


def test_nothing_is_lost_or_sent_twice_whatever_waits(gate: Gate) -> None:
    gate.due = {number: float(number * 7 % 90) for number in range(1, 60)}
    stream = TestStream()
    for start in range(1, 60, 10):
        lists = [addressed(number, number + 1) for number in range(start, min(start + 10, 59), 2)]
        stream = stream.add_elements(lists).advance_processing_time(15)
    delivered = delivered_at(stream.advance_watermark_to_infinity())
    assert sorted(chain.from_iterable(some for _, some in delivered)) == list(range(1, 59))
    assert all(at >= gate.due[number] for at, some in delivered for number in some)


BUFFER = [Memory()]


def memory() -> Memory:
    return BUFFER[0]


def test_waiting_lists_are_in_the_buffer_and_rewritten_only_when_some_was_sent(gate: Gate) -> None:
    gate.due = {SHARD[0]: 60, SHARD[1]: 60, SHARD[2]: 90}
    BUFFER[0] = Memory()
    stream = TestStream().add_elements([addressed(*SHARD[:3])])
    for _ in range(9):
        stream = stream.advance_processing_time(10)

    def step(batches: Any) -> Any:
        transform = DeliverBatches(make, clock, LOCAL, patience_s=PATIENCE_S, buffer=memory)
        return batches | "DeliverBatches" >> transform | beam.Map(_at).with_output_types(Any)

    receipts = [told for _, told in run_stream(stream.advance_watermark_to_infinity(), step, ADDRESSED)]
    assert receipts == [(60, SHARD[:2]), (90, SHARD[2:3])]
    assert (BUFFER[0].written, BUFFER[0].parts) == (2, {})


def test_a_list_behind_one_that_cannot_be_sent_is_tried_a_second_later(gate: Gate) -> None:
    gate.due = {SHARD[0]: 60, SHARD[1]: 5}
    BUFFER[0] = Memory()
    stream = TestStream().add_elements([addressed(SHARD[0])]).add_elements([addressed(SHARD[1])])
    for _ in range(60):
        stream = stream.advance_processing_time(1)

    def step(batches: Any) -> Any:
        transform = DeliverBatches(make, clock, LOCAL, patience_s=PATIENCE_S, buffer=memory)
        return batches | "DeliverBatches" >> transform | beam.Map(_at).with_output_types(Any)

    receipts = [told for _, told in run_stream(stream.advance_watermark_to_infinity(), step, ADDRESSED)]
    assert receipts == [(5, [SHARD[1]]), (60, [SHARD[0]])]
    assert BUFFER[0].parts == {}


def test_batches_are_unchanged_when_nothing_left_and_no_call_was_made() -> None:
    one, two = Batch([any_message(1)]), Batch([any_message(2)])
    assert is_unchanged([one, two], [two, Batch(one.messages, 0, 99)])
    assert not is_unchanged([one, two], [two])
    assert not is_unchanged([one], [Batch(one.messages, 1)])
    assert not is_unchanged([one], [two])
