"""One call to a vendor, and what the ledger makes of its answer."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from msgspec.structs import replace

from schemas.contracts import DeadLetter
from schemas.delivery import Account, Answer, Batch, Call, DeliveryLedger, OnUnknown, Receipt, Settlement, Vendor
from schemas.problems import InputError
from schemas.workspaces import Delivery
from transforms.pacing.limiter import Limiter, Terms, Told
from transforms.rebatch.outcomes import decoded, encode_receipt, make_receipt, refused_letter

LONGEST_MS = 30_000
_FIRST_MS = 500
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


@dataclass
class Result:
    """What came of calls; `waiting` are batches with the time before which they are not tried again."""

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

    def send(self, retailer: str, batch: Batch, lease: Lease) -> Result:
        """One call, and its events settled, given back, or left claimed where only time can tell."""
        try:
            account = self._tenants.account(retailer)
        except InputError as error:
            _log.warning("nothing is sent to %s: %s", retailer, error)
            self._release(batch, lease)
            return Result(waiting=[replace(batch, not_before=self.now() + LONGEST_MS)])
        records = [decoded(one) for one in batch.messages]
        if self.now() + int(account.timeout_s * 1000) >= lease.until:
            # The lease might end before the call does: somebody else may claim then, so nothing is sent.
            self._release(batch, lease)
            return Result(waiting=[batch])
        answer = self._vendor.send(account, Call(batch.batch_id, batch.messages[0].vendor_campaign, records))
        return self._settled(retailer, batch, lease, answer, records)

    def _release(self, batch: Batch, lease: Lease) -> None:
        self._ledger.release(lease.owner, [one.event_id for one in batch.messages])

    def _settled(
        self, retailer: str, batch: Batch, lease: Lease, answer: Answer, records: list[dict[str, Any]]
    ) -> Result:
        attempt, result = batch.attempt + 1, Result()
        self._report(retailer, answer)
        if answer.kind in ("slow_down", "failed"):
            self._release(batch, lease)
            pause = back_off_ms(attempt, random.random()) if answer.kind == "failed" else 0
            result.waiting.append(Batch(batch.messages, attempt, self.now() + pause))
        elif answer.kind == "refused" and answer.divisible and len(batch.messages) > 1:
            self._release(batch, lease)
            half = len(batch.messages) // 2
            result.waiting += [Batch(part, attempt) for part in (batch.messages[:half], batch.messages[half:])]
        elif answer.kind == "unknown" and lease.on_unknown == "resend":
            # The claim stays: when its lease has ended the ledger grants it again and says so.
            result.waiting.append(Batch(batch.messages, attempt, lease.until + 1))
        else:
            self._end(retailer, batch, lease, answer, attempt, records, result)
        return result

    def _end(
        self,
        retailer: str,
        batch: Batch,
        lease: Lease,
        answer: Answer,
        attempt: int,
        records: list[dict[str, Any]],
        result: Result,
    ) -> None:
        now, batch_id, receipts = self.now(), batch.batch_id, []
        for place, message in enumerate(batch.messages):
            outcome, reason = _end_of(answer, place)
            receipts.append(
                make_receipt(
                    message,
                    self.workspace(retailer),
                    outcome,
                    now,
                    event=records[place],
                    reason=reason,
                    batch_id=batch_id,
                    vendor_id=answer.vendor_id,
                    attempt=attempt,
                    resent=message.event_id in lease.again,
                )
            )
            if outcome == "rejected":
                result.dead.append(refused_letter(message, reason or "refused", answer.detail, batch_id))
        self.settle(lease.owner, receipts, now, result)

    def settle(self, owner: str, receipts: list[Receipt], now: int, result: Result) -> None:
        """Writes the ends down; only what the ledger takes becomes a receipt."""
        ends = [Settlement(one.event_id, one.outcome, encode_receipt(one)) for one in receipts]  # type: ignore[arg-type]
        applied = set(self._ledger.settle(owner, ends, now))
        result.receipts += [one for one in receipts if one.event_id in applied]

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
