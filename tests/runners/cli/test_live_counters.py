"""What the live view of a delivery says, and to whom."""

from __future__ import annotations

import pytest

from runners.cli import live_counters as module
from runners.cli.live_counters import live_counters, shown
from transforms.delivery.counters import COUNTERS


def counted(**some: int) -> dict[str, int]:
    return {**dict.fromkeys(COUNTERS.names, 0), **some}


@pytest.mark.parametrize(
    ("counts", "before", "seconds", "line"),
    [
        (counted(), 0, 1.0, "read 0  0/s"),
        (counted(read=12_000, accepted=9_000), 4_000, 2.5, "read 12,000  accepted 9,000  on the way 3,000  2,000/s"),
        (
            counted(
                read=60, accepted=20, rejected=10, expired=9, unknown=8, dead_lettered=7, repeats=4, already_settled=2
            ),
            20,
            1.0,
            "read 60  accepted 20  rejected 10  expired 9  unknown 8  dead lettered 7  repeats 4  already settled 2  0/s",
        ),
        (counted(read=5, accepted=5, held=3, released=3, batched=5), 0, 0.0, "read 5  accepted 5  0/s"),
        (counted(read=5, accepted=6), 0, 1.0, "read 5  accepted 6  6/s"),
    ],
    ids=["nothing", "on the way", "every end", "no time has passed", "more ends than were read"],
)
def test_the_line_tells_every_end_that_has_come(counts: dict[str, int], before: int, seconds: float, line: str) -> None:
    assert shown(counts, before, seconds) == line


class Clock:
    """A clock that a test sets."""

    now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(module, "time", made)
    return made


def test_away_from_a_terminal_a_line_comes_every_ten_seconds_and_stdout_stays_for_results(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    with live_counters() as show:
        for second in range(21):
            clock.now = 101.0 + second
            show(counted(read=100 * second, accepted=100 * second))
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [
        "read 0  0/s", "read 1,000  accepted 1,000  100/s", "read 2,000  accepted 2,000  100/s",
    ]  # fmt: skip


def test_on_a_terminal_one_line_is_redrawn_and_taken_away(
    clock: Clock, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "200")
    with live_counters() as show:
        for second in range(3):
            clock.now += 1.0
            show(counted(read=10 * second, accepted=10 * second))
    out, err = capsys.readouterr()
    assert out == ""
    assert "read 20  accepted 20  10/s" in err
    assert err.index("read 10") < err.index("read 20")
    assert "\x1b[2K" in err[err.index("read 20") :]


def test_the_view_ends_when_the_job_fails(capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> None:
        with live_counters() as show:
            show(counted(read=1))
            raise KeyError("a bug")

    with pytest.raises(KeyError):
        fail()
    assert capsys.readouterr().err == "read 1  on the way 1  0/s\n"
