from __future__ import annotations

from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.simulated_day import START

from transforms.pacing.quiet import quiet_until

NEW_YORK, NIGHT = "America/New_York", ("21:00", "08:00")


def ms(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp()) * 1000


@pytest.mark.parametrize(
    ("now", "hours", "ends"),
    [
        ("2026-04-01T20:59:59-04:00", NIGHT, None),
        ("2026-04-01T21:00:00-04:00", NIGHT, "2026-04-02T08:00-04:00"),
        ("2026-04-02T07:59:59-04:00", NIGHT, "2026-04-02T08:00-04:00"),
        ("2026-04-02T08:00:00-04:00", NIGHT, None),
        ("2026-03-07T23:00:00-05:00", NIGHT, "2026-03-08T08:00-04:00"),
        ("2026-10-31T23:00:00-04:00", NIGHT, "2026-11-01T08:00-05:00"),
        ("2026-03-08T01:30:00-05:00", ("01:00", "02:30"), "2026-03-08T03:30-04:00"),
        ("2026-04-01T12:30:00-04:00", ("12:00", "13:00"), "2026-04-01T13:00-04:00"),
        ("2026-04-01T12:30:00-04:00", ("12:00", "12:00"), None),
        ("2026-04-01T12:30:00-04:00", None, None),
    ],
    ids=[
        "a second before", "from their first moment", "to their last", "not at their end", "a night an hour shorter",
        "a night an hour longer", "an end that the clocks skip", "by day", "never when empty", "never when none",
    ],
)  # fmt: skip
def test_quiet_hours_hold(now: str, hours: tuple[str, str] | None, ends: str | None) -> None:
    assert quiet_until(ms(now), hours, NEW_YORK) == (None if ends is None else ms(ends))


CLOCKS = st.integers(0, 95).map(lambda quarters: f"{quarters // 4:02d}:{quarters % 4 * 15:02d}")


@given(st.integers(0, 366 * 86_400_000), st.tuples(CLOCKS, CLOCKS), st.sampled_from([NEW_YORK, "Australia/Lord_Howe"]))
def test_when_they_end_none_hold(past: int, hours: tuple[str, str], zone: str) -> None:
    until = quiet_until(START * 1000 + past, hours, zone)
    if until is not None:
        assert until > START * 1000 + past
        assert quiet_until(until, hours, zone) is None
