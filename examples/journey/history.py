"""Make a history of sends for the frequency caps: the study's coupon mailings, and some invented recent messages.

The mailings are real; that they were e-mails is invented. The invented messages are in the six days before the first
campaign of the sample, which is nine days after the day of the figures. Some customers reach a cap of 3 in 7 days.
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
    """One message to one customer."""

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
    """E-mails one, three and five days before a day, at 18:00 UTC, and a text message at 23:00 on the day before."""
    for number in range(recent_sends(household, "email", RECENT_EMAILS)):
        sent = datetime.combine(before - timedelta(days=1 + 2 * number), time(18), UTC)
        yield Send(f"hh-{household}", retailer, "email", sent)
    for _ in range(recent_sends(household, "sms", RECENT_TEXTS)):
        sent = datetime.combine(before - timedelta(days=1), time(23), UTC)
        yield Send(f"hh-{household}", retailer, "sms", sent)
