"""The types of delivery: messages and batches, the vendor's answers, receipts, and the protocol of the ledger."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any, Literal, NamedTuple, Protocol, TypeVar

import msgspec

T = TypeVar("T")
Outcome = Literal["accepted", "rejected", "expired", "unknown", "dead"]
OnUnknown = Literal["resend", "hold"]
BATCH = 50  # recipients the vendor takes in one call
LEDGER_STEP = 1_000  # events in one call to the delivery ledger


class Message(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A campaign event to be delivered: its bytes as they were read, and the fields that route them.

    Times are epoch milliseconds; 0 means none. New fields go to the end and need a default: messages that an
    earlier version left in a runner's state are read again.
    """

    event_id: str
    retailer_id: str
    vendor_campaign: str
    customer_id: str
    schema: str
    body: bytes
    arrived_at: int = 0
    deliver_after: int = 0
    expires_at: int = 0
    replay: str = ""  # which replay published it again; a replay is no duplicate


class Batch(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Up to 50 messages of one retailer and vendor campaign, no customer twice. `attempt` counts the calls made so far;
    before `not_before` (epoch ms) no other is made."""

    messages: list[Message]
    attempt: int = 0
    not_before: int = 0

    @property
    def batch_id(self) -> str:
        """32 hex digits, a function of the event ids whatever their order: the idempotency key of the call."""
        event_ids = "".join(sorted(message.event_id for message in self.messages))
        return blake2b(event_ids.encode(), digest_size=16).hexdigest()


class Receipt(NamedTuple):
    """The outcome of one event (receipt.avsc)."""

    event_id: str
    launch_id: str
    campaign_id: str
    retailer_id: str
    customer_id: str
    channel: str
    variant: str | None
    workspace: str
    batch_id: str | None
    outcome: str
    reason: str | None
    vendor_id: str | None
    attempt: int
    resent: bool
    arrived_at: int
    settled_at: int


@dataclass(frozen=True)
class Account:
    """A retailer's workspace at the vendor, ready to call. `key` never shows in a repr; `templates` maps a
    template's name to the retailer's own Liquid text. `digests` identify the account
    (schemas/campaigns/accounts.py), each with its field and value in engine.yaml; retailers with the same
    `shared_account` may have the same."""

    retailer_id: str
    url: str
    key: str = field(repr=False)
    timeout_s: float
    templates: Mapping[str, str] = field(default_factory=dict, repr=False)
    digests: Mapping[bytes, tuple[str, str]] = field(default_factory=dict, repr=False)
    shared_account: str | None = None


class Call(NamedTuple):
    """One call to a vendor: decoded campaign events (contracts.decode) of one retailer and vendor campaign."""

    batch_id: str
    vendor_campaign: str
    events: Sequence[Mapping[str, Any]]


class Answer(NamedTuple):
    """A vendor's answer to a call.

    `sent`: accepted, except the events at the places in `rejected` (place to reason). `refused`: nothing was sent, and
    a retry would be refused too; `divisible` when one bad recipient may be the cause. `slow_down`: nothing was sent,
    retry after `retry_after_s` (None: it did not say). `failed`: nothing was sent (no connection), retry with
    back-off. `blocked`: nothing was sent, and the account, the address or a template is wrong, not a recipient; the
    workspace waits until it is corrected. `withdrawn`: nothing was sent, because `begin` returned None. `unknown`: the
    call was sent, and no answer proves that nothing was.
    `reason` is a short stable name such as http_401, `detail` the vendor's own words (never a secret).
    """

    kind: Literal["sent", "refused", "slow_down", "failed", "blocked", "withdrawn", "unknown"]
    reason: str | None = None
    detail: str = ""
    vendor_id: str | None = None
    rejected: Mapping[int, str] = {}
    retry_after_s: float | None = None
    divisible: bool = False


class SentFlag(NamedTuple):
    """Whether a call was sent, in memory that outlives a kill of the process: `cells[at] == value` when it was. Set
    right before the byte that completes the request: a call that was never sent is never in doubt."""

    cells: Any  # a sequence of bytes, such as an mmap
    at: int
    value: int

    @property
    def is_set(self) -> bool:
        """Whether the call was sent."""
        return bool(self.cells[self.at] == self.value)


Begin = Callable[[], SentFlag | None]
"""Called right before the first byte of a call is sent: the flag to set with the last one; None withdraws the call."""


def always() -> SentFlag:
    """A `Begin` that never withdraws a call."""
    return SentFlag([0], 0, 1)


class Vendor(Protocol):
    """Sends calls; safe for several threads. Never raises for what a vendor can do: every answer, and none, is an
    Answer. A call ends at most `account.timeout_s` after it began."""

    name: str

    def open(self) -> None:
        """Prepare; connections are opened lazily and kept."""

    def close(self) -> None:
        """Close the connections."""

    def send(self, account: Account, call: Call, begin: Begin = always) -> Answer:
        """The vendor's answer to one call of at most 50 events. `begin` is called once, right before the first byte
        is sent, and not at all when nothing is going to be sent; its flag is set before the last byte."""


class Claim(NamedTuple):
    """A request to send an event as part of a batch."""

    event_id: str
    batch_id: str


class ResendLimit(NamedTuple):
    """The limit of `resend`: how often an event is sent again, and until how long (ms) after its first claim."""

    times: int = 2
    within_ms: int = 3_600_000


RESENDS = ResendLimit()


class ClaimRequest(NamedTuple):
    """Claims of one owner. Those that are granted are the owner's from `now` until `lease_until` (epoch ms).

    Under `resend` a claim that lapsed is granted again as often, and as long after the event's first claim, as `limit`
    says; under `hold` never.
    """

    claims: Sequence[Claim]
    owner: str
    now: int
    lease_until: int
    on_unknown: OnUnknown
    limit: ResendLimit = RESENDS


class ClaimResult(NamedTuple):
    """The ledger's answer to a claim.

    `granted`: this owner may send. `regranted`: this owner may send, but an earlier claim lapsed without an outcome, so
    the event may have been sent before (only under `resend`). `lapsed`: an earlier claim lapsed, and `hold` or the
    limit of resends forbids another; settle it as unknown. `taken`: another owner's lease runs until `until` (epoch
    ms). `settled`: it has an `outcome`. `resends`: how many earlier claims were granted again after one lapsed.
    """

    event_id: str
    state: Literal["granted", "regranted", "lapsed", "taken", "settled"]
    outcome: str | None = None
    until: int = 0
    resends: int = 0


class Settlement(NamedTuple):
    """The outcome of an event. `receipt` (an encoded Receipt; empty for none) is stored until it is reported."""

    event_id: str
    outcome: Outcome
    receipt: bytes = b""


class DeliveryLedger(Protocol):
    """The delivery ledger: each event is claimed, then settled, so that it is sent once. Each method is one atomic step
    for all its events (at most LEDGER_STEP), and one or two calls to the store. Times are epoch milliseconds given by
    the caller. An `owner` is the name of one attempt and is never used again.
    """

    def open(self) -> None:
        """Connect."""

    def close(self) -> None:
        """Disconnect; may be called twice."""

    def claim(self, request: ClaimRequest) -> list[ClaimResult]:
        """The result of each claim, in order. A new event, and one that was released, is granted."""

    def settle(self, owner: str, settlements: Sequence[Settlement], now: int) -> list[str]:
        """Settle events; returns the ids that this settled.

        Settles an event that has no entry, that this owner claimed, or whose claim lapsed; and one that is settled as
        unknown if this owner held its last claim (its answer came late). Any other is not changed.
        """

    def reconcile(self, settlements: Sequence[Settlement], now: int) -> list[str]:
        """Settle events that are unknown, whoever held their last claim, because the vendor was asked; returns the ids
        that this settled. An event that is not unknown is not changed."""

    def release(self, owner: str, event_ids: Sequence[str]) -> None:
        """Release this owner's claims, of which nothing was sent; events of other owners are not changed."""

    def find(self, event_ids: Sequence[str]) -> dict[str, str]:
        """Event id to outcome, of those that are settled."""

    def reopen(self, event_ids: Sequence[str]) -> int:
        """Drop the entries of the rejected, unknown and dead among these, so that a replay may send them; how many."""

    def unreported(self, limit: int) -> list[tuple[str, bytes]]:
        """Event ids and receipts that are settled and not yet reported, oldest first."""

    def report(self, event_ids: Sequence[str]) -> None:
        """Drop the stored receipts of these events: they are in the event store."""

    def forget(self, before: int) -> int:
        """Drop the entries that were settled, and reported where they have a receipt, before a time; how many."""

    def counts(self, now: int) -> dict[str, int]:
        """Entries by state: claimed, lapsed, and each outcome."""

    def change(self, cell: str, update: Callable[[bytes | None], tuple[bytes, T]]) -> T:
        """Read, update and write a small named value in one atomic step; returns the second value of `update`. `update`
        may run several times. Pacing keeps a workspace's state in a cell."""


def ledger_steps(items: Sequence[T]) -> Iterator[Sequence[T]]:
    """The items in order, in parts that fit one call to the ledger."""
    for start in range(0, len(items), LEDGER_STEP):
        yield items[start : start + LEDGER_STEP]
