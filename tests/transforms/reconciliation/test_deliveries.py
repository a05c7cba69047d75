"""Counts of a delivery, the equation, the target."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transforms.reconciliation.deliveries import (
    EVENT_OUTCOMES,
    EventCount,
    count_outcomes,
    count_outcomes_by,
    on_target,
    open_groups,
    reasons,
    success,
)
from transforms.reconciliation.sample_ratio import ratio_summary


def any_counted(**changes: Any) -> EventCount:
    return EventCount("spring", "store-1", "a", "accepted", None, 10)._replace(**changes)


ROWS = [
    any_counted(),
    any_counted(retailer="store-2", events=40),
    any_counted(outcome="rejected", reason="http_401", events=2),
    any_counted(outcome="rejected", reason="invalid_address", events=3),
    any_counted(outcome="rejected", reason=None, retailer="store-2", events=1),
    any_counted(outcome="pending", variant=None, events=4),
]
EMITTED = {("spring", "store-1", "a"): 15, ("spring", "store-2", "a"): 41, ("spring", "store-1", None): 4}


def counts(**changes: int) -> dict[str, int]:
    return dict.fromkeys(EVENT_OUTCOMES, 0) | changes


def test_every_outcome_is_counted_also_when_there_is_none_of_it() -> None:
    assert count_outcomes(ROWS) == counts(accepted=50, rejected=6, pending=4)
    assert count_outcomes([]) == counts()


def test_groups_come_by_size() -> None:
    assert list(count_outcomes_by(ROWS, "retailer")) == [("store-2",), ("store-1",)]
    assert count_outcomes_by(ROWS, "campaign", "variant")["spring", None] == counts(pending=4)


def test_reasons_come_by_frequency_and_none_is_lost() -> None:
    assert list(reasons(ROWS, "rejected").items()) == [("invalid_address", 3), ("http_401", 2), ("unnamed", 1)]
    assert reasons(ROWS, "expired") == {}


def test_the_equation_closes() -> None:
    assert open_groups(ROWS, EMITTED) == {}


OPEN = {
    "an event is gone": (ROWS[1:], EMITTED, {("spring", "store-1", "a"): "15 emitted is not 5 rejected"}),
    "nothing is known of a group": (
        ROWS,
        EMITTED | {("summer", "store-1", None): 7},
        {("summer", "store-1", None): "7 emitted is not nothing"},
    ),
    "a receipt says another variant": (
        [*ROWS[1:], any_counted(variant="b")],
        EMITTED,
        {
            ("spring", "store-1", "a"): "15 emitted is not 5 rejected",
            ("spring", "store-1", "b"): "0 emitted is not 10 accepted",
        },
    ),
}


@pytest.mark.parametrize(("rows", "emitted", "gaps"), OPEN.values(), ids=OPEN.keys())
def test_the_equation_is_open_when(rows: list[EventCount], emitted: Any, gaps: Any) -> None:
    assert open_groups(rows, emitted) == gaps


@given(
    st.lists(
        st.builds(
            EventCount, *[st.sampled_from("ab")] * 3, st.sampled_from(EVENT_OUTCOMES), st.none(), st.integers(0, 9)
        )
    )
)
def test_sums_over_any_groups_are_the_sums_over_all(rows: list[EventCount]) -> None:
    for fields in (("campaign",), ("retailer", "variant")):
        parts = count_outcomes_by(rows, *fields).values()
        assert {end: sum(part[end] for part in parts) for end in EVENT_OUTCOMES} == count_outcomes(rows)


TARGETS = {
    "exactly the target": (counts(accepted=999, rejected=1), 0.999, True),
    "one below it": (counts(accepted=998, rejected=1, unknown=1), 0.998, False),
    "expired and pending say nothing of the delivery": (counts(accepted=10, expired=50, pending=50), 1.0, True),
    "nothing was tried": (counts(expired=5, pending=5), None, True),
    "all was refused": (counts(rejected=1), 0.0, False),
}


@pytest.mark.parametrize(("counted", "share", "good"), TARGETS.values(), ids=TARGETS.keys())
def test_success_is_accepted_of_what_was_tried(counted: dict[str, int], share: float | None, good: bool) -> None:
    assert success(counted) == share
    assert on_target(counted) is good


@pytest.mark.parametrize("thousands", [1, 7, 333, 999_999])
def test_the_target_is_met_exactly_whatever_the_size(thousands: int) -> None:
    assert on_target(counts(accepted=999 * thousands, rejected=thousands))
    assert not on_target(counts(accepted=999 * thousands - 1, rejected=thousands + 1))


def test_the_split_of_the_accepted_is_tested_as_the_other_stages() -> None:
    assert ratio_summary([0, 0], [1, 1]) == {"p_value": 1.0, "mismatch": False}
    assert ratio_summary([500, 510], [0.5, 0.5])["mismatch"] is False
    skewed = ratio_summary([500, 700], [0.5, 0.5])
    assert skewed["mismatch"] is True
    assert math.isclose(skewed["p_value"], 7.7e-9, rel_tol=0.05)
