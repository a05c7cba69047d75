"""DropDuplicates under TestStream: every way in which a duplicate can come."""

from __future__ import annotations

from itertools import chain
from typing import Any

import pytest
from apache_beam.testing.test_stream import TestStream
from support.streams import CLUSTER, LOCAL, any_message, run_stream, stream_clock

from transforms.delivery.counters import COUNTERS
from transforms.delivery.elements import KEYED, Messages, duplicate_ids
from transforms.streaming.drop_duplicates import DropDuplicates

WEEK = 7 * 86_400.0
DAY = 86_400.0


def keyed(*numbers: int, shard: int = 0) -> Any:
    """A list of messages under one key."""
    return (("kroger", shard), Messages([any_message(number) for number in numbers]))


ENGINE = CLUSTER


@pytest.fixture(autouse=True, params=[CLUSTER, LOCAL], ids=["with a stamp", "from memory"])
def _engine(request: pytest.FixtureRequest) -> None:
    """Every test runs both ways."""
    global ENGINE
    ENGINE = request.param


def passed(stream: TestStream, remember_s: float = WEEK) -> list[tuple[float, list[int]]]:
    """(time, numbers) of the lists that came through, until the input ends."""
    drop = DropDuplicates(duplicate_ids, remember_s, stream_clock, ENGINE, COUNTERS)
    made = run_stream(stream, lambda lists: lists | drop, KEYED)
    return [(time, [int(one.event_id, 16) for one in messages.items]) for time, (_, messages) in made]


def test_a_repeat_inside_one_list_is_dropped() -> None:
    assert passed(TestStream().add_elements([keyed(1, 2, 1, 3, 2)]).advance_watermark_to_infinity()) == [(0, [1, 2, 3])]


def test_a_repeat_in_another_list_of_the_same_bundle_is_dropped() -> None:
    stream = TestStream().add_elements([keyed(1, 2), keyed(2, 3)]).advance_watermark_to_infinity()
    assert sorted(chain.from_iterable(numbers for _, numbers in passed(stream))) == [1, 2, 3]


def test_a_repeat_in_a_later_bundle_is_dropped() -> None:
    stream = TestStream().add_elements([keyed(1, 2)]).add_elements([keyed(2, 1)]).add_elements([keyed(3, 1)])
    assert passed(stream.advance_watermark_to_infinity()) == [(0, [1, 2]), (0, [3])]


def test_a_repeat_over_days_of_processing_time_is_dropped() -> None:
    stream = TestStream().add_elements([keyed(1)])
    for _ in range(6):
        stream = stream.advance_processing_time(DAY).add_elements([keyed(1)])
    assert passed(stream.advance_watermark_to_infinity()) == [(0, [1])]


def test_an_id_is_remembered_for_the_whole_time_and_forgotten_within_a_seventh_more() -> None:
    stream = TestStream().add_elements([keyed(1)])
    stream = stream.advance_processing_time(WEEK - 1).add_elements([keyed(1)])
    stream = stream.advance_processing_time(1).add_elements([keyed(1)])
    stream = stream.advance_processing_time(DAY).add_elements([keyed(1)])
    assert passed(stream.advance_watermark_to_infinity()) == [(0, [1]), (8 * DAY, [1])]


def test_an_id_that_came_late_in_its_generation_is_remembered_for_the_whole_time_too() -> None:
    late = DAY - 1
    stream = TestStream().advance_processing_time(late).add_elements([keyed(1)])
    stream = stream.advance_processing_time(WEEK).add_elements([keyed(1)])
    stream = stream.advance_processing_time(1).add_elements([keyed(1)])
    assert passed(stream.advance_watermark_to_infinity()) == [(late, [1]), (late + WEEK + 1, [1])]


def test_late_and_out_of_order_events_are_as_good_as_any() -> None:
    stream = TestStream().advance_watermark_to(1_000).add_elements([keyed(5), keyed(3)]).advance_watermark_to(2_000)
    stream = stream.add_elements([keyed(4, 3)]).add_elements([keyed(1, 5)])
    numbers = list(chain.from_iterable(some for _, some in passed(stream.advance_watermark_to_infinity())))
    assert sorted(numbers) == [1, 3, 4, 5]


def test_keys_remember_apart() -> None:
    stream = TestStream().add_elements([keyed(1)]).add_elements([keyed(1, shard=1)])
    assert passed(stream.advance_watermark_to_infinity()) == [(0, [1]), (0, [1])]


def test_a_list_of_repeats_alone_puts_out_nothing() -> None:
    stream = TestStream().add_elements([keyed(1)]).add_elements([keyed(1, 1)])
    assert passed(stream.advance_watermark_to_infinity()) == [(0, [1])]


def test_many_lists_over_many_generations_keep_only_what_is_live() -> None:
    stream = TestStream()
    for day in range(20):
        stream = stream.add_elements([keyed(*range(day * 10, day * 10 + 20))]).advance_processing_time(DAY)
    numbers = list(chain.from_iterable(some for _, some in passed(stream.advance_watermark_to_infinity())))
    assert sorted(numbers) == list(range(210))
