"""One process's calls to the vendors: claimed before, settled after, a slow workspace never waited for by others."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from threading import Lock

from msgspec.structs import replace

from schemas.delivery import Batch, Claim, ClaimRequest, ClaimResult, DeliveryLedger, Message, ResendLimit, Vendor
from transforms.delivery.batch_by_retailer import split
from transforms.delivery.call_results import Lease, Reply, Result, over, without_rate
from transforms.delivery.counters import COUNTERS
from transforms.delivery.deliver_batches import DeliveryResult
from transforms.delivery.journal import CallJournal, NoJournal
from transforms.delivery.receipts import make_receipt
from transforms.delivery.slots import IN_FLIGHT, CallSlots
from transforms.delivery.vendor_call import Caller, WorkspaceSettings
from transforms.pacing.limiter import Limiter, WorkspaceLimits
from transforms.pacing.pace import Grant

_EXPIRE_STEP = 20  # batches whose messages are settled as expired in one step
_PATIENCE_S, _IMPATIENT_S = 2.0, 0.02
POLL_MS = 50
_NO_ROOM_MS = 600_000
Pairs = list[tuple[Message, ClaimResult]]


class BatchDispatcher:
    """Delivers batches through a vendor, a ledger and a limiter.

    A call is waited for a short while; one that takes longer goes on in its thread, its batch is handed back as
    waiting, and the answer is picked up when the batch comes again. So a workspace that hangs costs the others two
    seconds once, then next to nothing until it answers in time again. Only what can start at once is claimed.
    `recover` tells the ledger what is known of the calls of dead processes."""

    def __init__(
        self,
        vendor: Vendor,
        ledger: DeliveryLedger,
        settings: WorkspaceSettings,
        clock: Callable[[], float],
        journal: CallJournal | None = None,
        enough_room: Callable[[], bool] = lambda: True,
        recover: Callable[[DeliveryLedger], object] = lambda ledger: None,
    ) -> None:
        self._vendor, self._ledger, self._settings, self._clock = vendor, ledger, settings, clock
        self._journal, self._enough_room, self._recover = journal or NoJournal(), enough_room, recover
        self._settled, self._batched = COUNTERS.counter("already_settled"), COUNTERS.counter("batched")
        self._process = uuid.uuid4().hex[:12]
        self._lock = Lock()
        self._calls: dict[str, Future[Reply]] = {}
        self._slots = CallSlots()

    def open(self) -> None:
        """Open the ledger and the vendor."""
        self._ledger.open()
        self._vendor.open()
        self._limiter = Limiter(self._ledger.change, self._clock)
        self._caller = Caller(self._vendor, self._ledger, self._settings, self._limiter, self._journal, self._clock)
        self._pool = ThreadPoolExecutor(IN_FLIGHT, thread_name_prefix="deliver")

    def close(self) -> None:
        """Wait for the calls that are in flight and settle what nobody came back for, then close."""
        self._pool.shutdown(wait=True)
        with self._lock:
            calls, self._calls = list(self._calls.values()), {}
        for reply in [future.result() for future in calls if future.exception() is None]:
            self._caller.conclude(reply.batch.messages[0].retailer_id, [reply], Result())
        self._limiter.close()
        self._journal.close()
        self._vendor.close()

    def deliver(self, retailer: str, batches: list[Batch]) -> DeliveryResult:
        """Sends what may leave now, waits a short while for the answers, and says what came of it."""
        return self.finish(retailer, *self.start(retailer, batches))

    def start(self, retailer: str, batches: list[Batch]) -> tuple[list[Batch], Result]:
        """Sends what may leave now, without waiting for the answers: the batches whose calls are in flight, and what
        is known already."""
        now = self._caller.now()
        result = Result()
        fresh, in_flight = self._known_calls(batches)
        live = self._expire(retailer, fresh, now, result)
        ready = [batch for batch in live if batch.not_before <= now]
        result.waiting += [batch for batch in live if batch.not_before > now]
        if ready and not self._enough_room():  # to write the answers down: they are left for the next run
            batches, ready = ready, []
            result.waiting += [replace(one, not_before=now + _NO_ROOM_MS) for one in batches]
        end = time.monotonic() + _PATIENCE_S
        while ready:
            slots = self._slots.take(retailer, len(ready), end - time.monotonic())
            if not slots:
                result.waiting += [replace(batch, not_before=self._caller.now() + POLL_MS) for batch in ready]
                break
            ready = self._send_some(retailer, ready, slots, in_flight, result)
        return in_flight, result

    def finish(self, retailer: str, in_flight: list[Batch], result: Result) -> DeliveryResult:
        """What came of it, after a short wait for the answers that are still to come."""
        slow = self._collect(retailer, in_flight, result)
        again = self._caller.now() + POLL_MS
        result.waiting += [replace(batch, not_before=again) for batch in slow]
        wake = min((batch.not_before for batch in result.waiting), default=0)
        return DeliveryResult(result.receipts, result.dead, result.waiting, wake)

    def _known_calls(self, batches: list[Batch]) -> tuple[list[Batch], list[Batch]]:
        """The batches without a call, and those whose call is in flight or just came back."""
        with self._lock:
            known = [batch for batch in batches if batch.batch_id in self._calls]
        return [batch for batch in batches if batch not in known] if known else batches, known

    def _expire(self, retailer: str, batches: list[Batch], now: int, result: Result) -> list[Batch]:
        """The batches without the messages whose time is over; those are settled as expired."""
        live, late = list[Batch](), list[Batch]()
        for batch in batches:
            good = [one for one in batch.messages if not over(one, now)]
            if good:
                live.append(batch if len(good) == len(batch.messages) else replace(batch, messages=good))
            if len(good) < len(batch.messages):
                late.append(replace(batch, messages=[one for one in batch.messages if over(one, now)]))
        for start in range(0, len(late), _EXPIRE_STEP):
            self._settle_late(retailer, late[start : start + _EXPIRE_STEP], now, result)
        return live

    def _settle_late(self, retailer: str, batches: list[Batch], now: int, result: Result) -> None:
        """Settles messages whose time is over. They are claimed first, for one that was sent without an answer has not
        expired: it is unknown."""
        owner, workspace = self._owner(), self._caller.workspace(retailer)
        receipts = []
        for batch, pairs in self._claim_messages(batches, ClaimRequest((), owner, now, now + POLL_MS, "hold")):
            unsent = self._sort_out(retailer, batch, pairs, now, result)
            receipts += [make_receipt(one, workspace, "expired", now, reason=over(one, now)) for one in unsent]
        if receipts:
            self._caller.settle(owner, receipts, result)
        self._journal.granted(owner, 0)

    def _send_some(
        self, retailer: str, batches: list[Batch], slots: int, in_flight: list[Batch], result: Result
    ) -> list[Batch]:
        """Starts calls in the slots that were taken, for as many batches as may leave; the batches that are left. Those
        that must wait are added to `result.waiting`."""
        started = 0
        try:
            limits = self._settings.limits(retailer)
            granted, left, wake = self._ask(retailer, limits, batches, slots)
            calls = self._claim(retailer, granted, result) if granted else []
            started = len(calls)
            in_flight += calls
        finally:
            self._slots.give_back(retailer, slots - started)
        if wake is None:
            return left
        result.waiting += [replace(batch, not_before=wake) for batch in left]
        return []

    def _ask(
        self, retailer: str, limits: WorkspaceLimits, batches: list[Batch], most: int
    ) -> tuple[list[tuple[Batch, Grant]], list[Batch], int | None]:
        """At most so many batches that may be sent now, in order, with what was granted to them; the others; and until
        when those wait (epoch ms; None: only for a slot)."""
        granted, left = list[tuple[Batch, Grant]](), batches
        if without_rate(limits):
            some = batches[:most]
            grant = self._limiter.acquire(retailer, limits, sum(len(one.messages) for one in some), len(some))
            # Fewer calls than asked for: the hour's rest, or the one that a half-open breaker lets try.
            for batch in some[: grant.calls]:
                taken, rest = split(batch, grant.messages if grant.calls == 1 else len(batch.messages))
                granted.append((taken, Grant(len(taken.messages), 1, until=grant.until)))
                left = [*rest, *left[1:]]
            refused = grant.calls < len(some) or bool(granted and len(left) > len(batches) - len(granted))
            return granted, left, (grant.wake_at or self._caller.now() + POLL_MS) if refused else None
        while left and len(granted) < most:
            size = len(left[0].messages)
            grant = self._limiter.acquire(retailer, limits, size, 1)
            may = grant.messages if grant.calls else 0
            taken, rest = split(left[0], may)
            if may:
                granted.append((taken, Grant(len(taken.messages), 1, until=grant.until)))
            left = [*rest, *left[1:]]
            if may < size:
                return granted, left, grant.wake_at or self._caller.now() + POLL_MS
        return granted, left, None

    def _claim(self, retailer: str, granted: list[tuple[Batch, Grant]], result: Result) -> list[Batch]:
        """Claims the batches' events in one step and starts their calls; the batches whose call is in flight."""
        delivery = self._settings.delivery()
        owner, now = self._owner(), self._caller.now()
        lease_until = now + int(delivery.lease.total_seconds() * 1000)
        limit = ResendLimit(delivery.resends, int(delivery.resend_within.total_seconds() * 1000))
        grants = [grant for _, grant in granted]
        calls = list[tuple[Batch, Lease]]()
        request = ClaimRequest((), owner, now, lease_until, delivery.on_unknown, limit)
        claimed = self._claim_messages([batch for batch, _ in granted], request)
        for place, (batch, pairs) in enumerate(claimed):
            sendable = self._sort_out(retailer, batch, pairs, now, result)
            if sendable:
                resends = {claim.event_id: claim.resends for _, claim in pairs if claim.resends}
                lease = Lease(owner, lease_until, resends, delivery.on_unknown, grants[place])
                calls.append((Batch(sendable, batch.attempt), lease))
            else:
                self._limiter.report(retailer, "not_sent")  # a breaker that let it try would wait for its answer
        self._journal.granted(owner, len(calls))
        for place, (call, lease) in enumerate(calls):
            try:
                with self._lock:
                    self._calls[call.batch_id] = self._pool.submit(self._send, retailer, call, lease)
            except RuntimeError:  # the process ends: what will not be sent is not left claimed
                self._free(owner, [call for call, _ in calls[place:]])
                raise
        return [call for call, _ in calls]

    def _free(self, owner: str, calls: list[Batch]) -> None:
        """Gives back what was claimed for calls that are not made."""
        self._ledger.release(owner, [message.event_id for call in calls for message in call.messages])
        for call in calls:
            self._journal.closed(owner, call.batch_id)

    def _claim_messages(self, batches: list[Batch], request: ClaimRequest) -> list[tuple[Batch, Pairs]]:
        """Claims the messages of the batches in one step, as `request` says but for its claims; the ledger's answer to
        each. Claims that have lapsed are made once more after the ledger was given what journals know of their calls.
        """
        ids = [(batch, batch.batch_id) for batch in batches]
        claims = [Claim(one.event_id, batch_id) for batch, batch_id in ids for one in batch.messages]
        self._journal.claiming(request.owner, [claim.event_id for claim in claims])
        claim_results = self._ledger.claim(request._replace(claims=claims))
        lapsed = [place for place, claim in enumerate(claim_results) if claim.state == "lapsed"]
        if lapsed:
            self._recover(self._ledger)
            repeated = self._ledger.claim(request._replace(claims=[claims[place] for place in lapsed]))
            for place, claim in zip(lapsed, repeated, strict=True):
                claim_results[place] = claim
        following = iter(claim_results)
        return [(batch, [(message, next(following)) for message in batch.messages]) for batch in batches]

    def _sort_out(self, retailer: str, batch: Batch, pairs: Pairs, now: int, result: Result) -> list[Message]:
        """The messages that this owner may send. Settled ones are over; taken ones wait for the lease to end."""
        lapsed = [(message, claim.resends) for message, claim in pairs if claim.state == "lapsed"]
        if lapsed:
            self._settle_lapsed(retailer, lapsed, now, result)
        taken = [(message, claim.until) for message, claim in pairs if claim.state == "taken"]
        if taken:
            until = max(end for _, end in taken) + 1
            result.waiting.append(Batch([message for message, _ in taken], batch.attempt, until))
        settled = sum(claim.state == "settled" for _, claim in pairs)
        self._settled.inc(settled)
        self._batched.inc(-settled)  # each in one place, or what is missing at the end would not be seen
        return [message for message, claim in pairs if claim.state in ("granted", "regranted")]

    def _settle_lapsed(self, retailer: str, lapsed: list[tuple[Message, int]], now: int, result: Result) -> None:
        workspace = self._caller.workspace(retailer)
        receipts = [
            make_receipt(
                message, workspace, "unknown", now, reason="no_answer", attempt=resends + 1, resent=resends > 0
            )
            for message, resends in lapsed
        ]
        self._caller.settle(self._owner(), receipts, result)

    def _collect(self, retailer: str, in_flight: list[Batch], result: Result) -> list[Batch]:
        """Concludes the calls that are over after a short wait; the batches whose call is still in flight."""
        calls = self._futures(in_flight)
        _, pending = wait(calls.values(), timeout=_IMPATIENT_S if self._slots.is_slow(retailer) else _PATIENCE_S)
        if calls:
            self._slots.mark(retailer, slow=bool(pending))
        with self._lock:
            ended = {name for name, one in calls.items() if one not in pending and self._calls.get(name) is one}
            for name in ended:
                del self._calls[name]
        futures = [calls[name] for name in calls if name in ended]
        self._caller.conclude(retailer, [one.result() for one in futures if one.exception() is None], result)
        for failed in (one for one in futures if one.exception() is not None):
            failed.result()  # raises: the job ends, after what was answered is settled
        return [batch for batch in in_flight if batch.batch_id not in ended]

    def _futures(self, in_flight: list[Batch]) -> Mapping[str, Future[Reply]]:
        """The calls of batches by their ids."""
        with self._lock:
            # Another thread may have met the same batch and concluded its call: then it comes again, and is settled.
            return {one.batch_id: self._calls[one.batch_id] for one in in_flight if one.batch_id in self._calls}

    def _send(self, retailer: str, batch: Batch, lease: Lease) -> Reply:
        try:
            return self._caller.send(retailer, batch, lease)
        finally:
            self._slots.give_back(retailer)

    def _owner(self) -> str:
        return f"{self._process}/{uuid.uuid4().hex[:12]}"
