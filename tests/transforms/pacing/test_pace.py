from __future__ import annotations

from datetime import datetime
from zoneinfo import ZoneInfo

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.simulated_day import START

from schemas.campaigns.workspaces import Pace
from transforms.pacing.pace import (
    HOUR_MS,
    Grant,
    PaceState,
    acquire,
    advance,
    day_end,
    slow_down,
    succeed,
)
from transforms.pacing.reservations import reserve, return_unused

NOW = START * 1000
NEW_YORK = "America/New_York"


def acquire_at(
    state: PaceState, pace: Pace, ms: int, messages: int = 50, calls: int = 1, limit: int | None = None
) -> tuple[PaceState, Grant]:
    return acquire(state, pace, NOW + ms, "UTC", messages, calls, limit)


@pytest.mark.parametrize(
    ("pace", "messages", "calls", "limit", "expected"),
    [
        (Pace(), 500, 10, None, Grant(500, 10)),
        (Pace(per_second=10), 50, 1, None, Grant(50, 1)),
        (Pace(per_second=10), 30, 1, None, Grant(30, 1)),
        (Pace(per_second=10), 80, 2, None, Grant(50, 2, NOW + 3_000, "per_second")),
        (Pace(per_second=120), 300, 6, None, Grant(100, 2, NOW + 250, "per_second")),
        (Pace(per_second=10, burst=200), 150, 3, None, Grant(150, 3)),
        (Pace(per_second=4, burst=8), 50, 1, None, Grant(8, 1, NOW + 2_000, "per_second")),
        (Pace(calls_per_hour=2), 150, 3, None, Grant(100, 2, NOW + HOUR_MS, "calls_per_hour")),
        (Pace(), 50, 1, 30, Grant(30, 1, NOW + 24 * HOUR_MS, "warm_up")),
        (Pace(), 50, 1, 0, Grant(0, 0, NOW + 24 * HOUR_MS, "warm_up")),
        (Pace(calls_per_hour=1), 100, 2, 50, Grant(50, 1, NOW + 24 * HOUR_MS, "warm_up")),
        (Pace(), 0, 0, None, Grant(0, 0)),
    ],
    ids=[
        "all of it where nothing limits",
        "a batch at once however low the rate",
        "a smaller batch too",
        "the rest waits for its tokens",
        "of several batches the whole ones",
        "as many as the burst",
        "a burst below a batch is all there is at once",
        "the calls that the hour has",
        "the rest of the day",
        "nothing on a day without any",
        "the later of two waits",
        "nothing of nothing",
    ],
)
def test_a_new_workspace_is_granted(pace: Pace, messages: int, calls: int, limit: int | None, expected: Grant) -> None:
    assert acquire_at(PaceState(), pace, 0, messages, calls, limit)[1] == expected


def test_a_batch_waits_until_the_bucket_holds_all_of_it() -> None:
    pace = Pace(per_second=0.5)
    state, _ = acquire_at(PaceState(), pace, 0)
    state, grant = acquire_at(state, pace, 60_000)
    assert grant == Grant(0, 0, NOW + 100_000, "per_second")
    assert acquire_at(state, pace, 99_999)[1].messages == 0
    assert acquire_at(state, pace, 100_000)[1] == Grant(50, 1)


def test_a_changed_pace_holds_at_the_next_request() -> None:
    state, _ = acquire_at(PaceState(), Pace(per_second=1_000), 0, 1)
    assert acquire_at(state, Pace(per_second=10), 0, 100, 2)[1].messages == 50, "clipped to the new burst"
    state, _ = acquire_at(state, Pace(per_second=10), 0, 50)
    assert acquire_at(state, Pace(per_second=1_000), 1_000)[1].messages == 0, "a raised rate holds from now on"
    assert acquire_at(state, Pace(), 0)[1].messages == 50
    assert acquire_at(state, Pace(calls_per_hour=1), 0)[1].reason == "calls_per_hour"


def test_the_calls_of_an_hour_begin_anew_on_the_clock_hour() -> None:
    pace = Pace(calls_per_hour=1)
    state, _ = acquire_at(PaceState(), pace, HOUR_MS - 1)
    state, grant = acquire_at(state, pace, HOUR_MS - 1)
    assert grant == Grant(0, 0, NOW + HOUR_MS, "calls_per_hour")
    assert acquire_at(state, pace, HOUR_MS)[1].messages == 50


def test_the_messages_of_a_day_begin_anew_at_midnight_of_the_retailer() -> None:
    late = int(datetime(2026, 3, 8, 23, 59, 59, tzinfo=ZoneInfo(NEW_YORK)).timestamp()) * 1000
    state, _ = acquire(PaceState(), Pace(), late, NEW_YORK, 50, 1, 50)
    state, grant = acquire(state, Pace(), late, NEW_YORK, 50, 1, 50)
    assert grant == Grant(0, 0, late + 1_000, "warm_up")
    assert acquire(state, Pace(), late + 1_000, NEW_YORK, 50, 1, 50)[1].messages == 50


@pytest.mark.parametrize(
    ("day", "zone", "ends"),
    [
        ("2026-03-08", NEW_YORK, "2026-03-09T04:00+00:00"),
        ("2026-11-01", NEW_YORK, "2026-11-02T05:00+00:00"),
        # There the clocks skip midnight, and the hour before it comes twice.
        ("2026-09-05", "America/Santiago", "2026-09-06T04:00+00:00"),
        ("2026-04-04", "America/Santiago", "2026-04-05T04:00+00:00"),
    ],
)
def test_a_day_ends_at_the_first_moment_of_the_next(day: str, zone: str, ends: str) -> None:
    assert day_end(datetime.fromisoformat(day).toordinal(), zone) == datetime.fromisoformat(ends).timestamp() * 1000


@pytest.mark.parametrize("retry_after", [0.5, 7.25, 3600.0])
def test_after_a_429_nothing_is_granted_for_as_long_as_the_vendor_says(retry_after: float) -> None:
    state = slow_down(PaceState(), NOW, retry_after, 0.9)
    end = int(retry_after * 1000)
    assert acquire_at(state, Pace(), end - 1)[1] == Grant(0, 0, NOW + end, "slow_down")
    assert acquire_at(state, Pace(), end)[1].messages == 50


def test_429s_without_a_time_back_off_further_and_further_and_a_success_resets_it() -> None:
    state, now, waits = PaceState(), NOW, []
    for _ in range(9):
        state = slow_down(state, now, None, 0.0)
        waits.append((state.blocked_until - now) / 1000)
        now = state.blocked_until
    assert waits == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    assert slow_down(PaceState(), NOW, None, 0.999).blocked_until - NOW == pytest.approx(500, abs=2)
    assert slow_down(succeed(state, now), now, None, 0.0).blocked_until == now + 1_000


def test_calls_in_flight_at_a_429_do_not_change_the_back_off() -> None:
    state = slow_down(PaceState(), NOW, None, 0.0)
    assert slow_down(state, NOW + 500, None, 0.0) == state
    assert succeed(state, NOW + 500) == state
    assert slow_down(state, NOW + 500, 10, 0.0).blocked_until == NOW + 10_500
    assert slow_down(slow_down(state, NOW, 10, 0.0), NOW, 1, 0.0).blocked_until == NOW + 10_000, "never shorter"


def test_the_state_is_the_same_from_its_bytes() -> None:
    pace = Pace(per_second=333)
    state, reservation = reserve(advance(PaceState(), pace, NOW, "UTC"), pace, "UTC", "me", 2, 50, 1, None)
    assert reservation is not None
    state = slow_down(state, NOW, 3, 0)
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(state), type=PaceState) == state


PACES = st.builds(
    Pace,
    per_second=st.none() | st.sampled_from([0.3, 7, 49.5, 120, 3472]),
    burst=st.none() | st.sampled_from([1, 20, 50, 333]),
    calls_per_hour=st.sampled_from([1, 5, 250_000]),
)
STEPS = st.tuples(st.integers(-5_000, 200_000), st.integers(1, 170))


@given(PACES, st.none() | st.sampled_from([20, 50, 500]), st.lists(STEPS, max_size=40))
def test_no_window_hour_or_day_exceeds_its_limit(pace: Pace, limit: int | None, steps: list[tuple[int, int]]) -> None:
    state, clock, latest = PaceState(), NOW + 23 * HOUR_MS, 0
    granted: list[tuple[int, int, int]] = []
    for step, messages in steps:
        clock += step
        latest = max(latest, clock)
        state, grant = acquire(state, pace, clock, "UTC", messages, -(-messages // 50), limit)
        assert 0 <= grant.messages <= min(messages, grant.calls * 50)
        assert (grant.wake_at is None) == (grant.messages == messages)
        assert grant.wake_at is None or grant.wake_at > latest
        granted.append((latest, grant.messages, grant.calls))
    for first in range(len(granted)):
        window = granted[first:]
        for last, (at, *_) in enumerate(window):
            if pace.per_second is not None:
                most = (pace.burst or max(50, pace.per_second)) + pace.per_second * (at - window[0][0]) / 1000
                assert sum(n for _, n, _ in window[: last + 1]) <= most + 1e-6
    for unit, place, most_of in ((HOUR_MS, 2, pace.calls_per_hour), (24 * HOUR_MS, 1, limit)):
        for one in {at // unit for at, *_ in granted}:
            used = sum(entry[place] for entry in granted if entry[0] // unit == one)
            assert most_of is None or used <= most_of


@given(PACES, st.none() | st.sampled_from([20, 500]), st.integers(1, 170), st.integers(0, 10**6))
def test_a_request_at_wake_at_is_granted_something(pace: Pace, limit: int | None, messages: int, start: int) -> None:
    state, now, rest = PaceState(), NOW + start, messages
    for _ in range(6):
        state, grant = acquire(state, pace, now, "UTC", rest, -(-rest // 50), limit)
        rest = rest - grant.messages or messages
        if grant.wake_at is not None:
            now = grant.wake_at
            # A bucket of fractions may lack the last of them for a millisecond.
            assert acquire(state, pace, now + 1, "UTC", rest, -(-rest // 50), limit)[1].messages > 0


def test_a_clock_that_goes_back_grants_nothing_twice() -> None:
    pace = Pace(per_second=10, calls_per_hour=2)
    state, _ = acquire_at(PaceState(), pace, HOUR_MS)
    for back in (HOUR_MS, 1, 0, HOUR_MS, -25 * HOUR_MS):
        state, grant = acquire_at(state, pace, back, limit=60)
        assert grant.messages == 0


class TestReservations:
    PACE = Pace(per_second=400)

    def test_at_most_half_of_the_bucket_is_reserved_and_a_batch_fits_into_the_rest(self) -> None:
        state = advance(PaceState(), self.PACE, NOW, "UTC")
        state, mine = reserve(state, self.PACE, "UTC", "me", 64, 50, 1, None)
        state, other = reserve(state, self.PACE, "UTC", "other", 64, 50, 1, None)
        assert (mine and mine.messages, mine and mine.calls, other) == (200, 4, None)
        assert acquire_at(state, self.PACE, 0, 400, 8)[1].messages == 200

    def test_a_reservation_keeps_the_bucket_from_filling_above_the_burst(self) -> None:
        state = advance(PaceState(), self.PACE, NOW, "UTC")
        state, _ = reserve(state, self.PACE, "UTC", "me", 4, 50, 1, None)
        assert acquire_at(state, self.PACE, 1_999, 400, 8)[1].messages == 200
        assert acquire_at(state, self.PACE, 2_500, 400, 8)[1].messages == 400, "but only while it may be spent"

    def test_a_reservation_returned_in_time_can_be_used_by_others(self) -> None:
        full = advance(PaceState(), self.PACE, NOW, "UTC")
        state, reservation = reserve(full, self.PACE, "UTC", "me", 4, 50, 1, None)
        assert reservation is not None
        assert return_unused(state, "me", reservation) == full
        late = return_unused(advance(state, self.PACE, NOW + 2_100, "UTC"), "me", reservation)
        assert (late.calls, late.sent, late.tokens) == (0, 0, 240)
        next_hour, _ = acquire_at(state, self.PACE, HOUR_MS)
        assert return_unused(next_hour, "me", reservation).calls == 1, "its calls were of another hour"
        next_day, _ = acquire_at(state, self.PACE, 24 * HOUR_MS)
        assert return_unused(next_day, "me", reservation).sent == 50, "its messages were of another day"

    @pytest.mark.parametrize(
        ("pace", "limit"),
        [
            (Pace(per_second=80), None),
            (Pace(calls_per_hour=15), None),
            (Pace(), 700),
            (Pace(per_second=9, burst=60), None),
        ],
    )
    def test_nothing_is_reserved_of_a_small_rest(self, pace: Pace, limit: int | None) -> None:
        state = advance(PaceState(), pace, NOW, "UTC")
        assert reserve(state, pace, "UTC", "me", 64, 50, 1, limit) == (state, None)

    def test_a_reservation_ends_with_its_hour_and_its_day(self) -> None:
        state = advance(PaceState(), Pace(), NOW + HOUR_MS - 300, "UTC")
        assert (reserve(state, Pace(), "UTC", "me", 1, 50, 1, None)[1] or Grant(0, 0))[2] == 300
