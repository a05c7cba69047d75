"""Lists by retailer and shard: one retailer's traffic is spread, the others stay whole."""

from __future__ import annotations

import time
from collections import Counter
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.streams import any_message

from transforms.delivery.elements import Messages, event_id_of, retailer_of
from transforms.streaming.group_by_shard import LIST, Load, group, group_of, shard_of

in_groups = partial(group, kind=Messages, key_of=retailer_of, id_of=event_id_of)


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize(
    ("per_second", "shards"), [(1, 1), (900, 1), (1_200, 2), (3_500, 4), (7_000, 8), (100_000, 16)]
)
def test_shards_follow_the_load(per_second: int, shards: int) -> None:
    clock, found = Clock(), 1
    load = Load(clock=clock)
    for _ in range(600):
        found = load.shards("kroger", per_second // 10 or 1)
        clock.now += 0.1
    assert found == shards


def test_one_retailer_with_nine_tenths_of_the_traffic_is_sharded_and_the_others_are_not() -> None:
    clock, load = Clock(), None
    load = Load(clock=clock)
    for _ in range(300):
        big = load.shards("big", 900)
        small = {load.shards(f"small-{number}", 1) for number in range(100)}
        clock.now += 0.1
    assert big == 16
    assert small == {1}


def test_shards_never_shrink() -> None:
    clock = Clock()
    load = Load(clock=clock)
    for _ in range(200):
        load.shards("kroger", 500)
        clock.now += 0.1
    clock.now += 3600
    assert load.shards("kroger", 1) == 8


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 10_000)), max_size=300))
def test_grouping_keeps_every_message_under_its_own_key(pairs: list[tuple[int, int]]) -> None:
    messages = [any_message(number, retailer_id=f"r{retailer}") for retailer, number in pairs]
    lists = list(in_groups(messages, Load(time.monotonic, per_shard=0.5)))
    found = Counter(one.event_id + one.retailer_id for _, items in lists for one in items.items)
    assert found == Counter(one.event_id + one.retailer_id for one in messages)
    owners = {(key[0], one.retailer_id) for key, items in lists for one in items.items}
    assert all(name == retailer or name in {group_of(retailer, 2**n) for n in range(5)} for name, retailer in owners)


@pytest.mark.parametrize(
    ("per_second", "groups"), [(1, 1), (200, 1), (300, 2), (900, 4), (1_900, 8), (4_000, 16), (100_000, 16)]
)
def test_the_keys_of_a_thousand_small_retailers_follow_their_load(per_second: int, groups: int) -> None:
    clock, keys = Clock(), set[object]()
    load = Load(clock=clock)
    for poll in range(300):
        some = [any_message(n, retailer_id=f"r{(poll * 7 + n) % 1_000}") for n in range(per_second // 10 or 1)]
        keys = {key for key, _ in in_groups(some, load)}
        clock.now += 0.1
    assert load.groups(0) == groups
    assert len(keys) <= groups


def test_groups_that_were_not_needed_for_ten_minutes_are_halved() -> None:
    clock, found = Clock(), list[int]()
    load = Load(clock=clock)
    for second in range(4_000):
        found.append(load.groups(4_000 if second < 60 else 300))
        clock.now += 1.0
    assert [found[at] for at in (59, 600, 700, 1_400, 3_999)] == [16, 16, 8, 4, 4]


def test_the_first_poll_of_a_backlog_is_spread_at_once() -> None:
    load = Load(clock=Clock())
    many = [any_message(n, retailer_id="big" if n % 3 else f"r{n}") for n in range(10_000)]
    keys = {key for key, _ in in_groups(many, load)}
    assert len({key for key in keys if key[0] == "big"}) == 8
    assert len({key for key in keys if key[0] != "big"}) == 16


def test_a_group_of_fewer_holds_whole_groups_of_more() -> None:
    for n in range(1_000):
        assert int(group_of(f"r{n}", 16)[1:]) % 4 == int(group_of(f"r{n}", 4)[1:])


def test_a_large_retailer_shares_no_key_with_the_small_ones() -> None:
    load = Load(time.monotonic, per_shard=1.0)
    messages = [any_message(n, retailer_id="big" if n % 10 else f"small-{n}") for n in range(500)]
    for key, items in in_groups(messages, load):
        assert {one.retailer_id == "big" for one in items.items} == {key[0] == "big"}


def test_lists_stay_short_so_that_none_holds_up_a_worker() -> None:
    lists = list(in_groups([any_message(number) for number in range(40_000)], Load(time.monotonic)))
    assert {len(items.items) for _, items in lists} == {LIST, 500}
    assert len({key for key, _ in lists}) == 16


def test_shards_are_even_and_stable() -> None:
    from transforms.streaming.seen_ids import id_bytes

    counts = Counter(shard_of(id_bytes(f"event {number}").hex(), 8) for number in range(8_000))
    assert set(counts) == set(range(8))
    assert min(counts.values()) > 850
    assert shard_of("no digits!", 4) == shard_of("no digits!", 4)
