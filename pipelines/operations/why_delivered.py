"""What became of one event: each of its receipts, in the order of their times."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import datetime
from zoneinfo import ZoneInfo

from schemas.delivery import Receipt
from stores.deliveries.receipts import find_receipts


def delivery_facts(folders: Sequence[str], event_id: str, time_zone: str) -> Iterator[str]:
    """Lines about the receipts of an event, times as the clocks of the zone show them; a repeat is only counted.

    Raises InputError for folders and files that cannot be used.
    """
    found = Counter(find_receipts(folders, event_id))
    if not found:
        yield "    pending: no receipt yet"
    for receipt, times in found.items():
        yield from _receipt(receipt, times, ZoneInfo(time_zone))


def _receipt(receipt: Receipt, times: int, zone: ZoneInfo) -> Iterator[str]:
    outcome = receipt.outcome + (f" ({receipt.reason})" if receipt.reason else "")
    waited = (receipt.settled_at - receipt.arrived_at) / 1000
    yield f"    {_clock(receipt.settled_at, zone)}  {outcome}"
    facts = {
        "arrived": f"{_clock(receipt.arrived_at, zone)}, {waited:,.1f} s before",
        "workspace": receipt.workspace,
        "batch": receipt.batch_id or "none: no call was made",
        "vendor id": receipt.vendor_id,
        "attempt": f"{receipt.attempt}{', sent again because no answer had come' if receipt.resent else ''}",
        "written": f"{times} times, it counts once" if times > 1 else None,
    }
    for name, value in facts.items():
        if value:
            yield f"      {name:12}{value}"


def _clock(milliseconds: int, zone: ZoneInfo) -> str:
    return f"{datetime.fromtimestamp(milliseconds / 1000, zone):%Y-%m-%d %H:%M:%S %Z}"
