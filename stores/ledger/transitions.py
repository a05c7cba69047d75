"""The state transitions of ledger entries, as pure functions: from the entries as they are to the entries to write."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal
from urllib.parse import quote, unquote

import msgspec
from msgspec.structs import replace

from schemas.delivery import ClaimRequest, ClaimResult, OnUnknown, ResendLimit, Settlement

CANCEL = "cancel/"
"""The prefix of owners that claim events to cancel them and never send them: when such a lease has ended, its events
are as if they had not been claimed."""
REOPENED = frozenset({"rejected", "unknown", "dead"})
_RECONCILE = "reconcile"  # an owner


class Entry(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The ledger's entry of an event; `outcome` is None while it is claimed. `resends`: how often it was granted again
    after a claim had lapsed (an earlier version stored only whether it was). `owner` outlives the claim only in an
    unknown outcome; `receipt` is empty once it is reported. `first_claimed`: when the first claim was made that was not
    released. New fields go to the end and need a default."""

    owner: str = ""
    batch_id: str = ""
    lease_until: int = 0
    resends: int | bool = 0
    outcome: str | None = None
    settled_at: int = 0
    receipt: bytes = b""
    first_claimed: int = 0


Entries = Mapping[str, Entry]
Changes = Mapping[str, Entry | None]
"""Entries to write, or to drop (None), by event id."""


def grant(entries: Entries, request: ClaimRequest) -> tuple[list[ClaimResult], dict[str, Entry]]:
    """The result of each claim, and the entries to write. An event that is claimed twice in one request is granted
    once; the second claim is taken. An owner that claims what it holds already (it lost the answer, or wants a longer
    lease) is granted it again. Raises ValueError for a lease that ends before it begins."""
    claims, owner, now, lease_until, on_unknown, limit = request
    if lease_until <= now:
        raise ValueError(f"a lease until {lease_until} is over at {now}")
    results, changes = [], {}
    for event_id, batch_id in claims:
        entry = entries.get(event_id)
        if entry and _lapsed(entry, now) and entry.owner.startswith(CANCEL):
            entry = None
        state = "taken" if event_id in changes else _state(entry, owner, now, on_unknown, limit)
        resends = int(entry.resends) if entry else 0
        if state in ("granted", "regranted"):
            resends += _lapsed(entry, now)
            first_claimed = (entry and entry.first_claimed) or now
            changes[event_id] = Entry(owner, batch_id, lease_until, resends, first_claimed=first_claimed)
            results.append(ClaimResult(event_id, state, resends=resends))
        elif state == "taken":
            until = lease_until if event_id in changes or entry is None else entry.lease_until
            results.append(ClaimResult(event_id, state, until=until))
        else:
            results.append(ClaimResult(event_id, state, entry.outcome if entry else None, resends=resends))
    return results, changes


def _state(
    entry: Entry | None, owner: str, now: int, on_unknown: OnUnknown, limit: ResendLimit
) -> Literal["granted", "regranted", "lapsed", "taken", "settled"]:
    if entry is None:
        return "granted"
    if entry.outcome is not None:
        return "settled"
    if _lapsed(entry, now):
        in_limit = entry.resends < limit.times and now - (entry.first_claimed or now) <= limit.within_ms
        return "regranted" if on_unknown == "resend" and in_limit else "lapsed"
    if entry.owner != owner:
        return "taken"
    return "regranted" if entry.resends else "granted"


def _lapsed(entry: Entry | None, now: int) -> bool:
    return entry is not None and entry.outcome is None and entry.lease_until <= now


def settle(entries: Entries, owner: str, settlements: Sequence[Settlement], now: int) -> dict[str, Entry]:
    """The entries to write, of the events that these settlements apply to; see DeliveryLedger.settle."""
    changes: dict[str, Entry] = {}
    for event_id, outcome, receipt in settlements:
        entry = changes.get(event_id) or entries.get(event_id)
        if _applies(entry, owner, outcome, now):
            holder = entry.owner if entry and outcome == "unknown" else ""
            changes[event_id] = Entry(holder, outcome=outcome, settled_at=now, receipt=receipt)
    return changes


def _applies(entry: Entry | None, owner: str, outcome: str, now: int) -> bool:
    if entry is None:
        return True
    if entry.outcome is None:
        return entry.owner == owner or entry.lease_until <= now
    return entry.outcome == "unknown" != outcome and entry.owner == owner


def release(entries: Entries, owner: str, event_ids: Iterable[str]) -> dict[str, Entry | None]:
    """The entries to write, or to drop (None). An event that was granted to this owner after another's claim had lapsed
    is lapsed again: that claim may have sent it."""
    held = {name: entries[name] for name in event_ids if name in entries and entries[name].owner == owner}
    return {event_id: _released(entry) for event_id, entry in held.items() if not entry.outcome}


def reconcile(entries: Entries, settlements: Sequence[Settlement], now: int) -> dict[str, Entry]:
    """The entries to write, of the settlements whose event is unknown, whoever held its last claim."""
    unknown = {name: replace(entry, owner=_RECONCILE) for name, entry in entries.items() if entry.outcome == "unknown"}
    return settle(unknown, _RECONCILE, [end for end in settlements if end.event_id in unknown], now)


def _released(entry: Entry) -> Entry | None:
    return Entry(resends=entry.resends - 1, first_claimed=entry.first_claimed) if entry.resends else None


def digest(text: str) -> bytes | None:
    """The 16 bytes of 32 lower-case hex digits; None for any other text."""
    if len(text) != 32:
        return None
    try:
        data = bytes.fromhex(text)
    except ValueError:
        return None
    return data if data.hex() == text else None


def key_of(event_id: str) -> str:
    """The key of an event id, valid in any store: 32 hex digits as they are, other text escaped after a `~`."""
    return event_id if digest(event_id) else "~" + quote(event_id, safe=":", errors="surrogatepass")


def id_of(key: str) -> str:
    """The event id of a key."""
    return unquote(key[1:], errors="surrogatepass") if key.startswith("~") else key
