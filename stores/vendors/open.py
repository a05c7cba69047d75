"""A vendor by its name in engine.yaml."""

from __future__ import annotations

from schemas.delivery import Vendor
from stores.vendors.braze import Braze
from stores.vendors.outbox import Outbox
from stores.vendors.webhook import Webhook

VENDORS: dict[str, type[Vendor]] = {"braze": Braze, "webhook": Webhook, "outbox": Outbox}


def make_vendor(name: str) -> Vendor:
    """The vendor, not yet open: until then it can be pickled. Raises ValueError for a name that is none."""
    if name not in VENDORS:
        raise ValueError(f"vendor {name!r} is none of {', '.join(VENDORS)}")
    return VENDORS[name]()
