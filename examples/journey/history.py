"""Earlier sends, for the frequency caps: the study's coupon mailings, and some invented messages of the last days.

The mailings are real, that they went by e-mail is not. The invented ones lie in the six days before the first campaign
of the sample, nine days after the day of the figures: enough to bring some customers to a cap of 3 in 7 days.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime, time, timedelta
from typing import NamedTuple

import pyarrow as pa

from examples.journey.contacts import recent_sends
from examples.journey.purchases import Study

SCHEMA = pa.schema(
    [
        ("customer_id", pa.string()),
        ("retailer_id", pa.string()),
        ("channel", pa.string()),
        ("sent_at", pa.timestamp("ms", tz="UTC")),
    ]
)
FIRST_CAMPAIGN = timedelta(days=9)
RECENT_EMAILS = ((0.05, 3), (0.08, 2), (0.12, 1))
RECENT_TEXTS = ((0.10, 1),)


class Send(NamedTuple):
    """One message."""

    customer_id: str
    retailer_id: str
    channel: str
    sent_at: datetime


def history(study: Study, customers: Sequence[tuple[int, str]]) -> pa.Table:
    """The sends to the customers (household, retailer), ordered by retailer, customer and time; SCHEMA."""
    sends = [
        Send(f"hh-{household}", retailer, "email", started.replace(hour=14, tzinfo=UTC))
        for household, retailer, started in study.mailings()
    ]
    for household, retailer in customers:
        sends += _recent(household, retailer, study.as_of + FIRST_CAMPAIGN)
    ordered = sorted(sends, key=lambda send: (send.retailer_id, send.customer_id, send.sent_at, send.channel))
    return pa.Table.from_pylist([send._asdict() for send in ordered], schema=SCHEMA)


def _recent(household: int, retailer: str, before: date) -> Iterator[Send]:
    """E-mails one, three and five days before a day, at 18:00 UTC; a text message late on the day before it."""
    for number in range(recent_sends(household, "email", RECENT_EMAILS)):
        sent = datetime.combine(before - timedelta(days=1 + 2 * number), time(18), UTC)
        yield Send(f"hh-{household}", retailer, "email", sent)
    for _ in range(recent_sends(household, "sms", RECENT_TEXTS)):
        sent = datetime.combine(before - timedelta(days=1), time(23), UTC)
        yield Send(f"hh-{household}", retailer, "sms", sent)
