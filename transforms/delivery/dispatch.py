"""The dispatcher of a process: claims batches, calls vendors in threads, settles; a slow workspace delays no other."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from threading import Lock

from msgspec.structs import replace

from schemas.call_journal import CallJournal
from schemas.delivery import Batch, Claim, ClaimRequest, ClaimResult, DeliveryLedger, Message, ResendLimit, Vendor
from transforms.delivery.batch_by_retailer import split
from transforms.delivery.call_results import CallResult, CallResults, Lease, expiry_reason, has_no_rate
from transforms.delivery.counters import COUNTERS
from transforms.delivery.deliver_batches import DeliveryResult
from transforms.delivery.receipts import make_receipt
from transforms.delivery.slots import IN_FLIGHT, CallSlots
from transforms.delivery.vendor_call import Caller, WorkspaceSettings
from transforms.pacing.limiter import Limiter, WorkspaceLimits
from transforms.pacing.pace import Grant
from transforms.streaming.engine_traits import Clock

_EXPIRE_STEP = 20  # batches whose messages are settled as expired in one step
_WAIT_S, _WAIT_SLOW_S = 2.0, 0.02  # for answers, and for those of a slow workspace
POLL_MS = 50
_NO_ROOM_MS = 600_000
ClaimedMessages = list[tuple[Message, ClaimResult]]


class BatchDispatcher:
    """Delivers batches through a vendor, a ledger and a limiter.

    A call is waited for up to two seconds. One that takes longer continues in its thread, its batch is returned as
    waiting, and the answer is collected when the batch is delivered again. So a workspace that hangs delays the others
    by two seconds once, then by 20 ms until it answers in time again. Only calls that can start at once are claimed.
    `enough_room`: whether the disk has room for the answers of more calls. `recover` gives the ledger what the journals
    of dead processes say of their calls."""

    def __init__(
        self,
        vendor: Vendor,
        ledger: DeliveryLedger,
        settings: WorkspaceSettings,
        clock: Clock,
        journal: CallJournal | None = None,
        enough_room: Callable[[], bool] = lambda: True,
        recover: Callable[[DeliveryLedger], object] = lambda ledger: None,
    ) -> None:
        self._vendor, self._ledger, self._settings, self._clock = vendor, ledger, settings, clock
        self._journal, self._enough_room, self._recover = journal or CallJournal(), enough_room, recover
        self._settled, self._batched = COUNTERS.counter("already_settled"), COUNTERS.counter("batched")
        self._process = uuid.uuid4().hex[:12]
        self._lock = Lock()
        self._calls: dict[str, Future[CallResult]] = {}
        self._slots = CallSlots()

    def open(self) -> None:
        """Open the ledger and the vendor."""
        self._ledger.open()
        self._vendor.open()
        self._limiter = Limiter(self._ledger.change, self._clock)
        self._caller = Caller(self._vendor, self._ledger, self._settings, self._limiter, self._journal, self._clock)
        self._pool = ThreadPoolExecutor(IN_FLIGHT, thread_name_prefix="deliver")

    def close(self) -> None:
        """Wait for the calls in flight and settle the events of those that nobody collected, then close."""
        self._pool.shutdown(wait=True)
        with self._lock:
            calls, self._calls = list(self._calls.values()), {}
        for call in [future.result() for future in calls if future.exception() is None]:
            self._caller.conclude(call.batch.messages[0].retailer_id, [call], CallResults())
        self._limiter.close()
        self._journal.close()
        self._vendor.close()

    def deliver(self, retailer: str, batches: list[Batch]) -> DeliveryResult:
        """Sends what may be sent now, waits up to two seconds for the answers, and returns the results."""
        return self.finish(retailer, *self.start(retailer, batches))

    def start(self, retailer: str, batches: list[Batch]) -> tuple[list[Batch], CallResults]:
        """Sends what may be sent now, without waiting for answers: the batches whose calls are in flight, and the
        results that are known already."""
        now = self._caller.now()
        results = CallResults()
        new, in_flight = self._by_call(batches)
        live = self._expire(retailer, new, now, results)
        ready = [batch for batch in live if batch.not_before <= now]
        results.waiting += [batch for batch in live if batch.not_before > now]
        if ready and not self._enough_room():  # to write the answers down: the batches wait for the next run
            results.waiting += [replace(batch, not_before=now + _NO_ROOM_MS) for batch in ready]
            ready = []
        end = self._clock() + _WAIT_S
        while ready:
            slots = self._slots.acquire(retailer, len(ready), min(_WAIT_S, end - self._clock()))
            if not slots:
                results.waiting += [replace(batch, not_before=self._caller.now() + POLL_MS) for batch in ready]
                break
            ready = self._send_some(retailer, ready, slots, in_flight, results)
        return in_flight, results

    def finish(self, retailer: str, in_flight: list[Batch], results: CallResults) -> DeliveryResult:
        """The results after a short wait for the answers of the calls in flight."""
        slow = self._collect(retailer, in_flight, results)
        next_poll = self._caller.now() + POLL_MS
        results.waiting += [replace(batch, not_before=next_poll) for batch in slow]
        wake_at = min((batch.not_before for batch in results.waiting), default=0)
        return DeliveryResult(results.receipts, results.dead, results.waiting, wake_at)

    def _by_call(self, batches: list[Batch]) -> tuple[list[Batch], list[Batch]]:
        """The batches without a call, and those whose call is in flight or waits to be collected."""
        with self._lock:
            known = [batch for batch in batches if batch.batch_id in self._calls]
        return [batch for batch in batches if batch not in known] if known else batches, known

    def _expire(self, retailer: str, batches: list[Batch], now: int, results: CallResults) -> list[Batch]:
        """The batches without the messages that have expired, which are settled so."""
        live, late = list[Batch](), list[Batch]()
        for batch in batches:
            in_time = [message for message in batch.messages if not expiry_reason(message, now)]
            if in_time:
                live.append(batch if len(in_time) == len(batch.messages) else replace(batch, messages=in_time))
            if len(in_time) < len(batch.messages):
                expired = [message for message in batch.messages if expiry_reason(message, now)]
                late.append(replace(batch, messages=expired))
        for start in range(0, len(late), _EXPIRE_STEP):
            self._settle_expired(retailer, late[start : start + _EXPIRE_STEP], now, results)
        return live

    def _settle_expired(self, retailer: str, batches: list[Batch], now: int, results: CallResults) -> None:
        """Settles messages as expired, after a claim: one that was sent without an answer is unknown, not expired."""
        owner, workspace = self._owner(), self._caller.workspace(retailer)
        receipts = []
        for batch, claimed in self._claim_messages(batches, ClaimRequest((), owner, now, now + POLL_MS, "hold")):
            for message in self._granted(retailer, batch, claimed, now, results):
                receipts.append(make_receipt(message, workspace, "expired", now, reason=expiry_reason(message, now)))
        if receipts:
            self._caller.settle(owner, receipts, results)
        self._journal.granted(owner, 0)

    def _send_some(
        self, retailer: str, batches: list[Batch], slots: int, in_flight: list[Batch], results: CallResults
    ) -> list[Batch]:
        """Starts calls in the slots, as many as the limiter grants; returns the batches that only need another slot.
        Those that must wait are added to `results.waiting`."""
        started = 0
        try:
            granted, rest, wake_at = self._acquire(retailer, self._settings.limits(retailer), batches, slots)
            calls = self._start_calls(retailer, granted, results) if granted else []
            started = len(calls)
            in_flight += calls
        finally:
            self._slots.release(retailer, slots - started)
        if wake_at is None:
            return rest
        results.waiting += [replace(batch, not_before=wake_at) for batch in rest]
        return []

    def _acquire(
        self, retailer: str, limits: WorkspaceLimits, batches: list[Batch], most: int
    ) -> tuple[list[tuple[Batch, Grant]], list[Batch], int | None]:
        """At most so many batches that may be sent now, in order, with their grants; the rest; and until when the rest
        waits (epoch ms; None: only for a slot)."""
        granted, rest = list[tuple[Batch, Grant]](), batches
        if has_no_rate(limits):
            first = batches[:most]
            grant = self._limiter.acquire(retailer, limits, sum(len(batch.messages) for batch in first), len(first))
            # Fewer calls than requested: the last of the hour, or the probe of a half-open breaker.
            for batch in first[: grant.calls]:
                head, tail = split(batch, grant.messages if grant.calls == 1 else len(batch.messages))
                granted.append((head, Grant(len(head.messages), 1, until=grant.until)))
                rest = [*tail, *rest[1:]]
            refused = grant.calls < len(first) or bool(granted and len(rest) > len(batches) - len(granted))
            return granted, rest, (grant.wake_at or self._caller.now() + POLL_MS) if refused else None
        while rest and len(granted) < most:
            size = len(rest[0].messages)
            grant = self._limiter.acquire(retailer, limits, size, 1)
            messages = grant.messages if grant.calls else 0
            head, tail = split(rest[0], messages)
            if messages:
                granted.append((head, Grant(len(head.messages), 1, until=grant.until)))
            rest = [*tail, *rest[1:]]
            if messages < size:
                return granted, rest, grant.wake_at or self._caller.now() + POLL_MS
        return granted, rest, None

    def _start_calls(self, retailer: str, granted: list[tuple[Batch, Grant]], results: CallResults) -> list[Batch]:
        """Claims the batches' events in one step and starts their calls; the batches whose call is in flight."""
        delivery = self._settings.delivery()
        owner, now = self._owner(), self._caller.now()
        lease_until = now + int(delivery.lease.total_seconds() * 1000)
        limit = ResendLimit(delivery.resends, int(delivery.resend_within.total_seconds() * 1000))
        calls = list[tuple[Batch, Lease]]()
        request = ClaimRequest((), owner, now, lease_until, delivery.on_unknown, limit)
        batches = self._claim_messages([batch for batch, _ in granted], request)
        for (batch, claimed), (_, grant) in zip(batches, granted, strict=True):
            sendable = self._granted(retailer, batch, claimed, now, results)
            if sendable:
                resends = {claim.event_id: claim.resends for _, claim in claimed if claim.resends}
                calls.append(
                    (Batch(sendable, batch.attempt), Lease(owner, lease_until, resends, delivery.on_unknown, grant))
                )
            else:
                self._limiter.report(retailer, "not_sent")  # a breaker whose probe it was would wait for the outcome
        self._journal.granted(owner, len(calls))
        for place, (call, lease) in enumerate(calls):
            try:
                with self._lock:
                    self._calls[call.batch_id] = self._pool.submit(self._send, retailer, call, lease)
            except RuntimeError:  # the process ends: events that are not sent do not stay claimed
                self._release(owner, [call for call, _ in calls[place:]])
                raise
        return [call for call, _ in calls]

    def _release(self, owner: str, calls: list[Batch]) -> None:
        """Releases the claims of calls that are not made."""
        self._ledger.release(owner, [message.event_id for call in calls for message in call.messages])
        for call in calls:
            self._journal.closed(owner, call.batch_id)

    def _claim_messages(self, batches: list[Batch], request: ClaimRequest) -> list[tuple[Batch, ClaimedMessages]]:
        """Claims the messages of the batches in one step, as `request` says but for its claims. Claims that have lapsed
        are made once more, after the ledger was given what journals say of their calls."""
        ids = [(batch, batch.batch_id) for batch in batches]
        claims = [Claim(message.event_id, batch_id) for batch, batch_id in ids for message in batch.messages]
        self._journal.claiming(request.owner, [claim.event_id for claim in claims])
        claim_results = self._ledger.claim(request._replace(claims=claims))
        lapsed = [place for place, result in enumerate(claim_results) if result.state == "lapsed"]
        if lapsed:
            self._recover(self._ledger)
            repeated = self._ledger.claim(request._replace(claims=[claims[place] for place in lapsed]))
            for place, result in zip(lapsed, repeated, strict=True):
                claim_results[place] = result
        following = iter(claim_results)
        return [(batch, [(message, next(following)) for message in batch.messages]) for batch in batches]

    def _granted(
        self, retailer: str, batch: Batch, claimed: ClaimedMessages, now: int, results: CallResults
    ) -> list[Message]:
        """The messages that this owner may send. Lapsed ones are settled as unknown, those of another owner wait until
        its lease ends, settled ones are counted."""
        lapsed = [(message, claim.resends) for message, claim in claimed if claim.state == "lapsed"]
        if lapsed:
            self._settle_lapsed(retailer, lapsed, now, results)
        taken = [(message, claim.until) for message, claim in claimed if claim.state == "taken"]
        if taken:
            until = max(lease_end for _, lease_end in taken) + 1
            results.waiting.append(Batch([message for message, _ in taken], batch.attempt, until))
        settled = sum(claim.state == "settled" for _, claim in claimed)
        self._settled.inc(settled)
        self._batched.inc(-settled)  # each in one place, or the sums at the end would not close
        return [message for message, claim in claimed if claim.state in ("granted", "regranted")]

    def _settle_lapsed(self, retailer: str, lapsed: list[tuple[Message, int]], now: int, results: CallResults) -> None:
        workspace = self._caller.workspace(retailer)
        receipts = [
            make_receipt(
                message, workspace, "unknown", now, reason="no_answer", attempt=resends + 1, resent=resends > 0
            )
            for message, resends in lapsed
        ]
        self._caller.settle(self._owner(), receipts, results)

    def _collect(self, retailer: str, in_flight: list[Batch], results: CallResults) -> list[Batch]:
        """Concludes the calls that are answered after a short wait; the batches whose call is still in flight."""
        calls = self._futures(in_flight)
        _, pending = wait(calls.values(), timeout=_WAIT_SLOW_S if self._slots.is_slow(retailer) else _WAIT_S)
        if calls:
            self._slots.set_slow(retailer, bool(pending))
        with self._lock:
            done = {name for name, call in calls.items() if call not in pending and self._calls.get(name) is call}
            for name in done:
                del self._calls[name]
        futures = [calls[name] for name in calls if name in done]
        self._caller.conclude(retailer, [future.result() for future in futures if future.exception() is None], results)
        for failed in (future for future in futures if future.exception() is not None):
            failed.result()  # raises: the job ends, after the answered calls are settled
        return [batch for batch in in_flight if batch.batch_id not in done]

    def _futures(self, in_flight: list[Batch]) -> Mapping[str, Future[CallResult]]:
        """The calls of batches by batch id."""
        with self._lock:
            # Another thread may have collected the same batch's call: then the batch comes again, and is settled.
            return {batch.batch_id: self._calls[batch.batch_id] for batch in in_flight if batch.batch_id in self._calls}

    def _send(self, retailer: str, batch: Batch, lease: Lease) -> CallResult:
        try:
            return self._caller.send(retailer, batch, lease)
        finally:
            self._slots.release(retailer)

    def _owner(self) -> str:
        return f"{self._process}/{uuid.uuid4().hex[:12]}"
