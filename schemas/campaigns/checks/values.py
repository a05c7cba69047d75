"""Limits that many fields share: a value beyond them is a slip, and would overflow a clock or a column later."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from functools import cache
from typing import Annotated, Any
from zoneinfo import available_timezones

from pydantic import AfterValidator, BeforeValidator, Field

FIRST, LAST = datetime(1970, 1, 1), datetime(2200, 1, 1)
LONGEST = timedelta(days=36_525)
MOST = 1_000_000_000_000


def refuse(is_wrong: Callable[[Any], bool], fix: str) -> Callable[[Any], Any]:
    """A validator: the value, or ValueError(`fix`) if it is wrong."""

    def validate(value: Any) -> Any:
        if is_wrong(value):
            raise ValueError(fix)
        return value

    return validate


def is_number(raw: object) -> bool:
    """Whether YAML reads a value as a number, or as true or false."""
    return isinstance(raw, int | float)


def _is_digits(raw: object) -> bool:
    return is_number(raw) or (isinstance(raw, str) and bool(re.fullmatch(r"\s*[-+]?[\d_.]+\s*", raw)))


def _is_out_of_time(moment: datetime) -> bool:
    return not FIRST.replace(tzinfo=UTC) <= moment.replace(tzinfo=moment.tzinfo or UTC) < LAST.replace(tzinfo=UTC)


_no_number = refuse(_is_digits, "is a number, not a time; write 2026-04-01T09:00")
_RANGE = f"must lie from {FIRST:%Y-%m-%d} to before {LAST:%Y-%m-%d}"
_NO_UNIT = "has no unit; write P3D for three days, PT3H for three hours, PT3S for three seconds"
_bounded = refuse(lambda time: abs(time) > LONGEST, f"must be {LONGEST.days:,} days (a hundred years) at most")
_no_boolean = refuse(lambda raw: isinstance(raw, bool), "true and false are no numbers; write the number")
Moment = Annotated[datetime, BeforeValidator(_no_number), AfterValidator(refuse(_is_out_of_time, _RANGE))]
Day = Annotated[date, AfterValidator(refuse(lambda day: not FIRST.date() <= day < LAST.date(), _RANGE))]
Duration = Annotated[timedelta, BeforeValidator(refuse(is_number, _NO_UNIT)), AfterValidator(_bounded)]
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
