"""HoldUntilDue under TestStream: nothing early, nothing kept back, nothing lost at the end."""

from __future__ import annotations

from itertools import chain
from typing import Any

import apache_beam as beam
import pytest
from apache_beam.testing.test_stream import TestStream
from support.streams import CLUSTER, LOCAL, NO_TIMERS, Memory, any_message, run_stream, stream_clock

from schemas.delivery import Message
from transforms.delivery.counters import COUNTERS
from transforms.delivery.elements import KEYED, Messages, due_times
from transforms.streaming.counters import Counters, Limit
from transforms.streaming.engine_traits import EngineTraits
from transforms.streaming.hold_until_due import HoldUntilDue, split_due


def keyed(*messages: Message) -> Any:
    """A list of messages under one key."""
    return (("kroger", 0), Messages(list(messages)))


def due(number: int, seconds: float, **changes: Any) -> Message:
    """A message that is due at a time of the stream."""
    return any_message(number, deliver_after=int(seconds * 1000), **changes)


def hold(engine: EngineTraits = CLUSTER, **options: Any) -> HoldUntilDue:
    """The step on an engine."""
    return HoldUntilDue(Messages, due_times, stream_clock, engine, COUNTERS, **options)


def passed(stream: TestStream) -> list[tuple[float, list[int]]]:
    """(time, numbers) of the lists that came through."""
    made = run_stream(stream, lambda lists: lists | hold() | beam.Flatten(), KEYED)
    return [(time, [int(one.event_id, 16) for one in messages.items]) for time, (_, messages) in made]


def test_what_is_due_passes_at_once() -> None:
    assert passed(TestStream().add_elements([keyed(due(1, 0), due(2, 0))]).advance_watermark_to_infinity()) == [
        (0, [1, 2])
    ]


def test_what_is_not_due_waits_for_its_second() -> None:
    stream = TestStream().add_elements([keyed(due(1, 0), due(2, 60), due(3, 60), due(4, 3600))])
    stream = stream.advance_processing_time(59).advance_processing_time(1).advance_processing_time(3540)
    assert passed(stream.advance_watermark_to_infinity()) == [(0, [1]), (60, [2, 3]), (3600, [4])]


def test_a_fraction_of_a_second_is_never_early() -> None:
    stream = TestStream().add_elements([keyed(due(1, 9.001))]).advance_processing_time(9).advance_processing_time(1)
    assert passed(stream.advance_watermark_to_infinity()) == [(10, [1])]


def test_what_comes_later_for_the_same_second_waits_with_the_rest() -> None:
    stream = TestStream().add_elements([keyed(due(1, 60))]).advance_processing_time(30)
    stream = stream.add_elements([keyed(due(2, 60))]).advance_processing_time(30)
    made = passed(stream.advance_watermark_to_infinity())
    assert [time for time, _ in made] == [60, 60]
    assert sorted(chain.from_iterable(numbers for _, numbers in made)) == [1, 2]


BUFFER = [Memory()]


def memory() -> Memory:
    return BUFFER[0]


def test_what_is_held_is_in_the_buffer_until_it_is_due() -> None:
    BUFFER[0] = Memory()
    step = hold(LOCAL, buffer=memory)
    stream = TestStream().add_elements([keyed(due(1, 0), due(2, 60), due(3, 9_000))]).advance_processing_time(60)
    made = run_stream(stream.advance_watermark_to_infinity(), lambda lists: lists | step | beam.Flatten(), KEYED)
    assert [messages.items for _, (_, messages) in made] == [[due(1, 0)], [due(2, 60)]]
    assert (BUFFER[0].written, BUFFER[0].parts) == (2, {})


def test_what_is_due_waits_while_too_much_is_in_flight(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[float] = []

    def bytes_in_flight(counters: Counters) -> int:
        asked.append(stream_clock())
        return 11 if len(asked) <= 3 else 0

    monkeypatch.setattr(Counters, "bytes_in_flight", bytes_in_flight)
    step = hold(LOCAL, most_in_flight=Limit(1 << 40, 10))
    stream = TestStream().add_elements([keyed(due(2, 60))]).advance_processing_time(60)
    for _ in range(5):
        stream = stream.advance_processing_time(1)
    made = run_stream(stream.advance_watermark_to_infinity(), lambda lists: lists | step | beam.Flatten(), KEYED)
    assert [(time, messages.items) for time, (_, messages) in made] == [(63, [due(2, 60)])]


def test_what_is_due_and_was_not_released_goes_when_the_input_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Counters, "bytes_in_flight", lambda _: 11)
    step = hold(LOCAL, most_in_flight=Limit(1 << 40, 10))
    stream = TestStream().add_elements([keyed(due(2, 60))]).advance_processing_time(60)
    made = run_stream(stream.advance_watermark_to_infinity(), lambda lists: lists | step | beam.Flatten(), KEYED)
    assert [messages.items for _, (_, messages) in made] == [[due(2, 60)]]


def test_when_the_input_ends_what_is_not_due_is_left_out_and_counted() -> None:
    before = COUNTERS.tally["left_waiting"]
    stream = TestStream().add_elements([keyed(due(1, 0), due(2, 86_400), due(3, 90_000))])
    assert passed(stream.advance_watermark_to_infinity()) == [(0, [1])]
    assert COUNTERS.tally["left_waiting"] - before == 2


def test_where_timers_do_not_follow_the_clock_what_is_not_due_is_left_out_at_once_and_counted() -> None:
    before = COUNTERS.tally["left_waiting"]
    stream = TestStream().add_elements([keyed(due(1, 0), due(2, 60))]).advance_processing_time(60)
    step = hold(NO_TIMERS)
    made = run_stream(stream.advance_watermark_to_infinity(), lambda lists: lists | step | beam.Flatten(), KEYED)
    assert [[one.event_id for one in messages.items] for _, (_, messages) in made] == [[f"{1:032x}"]]
    assert COUNTERS.tally["left_waiting"] - before == 1


@pytest.mark.parametrize("at", [253_402_300_799_999, (1 << 63) - 1], ids=["the year 9999", "the end of time"])
def test_what_is_due_at_the_end_of_time_waits_and_the_others_leave_when_they_are_due(at: int) -> None:
    before = COUNTERS.tally["left_waiting"]
    stream = TestStream().add_elements([keyed(due(1, 0), any_message(2, deliver_after=at), due(3, 60))])
    stream = stream.advance_processing_time(60).advance_processing_time(86_400 * 365)
    assert passed(stream.advance_watermark_to_infinity()) == [(0, [1]), (60, [3])]
    assert COUNTERS.tally["left_waiting"] - before == 1


@pytest.mark.parametrize(
    ("message", "passes"),
    [
        (due(1, 100), True),
        (due(1, 100.001), False),
        (due(1, 200, expires_at=150_000), True),  # never to be sent: the delivery counts it as expired
        (due(1, 200, expires_at=200_000), True),
        (due(1, 200, expires_at=200_001), False),
        (due(1, 0, expires_at=1), True),
    ],
)
def test_only_what_can_still_be_sent_waits(message: Message, passes: bool) -> None:
    now, early = split_due([message], due_times([message]), 100_000)
    assert bool(now) is passes
    assert bool(early) is not passes
