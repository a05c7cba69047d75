from __future__ import annotations

from datetime import date, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.campaigns.workspaces import WarmUp
from transforms.pacing.warm_up import LADDERS, Signal, day_limit, read_signals

FIRST = date(2026, 4, 1)
FINE, OVER, FAR_OVER, IDLE = Signal(1000, 30, 0), Signal(1000, 31, 0), Signal(1000, 61, 0), Signal(0, 0, 0)


def limits(warm_up: WarmUp, days: int, signals: list[Signal] | None = None) -> list[int | None]:
    known = {FIRST + timedelta(days=n): one for n, one in enumerate(signals or [])}
    return [day_limit(warm_up, FIRST + timedelta(days=n), known or None) for n in range(days)]


def test_the_conservative_ladder_stays_three_days_on_a_rung_and_doubles_on() -> None:
    ladder = limits(WarmUp(ladder="conservative", started=FIRST), 60)
    assert ladder[:7] == [50, 50, 50, 100, 100, 100, 500]
    assert ladder[9:27:3] == [1_000, 2_000, 4_000, 8_000, 16_000, 32_000]
    assert ladder[-1] is None


def test_the_moderate_ladder_reaches_a_million_on_day_21() -> None:
    ladder = limits(WarmUp(started=FIRST), 22)
    assert ladder[:13] == [50, 100, 500, 1_000, 2_000, 4_000, 8_000, 16_000, 25_000, 35_000, 50_000, 75_000, 100_000]
    assert ladder[20:] == [1_000_000, None]


def test_before_the_start_the_first_rung_holds() -> None:
    assert day_limit(WarmUp(started=FIRST), FIRST - timedelta(days=9), None) == 50
    assert day_limit(WarmUp(started=FIRST), FIRST - timedelta(days=9), {FIRST: FINE}) == 50


OWN = WarmUp(ladder=(10, 20, 20, 30), started=FIRST)


@pytest.mark.parametrize(
    ("signals", "expected"),
    [
        ([FINE] * 4, [10, 20, 20, 30, None]),
        ([FINE, OVER, FINE, FINE], [10, 20, 20, 20, 30]),
        ([FINE, FAR_OVER, FINE, FINE], [10, 20, 10, 20, 20]),
        ([FAR_OVER] * 4, [10, 10, 10, 10, 10]),
        ([FINE, FINE, FINE, FAR_OVER], [10, 20, 20, 30, 20]),
        ([FINE, Signal(10_000, 0, 9), FINE, FINE], [10, 20, 20, 20, 30]),
        ([FINE, Signal(10_000, 0, 17), FINE, FINE], [10, 20, 10, 20, 20]),
        ([FINE, IDLE, IDLE, IDLE], [10, 20, 20, 30, None]),
    ],
    ids=[
        "rises on good days",
        "repeats the rung after too many bounces",
        "falls a rung after far too many",
        "cannot fall below the first",
        "falls to the first day of the rung below",
        "repeats the rung after too many complaints",
        "falls a rung after far too many complaints",
        "rises on days without messages",
    ],
)
def test_with_signals_the_ladder(signals: list[Signal], expected: list[int | None]) -> None:
    assert limits(OWN, 5, signals) == expected


def test_after_30_idle_days_the_ladder_begins_again_and_waits_for_messages() -> None:
    ladder = limits(OWN, 40, [FINE] * 5)
    assert ladder[34] is None
    assert ladder[35:] == [10] * 5
    assert limits(OWN, 40, [FINE] * 5 + [IDLE] * 30 + [FINE] * 2)[35:38] == [10, 20, 20]


@given(
    st.lists(st.sampled_from([FINE, OVER, FAR_OVER, IDLE]), max_size=50), st.sampled_from(["moderate", "conservative"])
)
def test_signals_never_allow_more_than_the_days_alone(signals: list[Signal], ladder: str) -> None:
    warm_up = WarmUp.model_validate({"ladder": ladder, "started": FIRST})
    for with_signals, alone in zip(limits(warm_up, 52, signals), limits(warm_up, 52), strict=True):
        assert alone is None or (with_signals is not None and with_signals <= alone)
        assert with_signals is None or with_signals in LADDERS[ladder]


def row(day: str = "2026-04-01", **changes: str) -> dict[str, str]:
    """A row of signals."""
    return {"date": day, "retailer_id": "kroger", "sent": "100", "bounced": "2", "complained": "1", **changes}


def test_signals_are_read_by_retailer_and_day() -> None:
    second = row("2026-04-02", sent="0", bounced="0", complained="0")
    signals, problems = read_signals([row("2026-04-01"), second], "s.csv", lambda number: number + 2)
    assert problems == []
    assert signals == {"kroger": {FIRST: Signal(100, 2, 1), FIRST + timedelta(days=1): Signal(0, 0, 0)}}


@pytest.mark.parametrize(
    ("rows", "line", "field", "says"),
    [
        ([{"day": "1/4/2026"}], 2, "date", "such as 2026-04-01"),
        ([{}, {"day": "2026-04-02", "retailer_id": ""}], 3, "retailer_id", "name the retailer"),
        ([{"sent": "1.5"}], 2, "sent", "whole number"),
        ([{"complained": ""}], 2, "complained", "whole number"),
        ([{"sent": "9" * 5_000}], 2, "sent", "whole number"),
        ([{"sent": "1"}], 2, "sent", "less than"),
        ([{}, {}], 3, "date", "twice"),
    ],
)
def test_a_mistake_in_the_signals_names_its_line(rows: list[dict[str, str]], line: int, field: str, says: str) -> None:
    (problem,) = read_signals([row(**changes) for changes in rows], "lists/signals.csv", lambda number: number + 2)[1]
    assert (problem.file, problem.line, problem.field) == ("lists/signals.csv", line, field)
    assert says in problem.fix
