"""What the later steps need of a decoded event: times that are times, names that are there, values that JSON has."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

# Years 1 to 9999 in epoch milliseconds: what a calendar can say. Microseconds and nanoseconds of today lie beyond.
FIRST, LAST = -62_135_596_800_000, 253_402_300_799_999
END_OF_TIME = (1 << 63) - 1  # says "never" in deliver_after and expires_at
NEEDED = ("customer_id", "launch_id", "campaign_id", "channel")
"""The fields that later steps need filled, besides those that attributes repeat."""

LIMITS = {
    "deliver_after": (FIRST, LAST),
    "expires_at": (1, LAST),
    "emitted_at": (FIRST, LAST),
    "offers[].expires_at": (FIRST, LAST),
}
"""Numbers, by path, that need no second look: a scan sorts out the events that have others."""

OVER = 1  # the expires_at, in a Message, of an event whose own is zero or negative: 0 means none there


class Flaw(NamedTuple):
    """Why an event cannot be used: the reason of its dead letter, and what a person should know."""

    reason: str
    detail: str


def find_flaw(event: Mapping[str, Any]) -> Flaw | None:
    """The first thing that keeps a decoded event from being sent, if any.

    `bad_time`: a time outside the years 1 to 9999, most often micro- or nanoseconds. An `expires_at` before that is
    over, and the end of time (2⁶³ - 1) in `deliver_after` and `expires_at` never comes: both can be used.
    `unusable_event`: a field that is empty, or a number that JSON does not have.
    """
    for name, value in _times(event):
        if not FIRST <= value <= LAST:
            detail = f"{name} is {value}, no time in epoch milliseconds (years 1 to 9999); publish milliseconds"
            return Flaw("bad_time", detail)
    for name in NEEDED:
        if not event[name]:
            return Flaw("unusable_event", f"{name} is empty; find out who published it")
    for name, value in _numbers(event):
        if isinstance(value, float) and not math.isfinite(value):
            return Flaw("unusable_event", f"{name} is {value}, which JSON does not have; leave the property out")
    return None


def expiry(event: Mapping[str, Any]) -> int:
    """When an event expires, as a Message has it: 0 for never; a time that is over for one that is zero or negative."""
    expires = event["expires_at"]
    return 0 if expires in (None, END_OF_TIME) else max(OVER, expires)


def _times(event: Mapping[str, Any]) -> Iterator[tuple[str, int]]:
    """The times that must be plausible, by their places."""
    if event["deliver_after"] != END_OF_TIME:
        yield "deliver_after", event["deliver_after"]
    if (event["expires_at"] or 0) > 0 and event["expires_at"] != END_OF_TIME:
        yield "expires_at", event["expires_at"]
    yield "emitted_at", event["emitted_at"]
    for place, offer in enumerate(event["offers"]):
        if offer["expires_at"] is not None:
            yield f"offers[{place}].expires_at", offer["expires_at"]


def _numbers(event: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """The numbers that may be fractions, by their places."""
    yield "experiment.bucket", (event["experiment"] or {}).get("bucket")
    for name, value in event["properties"].items():
        yield f"properties.{name[:80]}", value
