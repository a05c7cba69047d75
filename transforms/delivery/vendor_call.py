"""One call to a vendor, and what the ledger makes of its answer."""

from __future__ import annotations

import logging
import random
from collections import defaultdict
from collections.abc import Callable, Mapping
from threading import Lock
from typing import Literal, Protocol

from msgspec.structs import replace

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
)
from schemas.problems import InputError, JobError, Problem
from schemas.redact import clean_answer
from transforms.delivery.alarms import Alarms
from transforms.delivery.call_results import Lease, Reply, Result, end_call, is_end, over, settlements
from transforms.delivery.journal import CallJournal
from transforms.delivery.receipts import decoded
from transforms.delivery.templates import TemplateFailures
from transforms.pacing.account_owners import AccountOwners
from transforms.pacing.limiter import CallOutcome, Limiter, WorkspaceLimits

LONGEST_MS = 30_000
_FIRST_MS = 500
_STEP = 1_000  # events that the ledger takes at once
_MOST_UNUSABLE = 20  # calls in a row whose events no adapter can send: then the adapter is at fault, not the events
_REPORTS: dict[str, CallOutcome] = {
    "sent": "success",
    "refused": "success",
    "slow_down": "slow_down",
    "failed": "failure",
    "blocked": "blocked",
    "withdrawn": "not_sent",
    "unknown": "failure",
}
_log = logging.getLogger(__name__)


class WorkspaceSettings(Protocol):
    """The settings as they are now: pipelines/rebatch/settings.py."""

    def delivery(self) -> Delivery: ...
    def limits(self, retailer: str) -> WorkspaceLimits: ...
    def account(self, retailer: str) -> Account: ...


def back_off_ms(attempt: int, luck: float) -> int:
    """How long to wait after `attempt` calls that failed: doubling from 0.5 to 30 s, between half and all of it by
    `luck` in [0, 1)."""
    whole = min(LONGEST_MS, _FIRST_MS * 2 ** min(attempt - 1, 10))
    return int(whole * (0.5 + luck / 2))


class Caller:
    """Makes calls, from several threads."""

    def __init__(
        self,
        vendor: Vendor,
        ledger: DeliveryLedger,
        settings: WorkspaceSettings,
        limiter: Limiter,
        journal: CallJournal,
        clock: Callable[[], float],
    ) -> None:
        self._vendor, self._ledger, self._settings, self._limiter = vendor, ledger, settings, limiter
        self._journal, self._clock = journal, clock
        self._alarms, self._owners = Alarms(clock), AccountOwners(ledger.change, settings, clock)
        self._lock, self._templates = Lock(), TemplateFailures()
        self._unusable = 0

    def now(self) -> int:
        """Epoch milliseconds."""
        return int(self._clock() * 1000)

    def send(self, retailer: str, batch: Batch, lease: Lease) -> Reply:
        """One call, made in a thread of its own. Its events' ends are in the journal before it is concluded."""
        try:
            account = self._settings.account(retailer)
        except InputError as error:
            self._alarms.stopped(retailer, "no account", "; ".join(map(_in_a_line, error.problems)))
            return Reply(batch, lease, None, not_before=self.now() + LONGEST_MS)
        if self._owners.check(account):  # it is another retailer's, which is logged as an alarm
            return Reply(batch, lease, None, not_before=self.now() + LONGEST_MS)
        answer = self._call(retailer, account, batch, lease)
        if not is_end(answer, len(batch.messages), lease):
            if answer.kind not in ("unknown", "withdrawn"):
                self._journal.answered(lease.owner, batch.batch_id, None)
            return Reply(batch, lease, answer)
        receipts, letters = end_call(batch, lease, answer, self.workspace(retailer), self.now())
        ends = settlements(receipts, letters)
        self._journal.answered(lease.owner, batch.batch_id, ends)
        return Reply(batch, lease, answer, receipts=receipts, letters=letters, ends=ends)

    def _call(self, retailer: str, account: Account, batch: Batch, lease: Lease) -> Answer:
        flag: SentFlag | None = None

        def begin() -> SentFlag | None:
            nonlocal flag
            if self._may_begin(retailer, account, batch, lease):
                flag = self._journal.started(lease.owner, batch.batch_id, [one.event_id for one in batch.messages])
            return flag

        try:
            records = [decoded(one) for one in batch.messages]
            answer = self._vendor.send(account, Call(batch.batch_id, batch.messages[0].vendor_campaign, records), begin)
        except JobError:
            raise
        except Exception as error:
            has_left = flag is not None and flag.is_set
            return self._unusable_call(error, batch, has_left)
        self._unusable = 0
        return self._templates.judge(retailer, clean_answer(answer, account), len(batch.messages))

    def _unusable_call(self, error: Exception, batch: Batch, has_left: bool) -> Answer:
        """The answer to a call that the adapter could not make: one of its events is at fault, which halving finds.
        Raises the error when call after call fails so."""
        with self._lock:
            self._unusable += 1
        if self._unusable > _MOST_UNUSABLE * len(batch.messages):
            raise error
        detail = f"{type(error).__name__}: {error}"[:500]
        _log.warning("batch %s could not be sent (%s)", batch.batch_id, detail)
        if has_left:
            return Answer("unknown", "no_answer", detail)
        return Answer("refused", "unusable_event", detail, divisible=True)

    def _may_begin(self, retailer: str, account: Account, batch: Batch, lease: Lease) -> bool:
        """Whether a call whose connection is ready may still go out: its lease outlasts it, no event is over or early,
        and the retailer's account, pause, quiet hours and pace are as they were when it was claimed."""
        now = self.now()
        if now + int(account.timeout_s * 1000) >= lease.until:
            return False  # the lease might end before the call does, and somebody else claim
        if any(over(one, now) or one.deliver_after > now for one in batch.messages):
            return False
        try:
            if self._settings.account(retailer) != account:
                return False
        except InputError:
            return False
        return lease.grant is None or self._limiter.confirm(retailer, self._settings.limits(retailer), lease.grant)

    def conclude(self, retailer: str, replies: list[Reply], result: Result) -> None:
        """Settles the events of calls that are over, in one step for all that were claimed together; gives back
        those that were not sent, and leaves claimed those that only time can tell about."""
        ended: dict[str, list[Reply]] = defaultdict(list)
        back: dict[str, list[str]] = defaultdict(list)
        for reply in replies:
            kind = self._after(retailer, reply, result)
            if kind == "back":
                back[reply.lease.owner] += [one.event_id for one in reply.batch.messages]
            elif kind == "end":
                ended[reply.lease.owner].append(reply)
        for owner, event_ids in back.items():
            self._ledger.release(owner, event_ids)
        for owner, some in ended.items():
            self._settle(owner, some, result)
        for reply in replies:
            self._journal.closed(reply.lease.owner, reply.batch.batch_id)

    def _after(self, retailer: str, reply: Reply, result: Result) -> Literal["back", "end", "open"]:
        """What an answer means for the events; batches that come again are added to `result.waiting`."""
        batch, answer = reply.batch, reply.answer
        if answer is None:
            self._limiter.report(retailer, "not_sent")
            result.waiting.append(replace(batch, not_before=reply.not_before))
            return "back"
        self._limiter.report(retailer, _REPORTS[answer.kind], answer.retry_after_s, answer.reason or "")
        if answer.kind == "withdrawn":
            result.waiting.append(replace(batch, not_before=self.now() + 1))
            return "back"
        attempt = batch.attempt + 1
        if answer.kind == "blocked":
            self._alarms.stopped(retailer, answer.reason or "", answer.detail)
            result.waiting.append(Batch(batch.messages, attempt, self.now() + back_off_ms(attempt, random.random())))
            return "back"
        if answer.kind == "sent" and len(answer.rejected) < len(batch.messages):
            self._alarms.works(retailer)
            self._templates.works(retailer)
        if answer.kind in ("failed", "unknown"):
            self._alarms.failed(retailer, answer.reason or "")
        if answer.kind in ("slow_down", "failed"):
            pause = back_off_ms(attempt, random.random()) if answer.kind == "failed" else 0
            result.waiting.append(Batch(batch.messages, attempt, self.now() + pause))
            return "back"
        if not is_end(answer, len(batch.messages), reply.lease):
            if answer.kind == "unknown":
                # The claim stays: when its lease has ended the ledger grants it again and says so.
                result.waiting.append(Batch(batch.messages, attempt, reply.lease.until + 1))
                return "open"
            half = len(batch.messages) // 2
            result.waiting += [Batch(part, attempt) for part in (batch.messages[:half], batch.messages[half:])]
            return "back"
        return "end"

    def settle(self, owner: str, receipts: list[Receipt], result: Result) -> None:
        """Writes ends down that no call brought; only what the ledger takes becomes a receipt."""
        self._settle_all(owner, receipts, {}, settlements(receipts, {}), result)

    def _settle(self, owner: str, replies: list[Reply], result: Result) -> None:
        """Writes the ends of calls of one owner down, with the letters of those that were refused."""
        receipts = [one for reply in replies for one in reply.receipts]
        letters = {name: letter for reply in replies for name, letter in reply.letters.items()}
        self._settle_all(owner, receipts, letters, [end for reply in replies for end in reply.ends], result)

    def _settle_all(
        self,
        owner: str,
        receipts: list[Receipt],
        letters: Mapping[str, DeadLetter],
        ends: list[Settlement],
        result: Result,
    ) -> None:
        applied, now = set[str](), self.now()
        for start in range(0, len(ends), _STEP):
            applied.update(self._ledger.settle(owner, ends[start : start + _STEP], now))
        taken = [one for one in receipts if one.event_id in applied]
        result.receipts += taken
        result.dead += [letters[one.event_id] for one in taken if one.event_id in letters]

    def workspace(self, retailer: str) -> str:
        """Where a retailer's events go, as receipts name it."""
        return f"{self._vendor.name}:{retailer}"


def _in_a_line(problem: Problem) -> str:
    return f"{problem.file} {problem.field} {problem.value} {problem.fix}"
