"""Checks of a decoded event: its times are plausible, the fields that later steps need are filled, numbers fit JSON."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

# Years 1 to 9999 in epoch milliseconds: what a calendar can say. Microseconds and nanoseconds of today lie beyond.
FIRST, LAST = -62_135_596_800_000, 253_402_300_799_999
END_OF_TIME = (1 << 63) - 1  # says "never" in deliver_after and expires_at
NEEDED = ("customer_id", "launch_id", "campaign_id", "channel")
"""The fields that must be filled, besides those that are attributes too."""

LIMITS = {
    "deliver_after": (FIRST, LAST),
    "expires_at": (1, LAST),
    "emitted_at": (FIRST, LAST),
    "offers[].expires_at": (FIRST, LAST),
}
"""The range of each number, by path, within which a scan takes an event as it is; others go to `find_flaw`."""

OVER = 1  # expires_at of the Message of an event that has zero or less: in a Message 0 means never


class Flaw(NamedTuple):
    """Why an event cannot be used: the reason of its dead letter, and the detail for a person."""

    reason: str
    detail: str


def find_flaw(event: Mapping[str, Any]) -> Flaw | None:
    """The first flaw that keeps a decoded event from being sent; None if it has none. `bad_time`: a time outside the
    years 1 to 9999, most often micro- or nanoseconds. An `expires_at` before that is over, and the end of time (2⁶³ -
    1) in `deliver_after` and `expires_at` never comes: both can be used. `unusable_event`: a field that is empty, or a
    number that JSON does not have."""
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
    """`expires_at` of the Message of an event: 0 for never, OVER for an event that has zero or less."""
    expires = event["expires_at"]
    return 0 if expires in (None, END_OF_TIME) else max(OVER, expires)


def _times(event: Mapping[str, Any]) -> Iterator[tuple[str, int]]:
    """(path, value) of the times that must be plausible."""
    if event["deliver_after"] != END_OF_TIME:
        yield "deliver_after", event["deliver_after"]
    if (event["expires_at"] or 0) > 0 and event["expires_at"] != END_OF_TIME:
        yield "expires_at", event["expires_at"]
    yield "emitted_at", event["emitted_at"]
    for place, offer in enumerate(event["offers"]):
        if offer["expires_at"] is not None:
            yield f"offers[{place}].expires_at", offer["expires_at"]


def _numbers(event: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """(path, value) of the numbers that may be fractions."""
    yield "experiment.bucket", (event["experiment"] or {}).get("bucket")
    for name, value in event["properties"].items():
        yield f"properties.{name[:80]}", value
