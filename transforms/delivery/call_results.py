"""How the events of a call end: from the answer to their receipts, dead letters and settlements."""

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
    """Under what a batch was claimed: the owner, until when (epoch ms), how often each event was claimed before
    without an outcome, what to do when no answer comes, and what the limiter granted."""

    owner: str
    until: int
    resends: Mapping[str, int]
    on_unknown: OnUnknown
    grant: Grant | None = None


class Reply(NamedTuple):
    """A call that is over, and the ends of its events. Without an answer none was made, and none is before
    `not_before` (epoch ms)."""

    batch: Batch
    lease: Lease
    answer: Answer | None
    not_before: int = 0
    receipts: Sequence[Receipt] = ()
    letters: Mapping[str, DeadLetter] = MappingProxyType({})
    ends: Sequence[Settlement] = ()


@dataclass
class Result:
    """What came of calls; `waiting` are batches, each with the time before which it is not tried again."""

    receipts: list[Receipt] = field(default_factory=list)
    dead: list[DeadLetter] = field(default_factory=list)
    waiting: list[Batch] = field(default_factory=list)


def over(message: Message, now: int) -> str | None:
    """Why a message is no longer sent: its time is over, or will be before it is due."""
    if message.expires_at and message.expires_at <= max(now, message.deliver_after):
        return "expired"
    return "late_72h" if now - max(message.arrived_at, message.deliver_after) > LATE_MS else None


def end_call(
    batch: Batch, lease: Lease, answer: Answer, workspace: str, now: int
) -> tuple[list[Receipt], dict[str, DeadLetter]]:
    """The receipts of a call that is over, and the letters of refused deliveries by their events."""
    receipts, letters = list[Receipt](), dict[str, DeadLetter]()
    batch_id = batch.batch_id
    for place, message in enumerate(batch.messages):
        resends = lease.resends.get(message.event_id, 0)
        outcome, reason = _end_of(answer, place, resends)
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


def settlements(receipts: list[Receipt], letters: Mapping[str, DeadLetter]) -> list[Settlement]:
    """The receipts as the ledger takes them, each with its dead letter, if there is one."""
    return [
        Settlement(one.event_id, one.outcome, encode_receipt(one, letters.get(one.event_id)))  # type: ignore[arg-type]
        for one in receipts
    ]


def is_end(answer: Answer, events: int, lease: Lease) -> bool:
    """Whether an answer is the end of a call's events, in one way or the other."""
    if answer.kind == "refused":
        return events == 1 or not answer.divisible
    return answer.kind == "sent" or (answer.kind == "unknown" and lease.on_unknown == "hold")


def _end_of(answer: Answer, place: int, resends: int) -> tuple[str, str | None]:
    """(outcome, reason) of the event at a place of a call that is over. An event that a lost call may have reached is
    not known to be rejected, whatever is said of the next call."""
    if answer.kind == "unknown":
        return "unknown", answer.reason
    reason = answer.reason if answer.kind == "refused" else answer.rejected.get(place)
    if answer.kind == "sent" and reason is None:
        return "accepted", None
    return ("unknown" if resends else "rejected"), reason


def without_rate(limits: WorkspaceLimits) -> bool:
    """Whether only the vendor's calls an hour bind: then one question does for many batches."""
    pace = limits.workspace.pace
    return pace is None or (pace.per_second is None and pace.warm_up is None)
