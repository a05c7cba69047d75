"""The results of calls: from a vendor's answer to receipts, dead letters and settlements."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import NamedTuple

from schemas.contracts import DeadLetter
from schemas.delivery import Answer, Batch, Message, OnUnknown, Receipt, Settlement
from transforms.delivery.receipts import encode_receipt, make_receipt, refused_letter
from transforms.pacing.limiter import WorkspaceLimits
from transforms.pacing.pace import Grant

LATE_MS = 72 * 3_600_000  # a message this long after its time is no longer sent


class Lease(NamedTuple):
    """The claim of a batch: the owner, until when (epoch ms), how often each event was claimed before without an
    outcome, what happens to an event without an answer, and the limiter's grant."""

    owner: str
    until: int
    resends: Mapping[str, int]
    on_unknown: OnUnknown
    grant: Grant | None = None


class CallResult(NamedTuple):
    """The result of one call: the vendor's answer, and the receipts, dead letters and settlements of its events.
    Without an answer no call was made, and none is before `not_before` (epoch ms)."""

    batch: Batch
    lease: Lease
    answer: Answer | None
    not_before: int = 0
    receipts: Sequence[Receipt] = ()
    letters: Mapping[str, DeadLetter] = MappingProxyType({})
    settlements: Sequence[Settlement] = ()


@dataclass
class CallResults:
    """The results of several calls; `waiting` are batches, each with the time before which it is not tried again."""

    receipts: list[Receipt] = field(default_factory=list)
    dead: list[DeadLetter] = field(default_factory=list)
    waiting: list[Batch] = field(default_factory=list)


def expiry_reason(message: Message, now: int) -> str | None:
    """The reason for which a message is no longer sent: it has expired, or will before it is due; None if it is."""
    if message.expires_at and message.expires_at <= max(now, message.deliver_after):
        return "expired"
    return "late_72h" if now - max(message.arrived_at, message.deliver_after) > LATE_MS else None


def make_receipts(
    batch: Batch, lease: Lease, answer: Answer, workspace: str, now: int
) -> tuple[list[Receipt], dict[str, DeadLetter]]:
    """The receipts of a call with a final answer, and the dead letters of refused deliveries by event id."""
    receipts, letters = list[Receipt](), dict[str, DeadLetter]()
    batch_id = batch.batch_id
    for place, message in enumerate(batch.messages):
        resends = lease.resends.get(message.event_id, 0)
        outcome, reason = _outcome(answer, place, resends)
        receipts.append(
            make_receipt(
                message,
                workspace,
                outcome,
                now,
                reason=reason,
                batch_id=batch_id,
                vendor_id=answer.vendor_id,
                attempt=max(batch.attempt, resends) + 1,
                resent=resends > 0,
            )
        )
        if outcome == "rejected":
            letters[message.event_id] = refused_letter(message, reason or "refused", answer.detail, batch_id)
    return receipts, letters


def to_settlements(receipts: Sequence[Receipt], letters: Mapping[str, DeadLetter]) -> list[Settlement]:
    """The settlements of receipts, each with its dead letter if there is one."""
    return [
        Settlement(receipt.event_id, receipt.outcome, encode_receipt(receipt, letters.get(receipt.event_id)))  # type: ignore[arg-type]
        for receipt in receipts
    ]


def is_final(answer: Answer, events: int, lease: Lease) -> bool:
    """Whether an answer settles the events of its call: no other call is made for them."""
    if answer.kind == "refused":
        return events == 1 or not answer.divisible
    return answer.kind == "sent" or (answer.kind == "unknown" and lease.on_unknown == "hold")


def _outcome(answer: Answer, place: int, resends: int) -> tuple[str, str | None]:
    """(outcome, reason) of the event at a place of a call with a final answer. An event that an unanswered call may
    have delivered is unknown, not rejected, even if the next call refuses it."""
    if answer.kind == "unknown":
        return "unknown", answer.reason
    reason = answer.reason if answer.kind == "refused" else answer.rejected.get(place)
    if answer.kind == "sent" and reason is None:
        return "accepted", None
    return ("unknown" if resends else "rejected"), reason


def has_no_rate(limits: WorkspaceLimits) -> bool:
    """Whether only the vendor's calls per hour limit a workspace: then one request serves many batches."""
    pace = limits.workspace.pace
    return pace is None or (pace.per_second is None and pace.warm_up is None)
