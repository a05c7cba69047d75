"""One call to a vendor, and what its answer does to the events in the ledger."""

from __future__ import annotations

import logging
import random
from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import chain
from threading import Lock
from typing import Literal, Protocol

from msgspec.structs import replace

from schemas.call_journal import CallJournal
from schemas.campaigns.workspaces import Delivery
from schemas.contracts import DeadLetter
from schemas.delivery import (
    Account,
    Answer,
    Batch,
    Call,
    DeliveryLedger,
    Receipt,
    SentFlag,
    Settlement,
    Vendor,
    ledger_steps,
)
from schemas.problems import InputError, JobError, Problem
from schemas.redact import clean_answer
from transforms.delivery.alarms import Alarms
from transforms.delivery.call_results import (
    CallResult,
    CallResults,
    Lease,
    expiry_reason,
    is_final,
    make_receipts,
    to_settlements,
)
from transforms.delivery.receipts import decode_message
from transforms.delivery.templates import TemplateFailures
from transforms.pacing.account_owners import AccountOwners, Accounts
from transforms.pacing.limiter import CallOutcome, Limiter
from transforms.streaming.engine_traits import Clock

LONGEST_MS = 30_000
_FIRST_MS = 500
_MOST_UNUSABLE = 20  # calls in a row whose events no adapter can send: then the adapter is at fault, not the events
_CALL_OUTCOMES: dict[str, CallOutcome] = {
    "sent": "success",
    "refused": "success",
    "slow_down": "slow_down",
    "failed": "failure",
    "blocked": "blocked",
    "withdrawn": "not_sent",
    "unknown": "failure",
}
_log = logging.getLogger(__name__)


class WorkspaceSettings(Accounts, Protocol):
    """The live settings: pipelines/rebatch/settings.py."""

    def delivery(self) -> Delivery: ...


def back_off_ms(attempt: int, luck: float) -> int:
    """The wait after `attempt` failed calls: doubling from 0.5 to 30 s, shortened by `luck` in [0, 1) by up to half."""
    whole = min(LONGEST_MS, _FIRST_MS * 2 ** min(attempt - 1, 10))
    return int(whole * (0.5 + luck / 2))


class Caller:
    """Makes calls and settles their events. Safe for several threads."""

    def __init__(
        self,
        vendor: Vendor,
        ledger: DeliveryLedger,
        settings: WorkspaceSettings,
        limiter: Limiter,
        journal: CallJournal,
        clock: Clock,
    ) -> None:
        self._vendor, self._ledger, self._settings, self._limiter = vendor, ledger, settings, limiter
        self._journal, self._clock = journal, clock
        self._alarms, self._owners = Alarms(clock), AccountOwners(ledger.change, settings, clock)
        self._lock, self._templates = Lock(), TemplateFailures()
        self._unusable = 0

    def now(self) -> int:
        """Epoch milliseconds."""
        return int(self._clock() * 1000)

    def send(self, retailer: str, batch: Batch, lease: Lease) -> CallResult:
        """Makes one call, in the thread of the caller. A final answer is in the journal before this returns."""
        try:
            account = self._settings.account(retailer)
        except InputError as error:
            self._alarms.stopped(retailer, "no account", "; ".join(map(_describe_problem, error.problems)))
            return CallResult(batch, lease, None, not_before=self.now() + LONGEST_MS)
        if self._owners.check(account):  # it is another retailer's, which is logged as an alarm
            return CallResult(batch, lease, None, not_before=self.now() + LONGEST_MS)
        answer = self._call(retailer, account, batch, lease)
        if not is_final(answer, len(batch.messages), lease):
            if answer.kind not in ("unknown", "withdrawn"):
                self._journal.answered(lease.owner, batch.batch_id, None)
            return CallResult(batch, lease, answer)
        receipts, letters = make_receipts(batch, lease, answer, self.workspace(retailer), self.now())
        settlements = to_settlements(receipts, letters)
        self._journal.answered(lease.owner, batch.batch_id, settlements)
        return CallResult(batch, lease, answer, receipts=receipts, letters=letters, settlements=settlements)

    def _call(self, retailer: str, account: Account, batch: Batch, lease: Lease) -> Answer:
        flag: SentFlag | None = None

        def begin() -> SentFlag | None:
            nonlocal flag
            if self._may_begin(retailer, account, batch, lease):
                event_ids = [message.event_id for message in batch.messages]
                flag = self._journal.started(lease.owner, batch.batch_id, event_ids)
            return flag

        try:
            events = [decode_message(message) for message in batch.messages]
            answer = self._vendor.send(account, Call(batch.batch_id, batch.messages[0].vendor_campaign, events), begin)
        except JobError:
            raise
        except Exception as error:
            return self._unusable_call(error, batch, was_sent=flag is not None and flag.is_set)
        self._unusable = 0
        return self._templates.judge(retailer, clean_answer(answer, account), len(batch.messages))

    def _unusable_call(self, error: Exception, batch: Batch, *, was_sent: bool) -> Answer:
        """The answer to a call that the adapter could not make: one of its events is at fault, and halving the batch
        finds it. Raises the error when call after call fails so."""
        with self._lock:
            self._unusable += 1
        if self._unusable > _MOST_UNUSABLE * len(batch.messages):
            raise error
        detail = f"{type(error).__name__}: {error}"[:500]
        message = batch.messages[0]
        fields = {"batch": batch.batch_id, "retailer": message.retailer_id, "campaign": message.vendor_campaign}
        _log.warning("batch %s could not be sent (%s)", batch.batch_id, detail, extra=fields)
        if was_sent:
            return Answer("unknown", "no_answer", detail)
        return Answer("refused", "unusable_event", detail, divisible=True)

    def _may_begin(self, retailer: str, account: Account, batch: Batch, lease: Lease) -> bool:
        """Whether a call whose connection is ready may still be sent: its lease outlasts it, no event has expired or is
        early, and the retailer's account, pause, quiet hours and pace are as they were when it was claimed."""
        now = self.now()
        if now + int(account.timeout_s * 1000) >= lease.until:
            return False  # the lease might end before the call does, and another worker claim its events
        if any(expiry_reason(message, now) or message.deliver_after > now for message in batch.messages):
            return False
        try:
            if self._settings.account(retailer) != account:
                return False
        except InputError:
            return False
        return lease.grant is None or self._limiter.confirm(retailer, self._settings.limits(retailer), lease.grant)

    def conclude(self, retailer: str, calls: list[CallResult], results: CallResults) -> None:
        """Settles the events of calls with a final answer, in one step for all that were claimed together. Releases
        those that were not sent; keeps the claims of those that may have been sent until their lease ends."""
        settled: dict[str, list[CallResult]] = defaultdict(list)
        released: dict[str, list[str]] = defaultdict(list)
        for call in calls:
            disposition = self._disposition(retailer, call, results)
            if disposition == "release":
                released[call.lease.owner] += [message.event_id for message in call.batch.messages]
            elif disposition == "settle":
                settled[call.lease.owner].append(call)
        for owner, event_ids in released.items():
            self._ledger.release(owner, event_ids)
        for owner, final in settled.items():
            self._settle(
                owner,
                list(chain.from_iterable(call.receipts for call in final)),
                {event_id: letter for call in final for event_id, letter in call.letters.items()},
                list(chain.from_iterable(call.settlements for call in final)),
                results,
            )
        for call in calls:
            self._journal.closed(call.lease.owner, call.batch.batch_id)

    def _disposition(
        self, retailer: str, call: CallResult, results: CallResults
    ) -> Literal["release", "settle", "keep"]:
        """What happens to the claims of a call; batches that are tried again are added to `results.waiting`."""
        batch, answer = call.batch, call.answer
        if answer is None:
            self._limiter.report(retailer, "not_sent")
            results.waiting.append(replace(batch, not_before=call.not_before))
            return "release"
        self._limiter.report(retailer, _CALL_OUTCOMES[answer.kind], answer.retry_after_s, answer.reason or "")
        if answer.kind == "withdrawn":
            results.waiting.append(replace(batch, not_before=self.now() + 1))
            return "release"
        attempt = batch.attempt + 1
        if answer.kind == "blocked":
            self._alarms.stopped(retailer, answer.reason or "", answer.detail)
            results.waiting.append(Batch(batch.messages, attempt, self.now() + back_off_ms(attempt, random.random())))
            return "release"
        if answer.kind == "sent" and len(answer.rejected) < len(batch.messages):
            self._alarms.works(retailer)
            self._templates.works(retailer)
        if answer.kind in ("failed", "unknown"):
            self._alarms.failed(retailer, answer.reason or "")
        if answer.kind in ("slow_down", "failed"):
            pause = back_off_ms(attempt, random.random()) if answer.kind == "failed" else 0
            results.waiting.append(Batch(batch.messages, attempt, self.now() + pause))
            return "release"
        if is_final(answer, len(batch.messages), call.lease):
            return "settle"
        if answer.kind == "unknown":
            # When the lease has ended the ledger grants the claim again, and says that it does.
            results.waiting.append(Batch(batch.messages, attempt, call.lease.until + 1))
            return "keep"
        half = len(batch.messages) // 2
        results.waiting += [Batch(part, attempt) for part in (batch.messages[:half], batch.messages[half:])]
        return "release"

    def settle(self, owner: str, receipts: list[Receipt], results: CallResults) -> None:
        """Settles events without a call."""
        self._settle(owner, receipts, {}, to_settlements(receipts, {}), results)

    def _settle(
        self,
        owner: str,
        receipts: list[Receipt],
        letters: Mapping[str, DeadLetter],
        settlements: Sequence[Settlement],
        results: CallResults,
    ) -> None:
        """Settles events; only a receipt that the ledger takes, and its dead letter, is added to the results."""
        applied, now = set[str](), self.now()
        for step in ledger_steps(settlements):
            applied.update(self._ledger.settle(owner, step, now))
        taken = [receipt for receipt in receipts if receipt.event_id in applied]
        results.receipts += taken
        results.dead += [letters[receipt.event_id] for receipt in taken if receipt.event_id in letters]

    def workspace(self, retailer: str) -> str:
        """The workspace of a retailer, as receipts name it."""
        return f"{self._vendor.name}:{retailer}"


def _describe_problem(problem: Problem) -> str:
    return f"{problem.file} {problem.field} {problem.value} {problem.fix}"
