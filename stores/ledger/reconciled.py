"""The rule of DeliveryLedger.reconcile: what a vendor says of unknown events takes the place of unknown."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from schemas.delivery import Settlement
from stores.ledger import transitions as rules
from stores.ledger.transitions import Entries, Entry

_OWNER = "reconcile"


def reconciled(entries: Entries, settlements: Sequence[Settlement], now: int) -> dict[str, Entry]:
    """The entries to write, of those settlements whose event is settled as unknown, whoever held its last claim."""
    unknown = {name: replace(entry, owner=_OWNER) for name, entry in entries.items() if entry.outcome == "unknown"}
    return rules.settle(unknown, _OWNER, [one for one in settlements if one.event_id in unknown], now)
