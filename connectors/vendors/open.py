"""Makes the vendor that engine.yaml names."""

from __future__ import annotations

from connectors.vendors.braze import Braze
from connectors.vendors.outbox import Outbox
from connectors.vendors.webhook import Webhook
from schemas.delivery import Vendor

VENDORS: dict[str, type[Vendor]] = {"braze": Braze, "webhook": Webhook, "outbox": Outbox}


def make_vendor(name: str) -> Vendor:
    """The vendor, not yet opened, so that it can be pickled. Raises ValueError for an unknown name."""
    if name not in VENDORS:
        raise ValueError(f"vendor {name!r} is none of {', '.join(VENDORS)}")
    return VENDORS[name]()
