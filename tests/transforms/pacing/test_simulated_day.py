"""A day of 350 retailers whose paces differ and change, on several workers."""

from __future__ import annotations

import random
from datetime import date

import pytest
from support.simulated_day import (
    HOUR,
    START,
    Shop,
    allowed,
    burst_excess,
    calls_by_hour,
    limits,
    messages_by_day,
    simulate,
)

from schemas.campaigns.workspaces import WarmUp, Workspace
from transforms.pacing import limiter
from transforms.pacing.limiter import WorkspaceLimits
from transforms.pacing.warm_up import day_limit

DAY = 24 * HOUR
ZONES = ["UTC", "America/New_York", "Asia/Kathmandu", "Pacific/Auckland"]


def any_shop(number: int) -> Shop:
    """One of many kinds: by rate, by calls an hour, warming up; some are paused, changed, quiet, slowed down."""
    luck = random.Random(number)
    zone = luck.choice(ZONES)
    kind = number % 5
    rate = luck.choice([0.011, 0.03, 0.08, 0.2])
    paces: dict[int, dict[str, object]] = {
        0: {"per_second": rate},
        1: {"per_second": rate, "burst": luck.choice([50, 75, 200])},
        2: {"calls_per_hour": luck.choice([1, 7, 20])},
        3: {"per_second": 0.5, "calls_per_hour": luck.choice([5, 30])},
        4: {"per_second": 2},
    }
    pace = paces[kind]
    warm_up = WarmUp(ladder="conservative", started=date(2026, 3, luck.randint(12, 30)))

    def at(**workspace: object) -> WorkspaceLimits:
        limit = (lambda day: day_limit(warm_up, day)) if kind == 4 else (lambda day: None)
        return WorkspaceLimits(Workspace.model_validate({"pace": pace, **workspace}), zone, limit)

    usual = at(quiet_hours=("21:00", "08:00")) if number % 7 == 3 else at()
    noon = START + 12 * HOUR
    changes = [(float(START), usual)]
    if number % 6 == 1:
        changes += [(noon, at(paused=True)), (noon + 2 * HOUR + 17, usual)]
    elif number % 6 == 2 and "per_second" in pace:
        faster = {**pace, "per_second": rate * luck.choice([0.3, 2])}
        changes.append((noon + 1000, limits(zone, pace=faster)._replace(day_limit=usual.day_limit)))
    busy = {START + luck.randint(1, 20) * HOUR + 500.0: float(luck.choice([5, 90, 900]))} if number % 4 == 0 else {}
    sizes = (50, 40, 5) if number % 3 == 0 and kind in (0, 1, 4) else (50,)
    return Shop(f"shop-{number}", changes, busy, sizes, 1 + number % 3)


def test_a_day_of_350_retailers_keeps_every_limit_and_nobody_starves(monkeypatch: pytest.MonkeyPatch) -> None:
    # A longer wait than in service, so that the day fits into seconds; resuming is noticed later, that is all.
    monkeypatch.setattr(limiter, "LONGEST_WAIT_MS", 600_000)
    shops = [any_shop(number) for number in range(350)]
    sent, _ = simulate(shops, DAY)
    short = {}
    for shop in shops:
        mine = sent[shop.name]
        assert burst_excess(shop, mine) <= 1e-3, shop
        last = shop.limits[-1][1]
        for _, one in shop.limits:
            pace = one.workspace.pace
            assert pace is not None
            assert max(calls_by_hour(mine).values()) <= pace.calls_per_hour, shop
        for day, messages in messages_by_day(mine, last.zone).items():
            limit = last.day_limit(day.date())
            assert limit is None or messages <= limit, shop
        pauses = [
            (at, until)
            for (at, one), (until, _) in zip(shop.limits, shop.limits[1:], strict=False)
            if one.workspace.paused
        ]
        assert not [one for one in mine for begin, end in pauses if begin <= one.at < end], shop
        for call in mine:
            if not call.taken:
                (waits,) = shop.busy.values()
                # Another worker may spend its reservation for a second.
                assert not [late for late in mine if call.at + 1 < late.at < call.at + waits], shop
        expected = allowed(shop, DAY)
        if sum(one.messages for one in mine) < 0.95 * expected - 50:
            short[shop.name] = (sum(one.messages for one in mine), expected, shop)
    assert not short


def test_fast_workspaces_get_their_rate_with_few_calls_to_the_store() -> None:
    shops = [
        Shop("vendor's most", [(START, limits(pace={"per_second": 3472}))], workers=4),
        Shop("100 a second", [(START, limits(pace={"per_second": 100}))], workers=3),
        Shop("odd sizes", [(START, limits(pace={"per_second": 700.5, "burst": 900}))], sizes=(50, 31, 7), workers=2),
        Shop("small burst", [(START, limits(pace={"per_second": 1000, "burst": 60}))], workers=2),
    ]
    sent, cells = simulate(shops, 120, latency=0.02)
    for shop in shops:
        assert burst_excess(shop, sent[shop.name]) <= 1e-3, shop.name
        pace = shop.limits[0][1].workspace.pace
        assert pace is not None
        assert pace.per_second is not None
        least = 0.5 if shop.name == "small burst" else 0.95
        assert sum(one.messages for one in sent[shop.name]) >= least * 120 * pace.per_second, shop.name
    assert cells.calls < 2 * sum(len(calls) for calls in sent.values())


def test_the_429_of_one_workspace_changes_nothing_for_the_others() -> None:
    def run(busy: dict[float, float]) -> dict[str, list[object]]:
        shops = [any_shop(number) for number in range(10)]
        shops[5].busy = busy
        return {name: list(calls) for name, calls in simulate(shops, 3 * HOUR)[0].items()}

    calm, slowed = run({}), run({START + 60.0: 3000.0, START + 4000.0: 5000.0})
    assert calm.pop("shop-5") != slowed.pop("shop-5")
    assert calm == slowed
