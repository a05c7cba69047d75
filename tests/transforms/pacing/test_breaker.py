from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from transforms.pacing.breaker import Breaker, begin_probe, calls_allowed, fail, succeed, wake_at


def failed(times: int, now: int = 0) -> Breaker:
    one = Breaker()
    for _ in range(times):
        one = fail(one, now)
    return one


def test_it_opens_after_five_failures_in_a_row() -> None:
    assert calls_allowed(failed(4), 0) is None
    assert calls_allowed(failed(5), 0) == 0
    assert calls_allowed(fail(succeed(failed(4)), 0), 0) is None


def test_a_refused_key_opens_it_at_once() -> None:
    assert calls_allowed(fail(Breaker(), 0, immediately=True), 0) == 0


def test_after_its_delay_one_probe_is_let_through() -> None:
    one = failed(5)
    assert [calls_allowed(one, now) for now in (999, 1_000)] == [0, 1]
    one = begin_probe(one, 1_000)
    assert calls_allowed(one, 1_001) == 0
    assert calls_allowed(one, wake_at(one)) == 1, "the outcome of the first probe was never reported"
    assert succeed(one) == Breaker()


def test_the_delay_doubles_to_a_minute() -> None:
    one, now, waits = failed(5), 0, []
    for _ in range(8):
        waits.append((one.until - now) // 1000)
        now = one.until
        one = fail(begin_probe(one, now), now)
    assert waits == [1, 2, 4, 8, 16, 32, 60, 60]


def test_calls_in_flight_when_it_opened_change_nothing() -> None:
    one = failed(5)
    assert fail(one, 500) == one
    assert fail(one, 500, immediately=True) == one
    assert succeed(one) == one


@given(st.lists(st.sampled_from(["success", "failure", "probe", "wait"]), max_size=60))
def test_a_probe_is_always_let_through_within_two_minutes(happens: list[str]) -> None:
    one, now = Breaker(), 0
    for what in happens:
        if what == "wait":
            now += 700
        elif what == "probe":
            one = begin_probe(one, now) if calls_allowed(one, now) == 1 else one
        else:
            one = succeed(one) if what == "success" else fail(one, now)
    assert calls_allowed(one, now + 120_000) != 0
