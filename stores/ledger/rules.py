"""What may happen to an entry, without a store: each rule takes what stands there and says what is to be written."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal
from urllib.parse import quote, unquote

import msgspec

from schemas.delivery import Claim, OnUnknown, Settlement, Standing

REOPENED = frozenset({"rejected", "unknown", "dead"})


class Entry(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What a ledger knows about an event; `outcome` is None while it is claimed.

    `again`: a claim before this one lapsed, so the event may have been sent. `owner` outlives the claim only in an
    unknown outcome; `receipt` is empty once it is reported.
    """

    owner: str = ""
    batch_id: str = ""
    lease_until: int = 0
    again: bool = False
    outcome: str | None = None
    settled_at: int = 0
    receipt: bytes = b""


Entries = Mapping[str, Entry]


def grant(
    entries: Entries, claims: Sequence[Claim], owner: str, now: int, lease_until: int, on_unknown: OnUnknown
) -> tuple[list[Standing], dict[str, Entry]]:
    """The standing of each claim, and the entries to write.

    An event that is claimed twice in one call is granted once: the second is told that it is taken. An owner that
    claims what it holds already (it lost the answer, or wants a longer lease) is granted it again.
    Raises ValueError for a lease that is over before it begins.
    """
    if lease_until <= now:
        raise ValueError(f"a lease until {lease_until} is over at {now}")
    standings, changes = [], {}
    for event_id, batch_id in claims:
        entry = entries.get(event_id)
        state = "taken" if event_id in changes else _state(entry, owner, now, on_unknown)
        if state in ("granted", "regranted"):
            changes[event_id] = Entry(owner, batch_id, lease_until, state == "regranted")
            standings.append(Standing(event_id, state))
        elif state == "taken":
            until = lease_until if event_id in changes or entry is None else entry.lease_until
            standings.append(Standing(event_id, state, until=until))
        else:
            standings.append(Standing(event_id, state, entry.outcome if entry else None))
    return standings, changes


def _state(
    entry: Entry | None, owner: str, now: int, on_unknown: OnUnknown
) -> Literal["granted", "regranted", "lapsed", "taken", "settled"]:
    if entry is None:
        return "granted"
    if entry.outcome is not None:
        return "settled"
    if entry.lease_until <= now:
        return "regranted" if on_unknown == "resend" else "lapsed"
    if entry.owner != owner:
        return "taken"
    return "regranted" if entry.again else "granted"


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
    """The entries to write, or to drop (None).

    What was granted to this owner after another's claim had lapsed stays lapsed: it may still have been sent then.
    """
    held = [one for one in event_ids if one in entries and entries[one].owner == owner and not entries[one].outcome]
    return {event_id: Entry(again=True) if entries[event_id].again else None for event_id in held}


def digest(text: str) -> bytes | None:
    """The 16 bytes that say the same as 32 lower-case hex digits; None for any other text."""
    if len(text) != 32:
        return None
    try:
        data = bytes.fromhex(text)
    except ValueError:
        return None
    return data if data.hex() == text else None


def key_of(event_id: str) -> str:
    """An id as a key that any store takes: 32 hex digits as they are, other text escaped behind a `~`."""
    return event_id if digest(event_id) else "~" + quote(event_id, safe=":", errors="surrogatepass")


def id_of(key: str) -> str:
    """The id that has this key."""
    return unquote(key[1:], errors="surrogatepass") if key.startswith("~") else key
