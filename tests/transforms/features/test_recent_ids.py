"""Duplicates are decided by the log alone."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from transforms.features.recent_ids import RecentIds


@given(st.lists(st.sampled_from("abcdef"), max_size=40), st.integers(0, 40), st.integers(1, 8))
def test_a_worker_that_begins_in_the_middle_decides_as_one_that_read_it_all(log: list[str], at: int, span: int) -> None:
    whole = RecentIds(0, span)
    decided = whole.first_seen(range(len(log)), log)
    for place, name in enumerate(log):
        assert decided[place] is (name not in log[max(0, place - span) : place])
    at = min(at, len(log))
    before = max(0, at - span)
    later = RecentIds(before, span)
    later.first_seen(range(before, at), log[before:at])
    assert later.first_seen(range(at, len(log)), log[at:]) == decided[at:]


def test_what_left_the_span_is_forgotten() -> None:
    ids = RecentIds(0, 2)
    assert ids.first_seen(range(4), ["a", "b", "c", "a"]) == [True, True, True, True]
    assert ids.first_seen([4, 5], ["a", "x"]) == [False, True]
