"""Warm-up: the most messages that a new sender may send on a day, lowered by its bounces and complaints."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import date, timedelta
from typing import NamedTuple

from schemas.campaigns.workspaces import StopSignals, WarmUp
from schemas.problems import Problem, shown

IDLE_DAYS = 30
COLUMNS = ("date", "retailer_id", "sent", "bounced", "complained")
_MOST_DIGITS = 18
_THOUSANDS = (50, 75, 100, 150, 200, 300, 400, 500, 650, 800, 1_000)
LADDERS: dict[str, tuple[int, ...]] = {
    "moderate": (
        *(50, 100, 500, 1_000, 2_000, 4_000, 8_000, 16_000, 25_000, 35_000),
        *(1_000 * number for number in _THOUSANDS),
    ),
    # Doubles every three days up to what the vendor's calls of an hour can carry; then there is nothing to limit.
    "conservative": tuple(rung for rung in (50, 100, 500, *(1_000 * 2**step for step in range(14))) for _ in range(3)),
}


class Signal(NamedTuple):
    """A day's messages, and how many of them bounced or were complained about."""

    sent: int
    bounced: int
    complained: int


Signals = Mapping[date, Signal]


def day_limit(warm_up: WarmUp, day: date, signals: Signals | None = None) -> int | None:
    """The most messages of a day; None after the ladder's end. Without signals the ladder rises day by day from
    `started` (before it, the first rung holds). With signals of this retailer: a day with more bounces or complaints
    than `stop` allows is followed by the same rung, one with more than twice as many by the rung below; after 30 days
    without a message the ladder begins again, and stays at its beginning until messages are recorded."""
    ladder = LADDERS[warm_up.ladder] if isinstance(warm_up.ladder, str) else warm_up.ladder
    place, last_sent = 0, warm_up.started - timedelta(days=1)
    for days in range((day - warm_up.started).days if signals else 0):
        before = warm_up.started + timedelta(days=days)
        signal = (signals or {}).get(before)
        if signal is not None and signal.sent:
            last_sent = before
            place = _next_place(ladder, place, _badness(signal, warm_up.stop))
        else:
            place = min(place + 1, len(ladder))
        if (before - last_sent).days >= IDLE_DAYS:
            place = 0
    if not signals:
        place = max(0, (day - warm_up.started).days)
    return ladder[place] if place < len(ladder) else None


def read_signals(
    rows: Sequence[Mapping[str, str]], file: str, line: Callable[[int], int | None]
) -> tuple[dict[str, dict[date, Signal]], list[Problem]]:
    """The signals of a table's rows (COLUMNS as text) by retailer and day, and the mistakes; `line` gives its line."""
    signals: dict[str, dict[date, Signal]] = {}
    problems = []
    for number, row in enumerate(rows):
        parsed = _parse_row(row)
        if isinstance(parsed, Problem):
            problems.append(parsed._replace(file=file, line=line(number)))
            continue
        day, retailer, signal = parsed
        if signals.setdefault(retailer, {}).setdefault(day, signal) is not signal:
            fix = f"{retailer} has this day twice; keep one line"
            problems.append(Problem(file, "date", day.isoformat(), fix, line(number)))
    return signals, problems


def _badness(signal: Signal, stop: StopSignals) -> float:
    """The worse of the two shares, as a multiple of its limit."""
    return max(signal.bounced / signal.sent / stop.bounce, signal.complained / signal.sent / stop.spam)


def _next_place(ladder: Sequence[int], place: int, badness: float) -> int:
    if badness <= 1:
        return min(place + 1, len(ladder))
    return place if badness <= 2 else _rung_below(ladder, place)


def _rung_below(ladder: Sequence[int], place: int) -> int:
    """The first day of the rung before the one at a place; a rung is days in a row with one number."""
    place = _rung_start(ladder, place)
    return _rung_start(ladder, place - 1) if place else 0


def _rung_start(ladder: Sequence[int], place: int) -> int:
    while 0 < place < len(ladder) and ladder[place - 1] == ladder[place]:
        place -= 1
    return place


def _parse_row(cells: Mapping[str, str]) -> tuple[date, str, Signal] | Problem:
    try:
        day = date.fromisoformat(cells["date"])
    except ValueError:
        return Problem("", "date", shown(cells["date"]), "must be a day such as 2026-04-01")
    retailer = cells["retailer_id"]
    if not retailer:
        return Problem("", "retailer_id", "", "is empty; name the retailer")
    numbers = []
    for name in COLUMNS[2:]:
        value = cells[name]
        if not (value.isascii() and value.isdigit() and len(value) <= _MOST_DIGITS):
            return Problem("", name, shown(value), "must be a whole number, 0 or more")
        numbers.append(int(value))
    if max(numbers[1:]) > numbers[0]:
        return Problem("", "sent", str(numbers[0]), "is less than the day's bounces or complaints")
    return day, retailer, Signal(*numbers)
