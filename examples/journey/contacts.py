"""Invent what the study does not have and a campaign needs: names, addresses, consents, time zones.

Every value is a hash of the household's number (the zone: of the store's name), so a household is the same person in
every file. Only who shares an address also depends on the other households of the store. The addresses belong to
nobody: example.com, and numbers 555-01xx.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import NamedTuple, TypeVar

T = TypeVar("T")

SALT = "invented"
"""Another salt invents other people. With this one hh-1, whom the README asks about, has given consent."""
NAMES = (
    "Ada", "Amir", "Ana", "Ben", "Carla", "Chen", "Dana", "Eli", "Emma", "Femi", "Grace", "Hugo", "Ines", "Ivan",
    "José", "Kim", "Lena", "Li", "Maya", "Noah", "Nora", "Omar", "Priya", "Ravi", "Rosa", "Sam", "Tess", "Zoë",
)  # fmt: skip
ZONES = (
    (0.34, "America/New_York"), (0.26, "America/Chicago"), (0.09, "America/Denver"), (0.15, "America/Los_Angeles"),
    (0.05, "America/Phoenix"), (0.03, "America/Anchorage"), (0.03, "Pacific/Honolulu"), (0.05, None),
)  # fmt: skip
APP_USERS = 0.6
NAMELESS = 0.12
WITHOUT_EMAIL = 0.06
WITHOUT_PHONE = 0.12
SHARING_EMAIL = 0.04
EMAIL_CONSENT = ((0.84, True), (0.09, False), (0.07, None))
SMS_CONSENT = ((0.58, True), (0.27, False), (0.15, None))
PUSH_CONSENT = ((0.75, True), (0.15, False), (0.10, None))


class Contact(NamedTuple):
    """How a household can be reached; None means unknown."""

    first_name: str | None
    email: str | None
    phone: str | None
    push_token: str | None
    email_consent: bool | None
    sms_consent: bool | None
    push_consent: bool | None
    time_zone: str | None


def contacts(homes: Sequence[tuple[int, str]]) -> dict[int, Contact]:
    """The contact of each household. `homes` has (household, store), grouped by store.

    A few households have the e-mail address of the previous household of their store, with a capital letter.
    """
    by_household = {}
    previous: tuple[int, str] | None = None
    for household, store in homes:
        contact = _contact(household, store)
        if previous and previous[1] == store and _draw("shares email", household) < SHARING_EMAIL:
            shared = _email(previous[0])
            contact = contact._replace(email=shared and shared.capitalize())
        by_household[household] = contact
        previous = household, store
    return by_household


def uses_app(household: int) -> bool:
    """Whether a household uses the marketplace's app; then it also has a push token."""
    return _draw("uses app", household) < APP_USERS


def recent_sends(household: int, channel: str, shares: Sequence[tuple[float, int]]) -> int:
    """How many messages a household was recently sent on a channel. `shares` has (share of households, number)."""
    return _chosen(_draw(f"recent {channel}", household), [*shares, (1.0, 0)])


def _contact(household: int, store: str) -> Contact:
    return Contact(
        first_name=_name(household),
        email=_email(household),
        phone=_phone(household),
        push_token=_digest("push token", household).hex()[:24] if uses_app(household) else None,
        email_consent=_chosen(_draw("email consent", household), EMAIL_CONSENT),
        sms_consent=_chosen(_draw("sms consent", household), SMS_CONSENT),
        push_consent=_chosen(_draw("push consent", household), PUSH_CONSENT),
        time_zone=_chosen(_draw("zone", store), ZONES),
    )


def _name(household: int) -> str | None:
    if _draw("nameless", household) < NAMELESS:
        return None
    return NAMES[int(_draw("name", household) * len(NAMES))]


def _email(household: int) -> str | None:
    if _draw("without email", household) < WITHOUT_EMAIL:
        return None
    return f"household.{household}@example.com"


def _phone(household: int) -> str | None:
    """A unique number: an area code for every hundred households."""
    if _draw("without phone", household) < WITHOUT_PHONE:
        return None
    return f"+1{412 + household // 100}55501{household % 100:02d}"


def _chosen(draw: float, shares: Sequence[tuple[float, T]]) -> T:
    """The value whose share contains a number in [0, 1). The last value also gets what rounding leaves over."""
    for share, value in shares:
        draw -= share
        if draw < 0:
            return value
    return shares[-1][1]


def _draw(what: str, key: int | str) -> float:
    """A number in [0, 1) that looks random and is always the same."""
    return int.from_bytes(_digest(what, key)[:6]) / 2**48


def _digest(what: str, key: int | str) -> bytes:
    return hashlib.sha256(f"{SALT}/{what}/{key}".encode()).digest()
