"""Limits that many fields share: a value beyond them is a slip, and would overflow a clock or a column later."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta
from functools import cache
from typing import Annotated
from zoneinfo import available_timezones

from pydantic import AfterValidator, BeforeValidator, Field

FIRST, LAST = datetime(1970, 1, 1), datetime(2200, 1, 1)
LONGEST = timedelta(days=36_525)
MOST = 1_000_000_000_000


def _in_time(moment: datetime) -> datetime:
    if not FIRST.replace(tzinfo=UTC) <= moment.replace(tzinfo=moment.tzinfo or UTC) < LAST.replace(tzinfo=UTC):
        raise ValueError(f"must lie from {FIRST:%Y-%m-%d} to before {LAST:%Y-%m-%d}")
    return moment


def _day(day: date) -> date:
    if not FIRST.date() <= day < LAST.date():
        raise ValueError(f"must lie from {FIRST:%Y-%m-%d} to before {LAST:%Y-%m-%d}")
    return day


def _bounded(duration: timedelta) -> timedelta:
    if abs(duration) > LONGEST:
        raise ValueError(f"must be {LONGEST.days:,} days (a hundred years) at most")
    return duration


def _no_boolean(raw: object) -> object:
    if isinstance(raw, bool):
        raise ValueError("true and false are no numbers; write the number")
    return raw


def _with_unit(raw: object) -> object:
    if isinstance(raw, int | float):
        raise ValueError("has no unit; write P3D for three days, PT3H for three hours, PT3S for three seconds")
    return raw


def _no_number(raw: object) -> object:
    if isinstance(raw, int | float) or (isinstance(raw, str) and re.fullmatch(r"\s*[-+]?[\d_.]+\s*", raw)):
        raise ValueError("is a number, not a time; write 2026-04-01T09:00")
    return raw


Moment = Annotated[datetime, BeforeValidator(_no_number), AfterValidator(_in_time)]
Day = Annotated[date, AfterValidator(_day)]
Duration = Annotated[timedelta, BeforeValidator(_with_unit), AfterValidator(_bounded)]
NoBoolean = BeforeValidator(_no_boolean)
Count = Annotated[int, NoBoolean, Field(ge=0, le=MOST)]
Version = Annotated[int, NoBoolean, Field(ge=0, le=1_000_000_000)]


@cache
def time_zones() -> frozenset[str]:
    """The names of the IANA time zones; `Factory` and `localtime` are none, though files have these names."""
    return frozenset(available_timezones() - {"Factory", "localtime"})


@cache
def _folded() -> dict[str, str]:
    return {name.casefold(): name for name in sorted(time_zones())}


def find_time_zone(text: str) -> str | None:
    """The IANA time zone that a text means, outer blanks and case apart; None for none."""
    return _folded().get(text.strip().casefold())
