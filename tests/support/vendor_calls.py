"""Calls to a vendor that a test changes: `any_call(any_event(template="welcome"))`."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import blake2b
from typing import Any

from schemas.delivery import Account, Answer, Call, Vendor

KEY = "key-that-nobody-may-see"
HOUR_MS = 3_600_000


def any_event(number: int = 0, **changes: Any) -> dict[str, Any]:
    """A campaign event as contracts.decode gives it."""
    return {
        "event_id": blake2b(str(number).encode(), digest_size=16).hexdigest(),
        "launch_id": "launch-1",
        "campaign_id": "welcome",
        "campaign_version": "0123456789ab",
        "surface": "storefront",
        "retailer_id": "store-1",
        "customer_id": f"cust-{number}",
        "recipient": f"c{number}@example.com",
        "channel": "email",
        "vendor_campaign": "vendor-campaign-1",
        "experiment": {"key": "split", "variant": "a", "bucket": 0.25, "scheme": "v1"},
        "offers": [
            {"id": "ten", "kind": "fixed", "code": "TEN", "value": "10.00", "currency": "USD", "expires_at": HOUR_MS}
        ],
        "template": "plain",
        "properties": {"first_name": f"Name {number}", "visits": 3, "score": 0.5, "vip": True, "town": None},
        "deliver_after": 0,
        "expires_at": None,
        "emitted_at": 0,
        "trace": "launch-1/part-0",
        **changes,
    }


def any_call(*events: Mapping[str, Any]) -> Call:
    """A call with these events, or with three."""
    return Call("0f" * 16, "vendor-campaign-1", events or tuple(map(any_event, range(3))))


def any_account(url: str, **changes: Any) -> Account:
    """An account at a URL; it waits a minute."""
    return Account(**{"retailer_id": "store-1", "url": url, "key": KEY, "timeout_s": 60.0, **changes})


def opened(vendor: Vendor) -> Vendor:
    """The vendor, ready."""
    vendor.open()
    return vendor


def kind(answer: Answer) -> tuple[str, str | None, bool]:
    """What a test asks of an answer first: kind, reason, divisible."""
    return answer.kind, answer.reason, answer.divisible
