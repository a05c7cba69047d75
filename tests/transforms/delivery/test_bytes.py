"""Elements, batches and the cache of decoded events are bounded in bytes as well as in messages."""

from __future__ import annotations

import time

import apache_beam as beam
import pytest
from apache_beam.io.gcp.pubsub import PubsubMessage
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from hypothesis import given
from hypothesis import strategies as st
from support.streams import any_message
from support.wire_events import any_envelope

from schemas.delivery import BATCH, Message
from transforms.delivery import receipts as outcomes
from transforms.delivery.batch_by_retailer import BATCH_BYTES, _addressed, cut, pack
from transforms.delivery.counters import COUNTERS
from transforms.delivery.decode_events import read_envelopes
from transforms.delivery.elements import Batches, Messages, event_id_of, retailer_of
from transforms.streaming.decode import Decode
from transforms.streaming.elements import LIST, LIST_BYTES, Envelopes, body_bytes, in_lists
from transforms.streaming.group_by_shard import Load, group
from transforms.streaming.read_pubsub import size

SIZES = st.lists(st.sampled_from([10, 40_000, 200_000, 1_000_000, 5_000_000]), max_size=60)


def of_sizes(sizes: list[int]) -> list[Message]:
    """A message of each size, of one retailer."""
    bodies = {size: bytes(size) for size in set(sizes)}
    return [any_message(number, body=bodies[size]) for number, size in enumerate(sizes)]


@given(SIZES)
def test_lists_hold_all_in_order_and_no_more_than_they_may(sizes: list[int]) -> None:
    messages = of_sizes(sizes)
    lists = list(in_lists(messages))
    assert [item for items in lists for item in items] == messages
    for some in lists:
        assert len(some) <= LIST
        assert body_bytes(some) <= LIST_BYTES or len(some) == 1


def test_a_poll_of_small_messages_is_cut_by_their_number() -> None:
    assert [len(items) for items in in_lists(of_sizes([10] * (2 * LIST + 1)))] == [LIST, LIST, 1]


def test_a_group_of_large_messages_is_several_lists() -> None:
    lists = [
        messages
        for _, messages in group(of_sizes([1_000_000] * 10), Load(time.monotonic), Messages, retailer_of, event_id_of)
    ]
    assert [len(items.items) for items in lists] == [4, 4, 2]


@given(SIZES)
def test_batches_hold_all_and_no_more_than_a_call_may_carry(sizes: list[int]) -> None:
    messages = of_sizes(sizes)
    batches = pack(messages)
    assert sorted(message.event_id for batch in batches for message in batch.messages) == [
        message.event_id for message in messages
    ]
    for batch in batches:
        assert len(batch.messages) <= BATCH
        assert body_bytes(batch.messages) <= BATCH_BYTES or len(batch.messages) == 1


def test_a_batch_is_full_when_the_next_message_does_not_fit() -> None:
    full, rest = cut(of_sizes([200_000] * 25))
    assert [len(batch.messages) for batch in full] == [10, 10]
    assert len(rest) == 5


def test_batches_that_have_gathered_leave_in_elements_of_bounded_size() -> None:
    batches = pack(of_sizes([1_000_000] * 21))
    elements = [some.items for _, some in _addressed("kroger", batches)]
    assert [batch for element in elements for batch in element] == batches
    assert [sum(len(batch.messages) for batch in element) for element in elements] == [4, 4, 4, 4, 4, 1]


def test_decoded_bodies_are_cached_up_to_a_size_that_is_bounded() -> None:
    largest = sum(longest * (cached.cache_info().maxsize or 1 << 40) for longest, cached in outcomes._DECODERS)
    assert largest <= 64 << 20
    envelope = any_envelope(1)
    hits = lambda: sum(cached.cache_info().hits for _, cached in outcomes._DECODERS)  # noqa: E731
    before = hits()
    for _ in range(3):
        assert outcomes.decode_body(envelope.attributes["schema"], envelope.body)["event_id"]
    assert hits() - before >= 2


@pytest.mark.parametrize(("length", "places"), [(0, 1), (100, 1), (LIST_BYTES // 2, LIST / 2), (LIST_BYTES * 2, LIST)])
def test_a_native_message_fills_as_much_of_a_list_as_it_has_bytes(length: int, places: float) -> None:
    assert size(PubsubMessage(bytes(length), {})) == places


def test_bytes_in_flight_are_those_that_were_read_and_have_not_reached_the_delivery() -> None:
    envelopes = [any_envelope(number) for number in range(3)]
    messages, bytes_ = COUNTERS.in_flight(), COUNTERS.bytes_in_flight()
    with beam.Pipeline(runner=FnApiRunner()) as p:
        some = p | beam.Create([Envelopes(envelopes)], reshuffle=False).with_output_types(Envelopes)
        good, _ = some | Decode(read_envelopes, Messages, lambda: 0.0, COUNTERS)
        _ = good | beam.Map(_deliver_one).with_output_types(Messages)
    assert COUNTERS.in_flight() - messages == 2
    assert COUNTERS.bytes_in_flight() - bytes_ == sum(len(envelope.body) for envelope in envelopes[1:])
    COUNTERS.counter("batched").inc(2, sum(len(envelope.body) for envelope in envelopes[1:]))


def _deliver_one(messages: Messages) -> Messages:
    COUNTERS.counter("batched").inc(1, len(messages.items[0].body))
    return messages


def test_an_element_of_batches_is_never_empty() -> None:
    assert list(_addressed("kroger", [])) == []
    assert Batches([]).items == []
