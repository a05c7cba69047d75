"""Batches: of one retailer and vendor campaign, at most 50, no customer twice, nothing lost."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from apache_beam.testing.test_stream import TestStream
from hypothesis import given
from hypothesis import strategies as st
from support.streams import CLUSTER, LOCAL, any_message, run_stream, stream_clock

from schemas.delivery import Batch, Message
from transforms.delivery.batch_by_retailer import BatchByRetailer, cut, pack
from transforms.delivery.elements import KEYED, Messages

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


ENGINE = CLUSTER


@pytest.fixture(params=[CLUSTER, LOCAL], ids=["by its state", "from memory"])
def _engine(request: pytest.FixtureRequest) -> None:
    """Run a test both ways."""
    global ENGINE
    ENGINE = request.param


pytestmark = pytest.mark.filterwarnings("ignore:cannot collect")
both_ways = pytest.mark.usefixtures("_engine")


def batched(stream: TestStream, wait_s: float = 2.0) -> list[tuple[float, str, list[int]]]:
    """(time, retailer, sizes of the batches) of each list of batches."""
    made = run_stream(stream, lambda lists: (lists,) | BatchByRetailer(wait_s, stream_clock, ENGINE), KEYED)
    return [(time, key[0], [len(batch.messages) for batch in batches.items]) for time, (key, batches) in made]


@both_ways
def test_full_batches_leave_at_once_and_the_rest_after_the_wait() -> None:
    stream = TestStream().add_elements([keyed(range(120))]).advance_processing_time(1).advance_processing_time(1)
    assert batched(stream.advance_watermark_to_infinity()) == [(0, "kroger", [50, 50]), (2, "kroger", [20])]


@both_ways
def test_the_rests_of_lists_meet_and_leave_when_the_first_has_waited() -> None:
    stream = TestStream().add_elements([keyed(range(30))]).advance_processing_time(1)
    stream = stream.add_elements([keyed(range(30, 60))]).advance_processing_time(1)
    assert batched(stream.advance_watermark_to_infinity()) == [(2, "kroger", [50, 10])]


def test_retailers_and_vendor_campaigns_never_share_a_batch() -> None:
    stream = TestStream().add_elements(
        [
            keyed(range(5)),
            keyed(range(5, 10), vendor_campaign="vc-2"),
            keyed(range(10, 15), retailer="costco"),
        ]
    )
    made = batched(stream.advance_processing_time(2).advance_watermark_to_infinity())
    assert sorted((retailer, sizes) for _, retailer, sizes in made) == [
        ("costco", [5]),
        ("kroger", [5]),
        ("kroger", [5]),
    ]


def test_a_customer_twice_among_the_rests_gets_two_batches() -> None:
    stream = TestStream().add_elements([keyed(range(3), customer_id="same")]).advance_processing_time(2)
    assert batched(stream.advance_watermark_to_infinity()) == [(2, "kroger", [1, 1, 1])]


def test_what_waits_when_the_input_ends_leaves() -> None:
    stream = TestStream().add_elements([keyed(range(7))]).advance_watermark_to_infinity()
    assert [sizes for _, _, sizes in batched(stream, wait_s=3600)] == [[7]]


@both_ways
def test_a_later_remainder_does_not_move_the_time_of_the_first() -> None:
    stream = TestStream()
    for start in range(0, 40, 10):
        stream = stream.add_elements([keyed(range(start, start + 10))]).advance_processing_time(1)
    made = batched(stream.advance_processing_time(5).advance_watermark_to_infinity())
    assert [(time, sum(sizes)) for time, _, sizes in made] == [(2, 20), (4, 20)]
