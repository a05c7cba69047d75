"""One call to a vendor, and what the ledger makes of its answer."""

from __future__ import annotations

import logging
import random
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal, NamedTuple, Protocol

from msgspec.structs import replace

from schemas.contracts import DeadLetter
from schemas.delivery import Account, Answer, Batch, Call, DeliveryLedger, OnUnknown, Receipt, Settlement, Vendor
from schemas.problems import InputError
from schemas.workspaces import Delivery
from transforms.pacing.limiter import Limiter, Terms, Told
from transforms.rebatch.outcomes import decoded, encode_receipt, make_receipt, refused_letter

LONGEST_MS = 30_000
_FIRST_MS = 500
_STEP = 1_000  # events that the ledger takes at once
_TOLD: dict[str, Told] = {
    "sent": "success",
    "refused": "success",
    "slow_down": "slow_down",
    "failed": "failure",
    "unknown": "failure",
}
_log = logging.getLogger(__name__)


class Tenants(Protocol):
    """The settings as they are now: pipelines/settings.py."""

    def delivery(self) -> Delivery: ...
    def terms(self, retailer: str) -> Terms: ...
    def account(self, retailer: str) -> Account: ...


class Lease(NamedTuple):
    """Under what a batch was claimed: the owner, until when (epoch ms), which events were claimed before without an
    outcome, and what to do when no answer comes."""

    owner: str
    until: int
    again: frozenset[str]
    on_unknown: OnUnknown


class Reply(NamedTuple):
    """A call that is over; without an answer none was made, and none is before `not_before` (epoch ms)."""

    batch: Batch
    lease: Lease
    answer: Answer | None
    not_before: int = 0


@dataclass
class Result:
    """What came of calls; `waiting` are batches, each with the time before which it is not tried again."""

    receipts: list[Receipt] = field(default_factory=list)
    dead: list[DeadLetter] = field(default_factory=list)
    waiting: list[Batch] = field(default_factory=list)


def back_off_ms(attempt: int, luck: float) -> int:
    """How long to wait after `attempt` calls that failed: doubling from 0.5 to 30 s, between half and all of it by
    `luck` in [0, 1)."""
    whole = min(LONGEST_MS, _FIRST_MS * 2 ** min(attempt - 1, 10))
    return int(whole * (0.5 + luck / 2))


class Caller:
    """Makes calls, from several threads."""

    def __init__(
        self, vendor: Vendor, ledger: DeliveryLedger, tenants: Tenants, limiter: Limiter, clock: Callable[[], float]
    ) -> None:
        self._vendor, self._ledger, self._tenants, self._limiter, self._clock = vendor, ledger, tenants, limiter, clock

    def now(self) -> int:
        """Epoch milliseconds."""
        return int(self._clock() * 1000)

    def send(self, retailer: str, batch: Batch, lease: Lease) -> Reply:
        """One call, made in a thread of its own."""
        try:
            account = self._tenants.account(retailer)
        except InputError as error:
            _log.warning("nothing is sent to %s: %s", retailer, error)
            return Reply(batch, lease, None, not_before=self.now() + LONGEST_MS)
        records = [decoded(one) for one in batch.messages]
        if self.now() + int(account.timeout_s * 1000) >= lease.until:
            # The lease might end before the call does: somebody else may claim then, so nothing is sent.
            return Reply(batch, lease, None)
        call = Call(batch.batch_id, batch.messages[0].vendor_campaign, records)
        return Reply(batch, lease, self._vendor.send(account, call))

    def conclude(self, retailer: str, replies: list[Reply], result: Result) -> None:
        """Settles the events of calls that are over, in one step for all that were claimed together; gives back
        those that were not sent, and leaves claimed those that only time can tell about."""
        ends: dict[str, list[Receipt]] = defaultdict(list)
        back: dict[str, list[str]] = defaultdict(list)
        letters: dict[str, DeadLetter] = {}
        for reply in replies:
            kind = self._after(retailer, reply, result)
            if kind == "back":
                back[reply.lease.owner] += [one.event_id for one in reply.batch.messages]
            elif kind == "end":
                ends[reply.lease.owner] += self._receipts(retailer, reply, letters)
        for owner, event_ids in back.items():
            self._ledger.release(owner, event_ids)
        for owner, receipts in ends.items():
            self.settle(owner, receipts, self.now(), result, letters)

    def _after(self, retailer: str, reply: Reply, result: Result) -> Literal["back", "end", "open"]:
        """What an answer means for the events; batches that come again are added to `result.waiting`."""
        batch, answer = reply.batch, reply.answer
        if answer is None:
            self._limiter.report(retailer, "nothing")
            result.waiting.append(replace(batch, not_before=reply.not_before))
            return "back"
        attempt = batch.attempt + 1
        self._report(retailer, answer)
        if answer.kind in ("slow_down", "failed"):
            pause = back_off_ms(attempt, random.random()) if answer.kind == "failed" else 0
            result.waiting.append(Batch(batch.messages, attempt, self.now() + pause))
            return "back"
        if answer.kind == "refused" and answer.divisible and len(batch.messages) > 1:
            half = len(batch.messages) // 2
            result.waiting += [Batch(part, attempt) for part in (batch.messages[:half], batch.messages[half:])]
            return "back"
        if answer.kind == "unknown" and reply.lease.on_unknown == "resend":
            # The claim stays: when its lease has ended the ledger grants it again and says so.
            result.waiting.append(Batch(batch.messages, attempt, reply.lease.until + 1))
            return "open"
        return "end"

    def _receipts(self, retailer: str, reply: Reply, letters: dict[str, DeadLetter]) -> list[Receipt]:
        """The receipts of a call that is over; refused deliveries are put into `letters` too, by their events."""
        batch, answer, now, receipts = reply.batch, reply.answer, self.now(), []
        assert answer is not None
        batch_id, workspace = batch.batch_id, self.workspace(retailer)
        for place, message in enumerate(batch.messages):
            outcome, reason = _end_of(answer, place)
            receipts.append(
                make_receipt(
                    message,
                    workspace,
                    outcome,
                    now,
                    reason=reason,
                    batch_id=batch_id,
                    vendor_id=answer.vendor_id,
                    attempt=batch.attempt + 1,
                    resent=message.event_id in reply.lease.again,
                )
            )
            if outcome == "rejected":
                letters[message.event_id] = refused_letter(message, reason or "refused", answer.detail, batch_id)
        return receipts

    def settle(
        self,
        owner: str,
        receipts: list[Receipt],
        now: int,
        result: Result,
        letters: Mapping[str, DeadLetter] = MappingProxyType({}),
    ) -> None:
        """Writes the ends down, with the letters of those that were refused; only what the ledger takes becomes a
        receipt."""
        ends = [
            Settlement(one.event_id, one.outcome, encode_receipt(one, letters.get(one.event_id)))  # type: ignore[arg-type]
            for one in receipts
        ]
        applied: set[str] = set()
        for start in range(0, len(ends), _STEP):
            applied.update(self._ledger.settle(owner, ends[start : start + _STEP], now))
        taken = [one for one in receipts if one.event_id in applied]
        result.receipts += taken
        result.dead += [letters[one.event_id] for one in taken if one.event_id in letters]

    def _report(self, retailer: str, answer: Answer) -> None:
        told: Told = _TOLD[answer.kind]
        if answer.reason in ("http_401", "http_403"):
            told = "unauthorized"
        self._limiter.report(retailer, told, answer.retry_after_s)

    def workspace(self, retailer: str) -> str:
        """Where a retailer's events go, as receipts name it."""
        return f"{self._vendor.name}:{retailer}"


def _end_of(answer: Answer, place: int) -> tuple[str, str | None]:
    """(outcome, reason) of the event at a place of a call that is over."""
    if answer.kind == "unknown":
        return "unknown", answer.reason
    if answer.kind != "sent":
        return "rejected", answer.reason
    return ("rejected", answer.rejected[place]) if place in answer.rejected else ("accepted", None)
