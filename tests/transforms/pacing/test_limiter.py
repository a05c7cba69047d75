from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from support.simulated_day import HOUR, START, Cells, limits

from transforms.pacing.limiter import Limiter, WorkspaceLimits, cell_name, decode_state
from transforms.pacing.pace import Grant

FREE = limits()


class Bench:
    """Two workers, one store, one clock (epoch milliseconds)."""

    def __init__(self) -> None:
        self.now = START * 1000
        self.cells = Cells()
        self.one, self.two = (Limiter(self.cells.change, self.clock, lambda: 0.0) for _ in range(2))

    def clock(self) -> float:
        return (self.now + 0.5) / 1000

    def asks(self, limiter: Limiter, of: WorkspaceLimits, number: int, every_ms: int = 10) -> list[Grant]:
        grants = []
        for _ in range(number):
            grants.append(limiter.acquire("kroger", of, 50))
            self.now += every_ms
        return grants


@pytest.fixture
def bench() -> Bench:
    return Bench()


@pytest.mark.parametrize(
    ("of", "why", "wait_s"),
    [
        (limits(paused=True), "paused", 15),
        (limits(quiet_hours=("00:00", "08:00")), "quiet_hours", 30),
        (limits(quiet_hours=("23:00", "00:00")), "", None),
        (limits(day_limit=0), "warm_up", 30),
    ],
)
def test_a_refusal_says_why_and_is_asked_again_within_30_seconds(
    bench: Bench, of: WorkspaceLimits, why: str, wait_s: int | None
) -> None:
    grant = bench.one.acquire("kroger", of, 50)
    assert grant.reason == why
    assert grant.wake_at == (None if wait_s is None else bench.now + wait_s * 1000)


def test_paused_and_quiet_workspaces_cost_no_call_to_the_store(bench: Bench) -> None:
    bench.asks(bench.one, limits(paused=True), 100)
    bench.asks(bench.one, limits(quiet_hours=("00:00", "08:00")), 100)
    assert bench.cells.calls == 0


def test_a_pause_holds_at_once_in_spite_of_a_reservation(bench: Bench) -> None:
    assert all(grant.messages for grant in bench.asks(bench.one, FREE, 20))
    assert bench.one.acquire("kroger", limits(paused=True), 50).messages == 0
    assert bench.one.acquire("kroger", FREE, 50).messages == 50


def test_an_unlimited_workspace_costs_few_calls_to_the_store(bench: Bench) -> None:
    assert all(grant.messages for grant in bench.asks(bench.one, FREE, 2_000, 1))
    assert bench.cells.calls < 2_000 / 20


def test_rare_requests_reserve_nothing(bench: Bench) -> None:
    bench.asks(bench.one, limits(pace={"per_second": 400}), 5, 3_000)
    assert decode_state(bench.cells.values[cell_name("kroger")]).pace.outstanding == ()


def test_a_refusal_is_cached_until_its_wake_time(bench: Bench) -> None:
    slow = limits(pace={"per_second": 10})
    bench.asks(bench.one, slow, 1)
    grants = bench.asks(bench.one, slow, 100)
    assert {grant.wake_at for grant in grants} == {START * 1000 + 5_000}
    assert bench.cells.calls == 2
    assert bench.one.acquire("kroger", slow, 5).messages == 5, "there is enough for less"
    assert bench.one.acquire("kroger", limits(pace={"per_second": 10, "burst": 1}), 1).messages == 1, "another pace"


def test_a_changed_pace_ends_the_reservation(bench: Bench) -> None:
    bench.asks(bench.one, FREE, 20)
    grants = bench.asks(bench.one, limits(pace={"per_second": 5}), 20)
    assert [grant.messages for grant in grants] == [50] + [0] * 19


def test_an_unused_reservation_is_returned_to_the_day_and_the_hour(bench: Bench) -> None:
    young = limits(day_limit=100_000)
    bench.asks(bench.one, young, 8)
    assert decode_state(bench.cells.values[cell_name("kroger")]).pace.sent > 400
    bench.one.close()
    state = decode_state(bench.cells.values[cell_name("kroger")]).pace
    assert (state.sent, state.calls) == (400, 8)
    bench.one.close()
    assert decode_state(bench.cells.values[cell_name("kroger")]).pace == state


def test_a_429_stops_all_workers_for_as_long_as_the_vendor_says(bench: Bench) -> None:
    bench.asks(bench.one, FREE, 20)
    bench.asks(bench.two, FREE, 20)
    bench.one.report("kroger", "slow_down", 20)
    end = bench.now + 20_000
    assert bench.one.acquire("kroger", FREE, 50) == Grant(0, 0, end, "slow_down")
    bench.now += 1_000
    assert bench.two.acquire("kroger", FREE, 50) == Grant(0, 0, end, "slow_down")
    assert bench.two.acquire("other", FREE, 50).messages == 50
    bench.now = end
    assert bench.two.acquire("kroger", FREE, 50).messages == 50


def test_a_success_of_a_healthy_workspace_costs_no_call_to_the_store(bench: Bench) -> None:
    bench.asks(bench.one, FREE, 1)
    before = bench.cells.calls
    for _ in range(100):
        bench.one.report("kroger", "success")
    assert bench.cells.calls == before
    bench.one.report("kroger", "failure")
    bench.one.report("kroger", "success")
    bench.one.report("kroger", "success")
    assert bench.cells.calls == before + 2


def test_failures_of_all_workers_open_the_breaker_and_one_probe_is_sent(bench: Bench) -> None:
    for limiter in (bench.one, bench.two, bench.one, bench.two, bench.one):
        limiter.report("kroger", "failure")
    assert bench.two.acquire("kroger", FREE, 50) == Grant(0, 0, bench.now + 1_000, "breaker")
    bench.now += 1_000
    assert bench.two.acquire("kroger", FREE, 120, 3)[:4] == (1, 1, bench.now + 1_000, "breaker")
    assert bench.one.acquire("kroger", FREE, 50).messages == 0
    bench.two.report("kroger", "success")
    assert bench.two.acquire("kroger", FREE, 120, 3)[:4] == (120, 3, None, "")


def test_after_a_429_the_probe_is_a_whole_batch(bench: Bench) -> None:
    bench.one.report("kroger", "slow_down", 1.0)
    bench.now += 1_001
    assert bench.two.acquire("kroger", FREE, 120, 3)[:2] == (50, 1)


def test_a_breaker_knows_why_it_opened(bench: Bench) -> None:
    bench.one.report("kroger", "blocked", reason="http_401")
    assert decode_state(bench.cells.values[cell_name("kroger")]).breaker.reason == "http_401"
    bench.now += 1_001
    bench.one.acquire("kroger", FREE, 1)
    bench.one.report("kroger", "success")
    assert decode_state(bench.cells.values[cell_name("kroger")]).breaker.reason == ""


def test_a_grant_is_not_confirmed_in_a_paused_workspace(bench: Bench) -> None:
    grant = bench.one.acquire("kroger", FREE, 50)
    reserved = Grant(50, 1, until=grant.until)
    assert bench.one.confirm("kroger", FREE, reserved)
    assert not bench.one.confirm("kroger", limits(paused=True), reserved)
    assert not bench.one.confirm("kroger", limits(quiet_hours=("00:00", "23:59")), reserved)


def test_a_late_grant_is_acquired_again_so_that_no_window_exceeds_the_pace(
    bench: Bench,
) -> None:
    slow = limits(pace={"per_second": 100, "burst": 100})
    first, second = (bench.one.acquire("kroger", slow, 50) for _ in range(2))
    assert first.until <= bench.now + 1_000
    bench.now += 5_000  # the bucket is full again, and neither is sent yet
    assert bench.one.confirm("kroger", slow, Grant(50, 1, until=first.until))
    assert bench.one.confirm("kroger", slow, Grant(50, 1, until=second.until))
    assert bench.one.acquire("kroger", slow, 50).messages == 0  # the burst is used up


def test_a_late_grant_without_room_is_not_confirmed(bench: Bench) -> None:
    slow = limits(pace={"per_second": 50, "burst": 50})
    late = bench.one.acquire("kroger", slow, 50)
    bench.now += 1_000
    assert bench.two.acquire("kroger", slow, 50).messages == 50
    bench.now += 500
    assert not bench.one.confirm("kroger", slow, Grant(50, 1, until=late.until))
    state = decode_state(bench.cells.values[cell_name("kroger")]).pace
    assert (state.sent, state.calls) == (50, 1)  # a message that is not sent counts for no hour and no day


def test_an_unused_probe_is_cancelled(bench: Bench) -> None:
    bench.one.report("kroger", "slow_down", 1.0)
    bench.now += 1_001
    assert bench.one.acquire("kroger", FREE, 10).messages == 10
    assert bench.two.acquire("kroger", FREE, 10).messages == 0
    bench.one.report("kroger", "not_sent")
    assert bench.two.acquire("kroger", FREE, 10).messages == 0  # it asks again in a second, as it was told
    bench.now += 1_000
    assert bench.two.acquire("kroger", FREE, 10).messages == 10
    bench.two.report("kroger", "success")
    before = bench.cells.calls
    bench.two.report("kroger", "not_sent")
    assert bench.cells.calls == before


def test_a_refused_key_opens_the_breaker_at_once(bench: Bench) -> None:
    bench.one.report("kroger", "blocked")
    assert bench.two.acquire("kroger", FREE, 50).reason == "breaker"


def test_a_probe_that_the_pace_refuses_is_not_waited_for(bench: Bench) -> None:
    slow = limits(pace={"per_second": 0.2})
    bench.asks(bench.one, slow, 1)
    bench.one.report("kroger", "blocked")
    bench.now += 2_000
    assert bench.one.acquire("kroger", slow, 50).reason == "per_second"
    bench.now += 30_000
    assert bench.one.acquire("kroger", slow, 50).messages == 1


def test_no_reservation_is_spent_in_another_hour(bench: Bench) -> None:
    few = limits(pace={"calls_per_hour": 1_000})
    bench.now += HOUR * 1000 - 300
    bench.asks(bench.one, few, 29)
    bench.now = (START + HOUR) * 1000
    bench.asks(bench.one, few, 1)
    state = decode_state(bench.cells.values[cell_name("kroger")]).pace
    assert state.hour == (START + HOUR) // HOUR
    assert state.calls >= 1


def test_threads_of_one_worker_share_its_limits(bench: Bench) -> None:
    few = limits(pace={"calls_per_hour": 500})
    with ThreadPoolExecutor(8) as pool:
        grants = list(pool.map(lambda _: bench.one.acquire("kroger", few, 50), range(1_000)))
    assert sum(grant.calls for grant in grants) == 500
