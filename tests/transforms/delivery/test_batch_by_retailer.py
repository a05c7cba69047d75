"""Batches: of one retailer and vendor campaign, at most 50, no customer twice, nothing lost."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from apache_beam.testing.test_stream import TestStream
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.streams import CLUSTER, LOCAL, any_message, run_stream, stream_clock

from schemas.delivery import Batch, Message
from transforms.delivery.batch_by_retailer import BATCH_BYTES, BatchByRetailer, _Pack, cut, pack
from transforms.delivery.elements import KEYED, Messages
from transforms.streaming.elements import body_bytes
from transforms.streaming.engine_traits import EngineTraits

CUSTOMERS = st.lists(st.integers(0, 60), max_size=260)


def messages(customers: list[int]) -> list[Message]:
    """A message for each, of that customer."""
    return [any_message(number, customer_id=f"c{customer}") for number, customer in enumerate(customers)]


def ids(batches: list[Batch], rest: list[Message] | None = None) -> Counter[str]:
    """How often each event stands in them."""
    return Counter(one.event_id for batch in batches for one in batch.messages) + Counter(
        one.event_id for one in rest or []
    )


def sound(batch: Batch) -> bool:
    """Whether a batch may be sent."""
    customers = [one.customer_id for one in batch.messages]
    return 0 < len(customers) <= 50 and len(set(customers)) == len(customers)


@given(CUSTOMERS)
def test_cutting_loses_nothing_and_only_full_batches_leave(customers: list[int]) -> None:
    given_messages = messages(customers)
    full, rest = cut(given_messages)
    assert ids(full, rest) == ids([Batch(given_messages)])
    assert all(sound(batch) and len(batch.messages) == 50 for batch in full)


@given(CUSTOMERS)
def test_packing_loses_nothing_and_no_customer_stands_twice(customers: list[int]) -> None:
    given_messages = messages(customers)
    batches = pack(given_messages)
    assert ids(batches) == ids([Batch(given_messages)])
    assert all(sound(batch) for batch in batches)


@given(st.integers(0, 400))
def test_different_customers_need_no_more_calls_than_the_minimum(number: int) -> None:
    assert len(pack(messages(list(range(number))))) == -(-number // 50)


def test_a_batch_has_the_same_name_whatever_the_order_of_its_events() -> None:
    some = [any_message(1), any_message(2), any_message(3)]
    assert Batch(some).batch_id == Batch(some[::-1]).batch_id != Batch(some[:2]).batch_id


def keyed(numbers: range, retailer: str = "kroger", **changes: Any) -> Any:
    """A list of one retailer."""
    return ((retailer, 0), Messages([any_message(number, retailer_id=retailer, **changes) for number in numbers]))


GATHERED = {"by its state": CLUSTER, "from memory": LOCAL}
NATIVE = {
    "GroupIntoBatches": LOCAL._replace(native_batches=True),
    "GroupIntoBatches by shard": CLUSTER._replace(native_batches=True),
}
pytestmark = pytest.mark.filterwarnings("ignore:cannot collect")
gathered = pytest.mark.parametrize("engine", GATHERED.values(), ids=GATHERED.keys())
native = pytest.mark.parametrize("engine", NATIVE.values(), ids=NATIVE.keys())
every_way = pytest.mark.parametrize("engine", {**GATHERED, **NATIVE}.values(), ids={**GATHERED, **NATIVE}.keys())


def run_batches(stream: TestStream, engine: EngineTraits, wait_s: float = 2.0) -> list[tuple[float, str, list[Batch]]]:
    """(time, retailer, batches) of each list of batches."""
    lists = run_stream(stream, lambda lists: (lists,) | BatchByRetailer(wait_s, stream_clock, engine), KEYED)
    return [(time, key[0], batches.items) for time, (key, batches) in lists]


def batched(stream: TestStream, engine: EngineTraits, wait_s: float = 2.0) -> list[tuple[float, str, list[int]]]:
    """(time, retailer, sizes of the batches) of each list of batches."""
    lists = run_batches(stream, engine, wait_s)
    return [(time, retailer, [len(batch.messages) for batch in batches]) for time, retailer, batches in lists]


POLLS = st.lists(
    st.tuples(
        st.sampled_from(["kroger", "costco"]),
        st.sampled_from(["vc-1", "vc-2"]),
        st.lists(st.integers(0, 40), min_size=1, max_size=120),  # customers
        st.sampled_from([10, 300_000]),  # bytes of a body
        st.integers(0, 3),  # seconds until the next poll
    ),
    min_size=1,
    max_size=6,
)


@every_way
@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(POLLS)
def test_batches_may_be_sent_hold_every_message_once_and_are_no_older_than_the_wait(
    engine: EngineTraits, polls: list[tuple[str, str, list[int], int, int]]
) -> None:
    stream, now, arrived = TestStream(), 0, dict[str, int]()
    for retailer, campaign, customers, size, seconds in polls:
        messages = [
            any_message(
                len(arrived) + number,
                retailer_id=retailer,
                vendor_campaign=campaign,
                customer_id=f"c{customer}",
                body=bytes(size),
            )
            for number, customer in enumerate(customers)
        ]
        arrived |= dict.fromkeys((message.event_id for message in messages), now)
        stream = stream.add_elements([((retailer, 0), Messages(messages))])
        for _ in range(seconds):
            stream, now = stream.advance_processing_time(1), now + 1
    lists = run_batches(stream.advance_watermark_to_infinity(), engine)
    assert ids([batch for _, _, batches in lists for batch in batches]) == Counter(arrived.keys())
    for time, retailer, batches in lists:
        for batch in batches:
            assert sound(batch)
            assert {message.retailer_id for message in batch.messages} == {retailer}
            assert len({message.vendor_campaign for message in batch.messages}) == 1
            assert len(batch.messages) == 1 or body_bytes(batch.messages) <= BATCH_BYTES
            assert all(time - arrived[message.event_id] <= 2.0 for message in batch.messages)


@native
def test_where_batches_are_native_fifty_remainders_leave_before_the_wait_is_over(engine: EngineTraits) -> None:
    stream = TestStream().add_elements([keyed(range(30))]).advance_processing_time(1)
    stream = stream.add_elements([keyed(range(30, 60))]).advance_processing_time(1).advance_processing_time(1)
    lists = batched(stream.advance_watermark_to_infinity(), engine)
    if engine.single_process:  # the shards of a cluster are its threads: nobody knows how many messages meet there
        assert lists == [(1, "kroger", [50]), (3, "kroger", [10])]
    assert sum(size for _, _, sizes in lists for size in sizes) == 60


def test_native_batches_of_one_retailer_leave_a_bundle_in_one_list() -> None:
    packer = _Pack()
    packer.start_bundle()
    for campaign in ("vc-1", "vc-2"):
        messages = [any_message(number, vendor_campaign=campaign) for number in range(10)]
        assert list(packer.process((("kroger", campaign), messages))) == []
    ((_, batches),) = [windowed.value for windowed in packer.finish_bundle()]
    assert [len(batch.messages) for batch in batches.items] == [10, 10]


@every_way
def test_full_batches_leave_at_once_and_the_rest_after_the_wait(engine: EngineTraits) -> None:
    stream = TestStream().add_elements([keyed(range(120))]).advance_processing_time(1).advance_processing_time(1)
    assert batched(stream.advance_watermark_to_infinity(), engine) == [(0, "kroger", [50, 50]), (2, "kroger", [20])]


@gathered
def test_the_rests_of_lists_meet_and_leave_when_the_first_has_waited(engine: EngineTraits) -> None:
    stream = TestStream().add_elements([keyed(range(30))]).advance_processing_time(1)
    stream = stream.add_elements([keyed(range(30, 60))]).advance_processing_time(1)
    assert batched(stream.advance_watermark_to_infinity(), engine) == [(2, "kroger", [50, 10])]


@every_way
def test_retailers_and_vendor_campaigns_never_share_a_batch(engine: EngineTraits) -> None:
    stream = TestStream().add_elements(
        [
            keyed(range(5)),
            keyed(range(5, 10), vendor_campaign="vc-2"),
            keyed(range(10, 15), retailer="costco"),
        ]
    )
    made = batched(stream.advance_processing_time(2).advance_watermark_to_infinity(), engine)
    assert sorted((retailer, size) for _, retailer, sizes in made for size in sizes) == [
        ("costco", 5),
        ("kroger", 5),
        ("kroger", 5),
    ]


@every_way
def test_a_customer_twice_among_the_rests_gets_two_batches(engine: EngineTraits) -> None:
    stream = TestStream().add_elements([keyed(range(3), customer_id="same")]).advance_processing_time(2)
    assert batched(stream.advance_watermark_to_infinity(), engine) == [(2, "kroger", [1, 1, 1])]


@every_way
def test_what_waits_when_the_input_ends_leaves(engine: EngineTraits) -> None:
    stream = TestStream().add_elements([keyed(range(7))]).advance_watermark_to_infinity()
    assert [sizes for _, _, sizes in batched(stream, engine, wait_s=3600)] == [[7]]


@every_way
def test_a_later_remainder_does_not_move_the_time_of_the_first(engine: EngineTraits) -> None:
    stream = TestStream()
    for start in range(0, 40, 10):
        stream = stream.add_elements([keyed(range(start, start + 10))]).advance_processing_time(1)
    made = batched(stream.advance_processing_time(5).advance_watermark_to_infinity(), engine)
    assert [(time, sum(sizes)) for time, _, sizes in made] == [(2, 20), (4, 20)]
