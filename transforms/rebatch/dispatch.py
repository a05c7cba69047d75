"""One process's calls to the vendors: claimed before, settled after, a slow workspace never waited for by others."""

from __future__ import annotations

import uuid
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from threading import Lock

from msgspec.structs import replace

from schemas.delivery import Batch, Claim, DeliveryLedger, Message, OnUnknown, Standing, Vendor
from transforms.pacing.limiter import Limiter, Terms
from transforms.rebatch.calls import Caller, Lease, Reply, Result, Tenants
from transforms.rebatch.counters import Counter
from transforms.rebatch.deliver import Handled, Started
from transforms.rebatch.outcomes import make_receipt

LATE_MS = 72 * 3_600_000  # a message this long after its time is no longer sent
THREADS = 64  # waiting for answers, most of them
OUT, _OUT_SLOW = 20, 2  # calls that are out for one workspace; fewer while it is slow
_PATIENCE_S, _IMPATIENT_S = 2.0, 0.02
POLL_MS = 50
_NO_ROOM_MS = 600_000  # longer than an ending run is patient


class BatchDispatcher:
    """Delivers batches through a vendor, a ledger and a limiter.

    A call is waited for a short while; one that takes longer goes on in its thread, its batch is handed back as
    waiting, and the answer is picked up when the batch comes again. So a workspace that hangs costs the others two
    seconds once, then next to nothing until it answers in time again.
    """

    def __init__(
        self,
        vendor: Vendor,
        ledger: DeliveryLedger,
        tenants: Tenants,
        clock: Callable[[], float],
        enough: Callable[[], bool] = lambda: True,
    ) -> None:
        self._vendor, self._ledger, self._tenants, self._clock = vendor, ledger, tenants, clock
        self._enough = enough
        self._settled, self._batched = Counter("already_settled"), Counter("batched")
        self._process = uuid.uuid4().hex[:12]
        self._lock = Lock()
        self._calls: dict[str, Future[Reply]] = {}
        self._busy: dict[str, int] = defaultdict(int)
        self._slow: set[str] = set()

    def open(self) -> None:
        """Open the ledger and the vendor."""
        self._ledger.open()
        self._vendor.open()
        self._limiter = Limiter(self._ledger.change, self._clock)
        self._caller = Caller(self._vendor, self._ledger, self._tenants, self._limiter, self._clock)
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="deliver")

    def close(self) -> None:
        """Wait for the calls that are out and settle what nobody came back for, then close."""
        self._pool.shutdown(wait=True)
        with self._lock:
            calls, self._calls = list(self._calls.values()), {}
        for reply in [future.result() for future in calls if future.exception() is None]:
            self._caller.conclude(reply.batch.messages[0].retailer_id, [reply], Result())
        self._limiter.close()
        self._vendor.close()

    def _now(self) -> int:
        return int(self._clock() * 1000)

    def start(self, retailer: str, batches: list[Batch]) -> Started:
        """Sends what may leave now, without waiting for the answers."""
        now = self._now()
        result = Result()
        fresh, out = self._known_calls(batches)
        live = self._expire(retailer, fresh, now, result)
        ready = [batch for batch in live if batch.not_before <= now]
        if ready and not self._enough():  # no room to write the answers down: they are left for the next run
            ready, live = [], [replace(batch, not_before=now + _NO_ROOM_MS) for batch in live]
        result.waiting += [batch for batch in live if batch.not_before > now]
        taken = self._allowed(retailer, ready, result) if ready else []
        out += self._claim(retailer, taken, result) if taken else []
        return Started(retailer, out, result)

    def finish(self, started: Started) -> Handled:
        """What came of it, after a short wait for the answers that are still out."""
        result = started.result
        slow = self._collect(started.retailer, started.out, result)
        again = self._now() + POLL_MS
        result.waiting += [replace(batch, not_before=again) for batch in slow]
        wake = min((batch.not_before for batch in result.waiting), default=0)
        return Handled(result.receipts, result.dead, result.waiting, wake)

    def _known_calls(self, batches: list[Batch]) -> tuple[list[Batch], list[Batch]]:
        """The batches that no thread is busy with, and those whose call is still out or just came back."""
        with self._lock:
            out = [batch for batch in batches if batch.batch_id in self._calls]
        return [batch for batch in batches if batch not in out] if out else batches, out

    def _expire(self, retailer: str, batches: list[Batch], now: int, result: Result) -> list[Batch]:
        """The batches without the messages whose time is over; those are settled as expired."""
        live, over = list[Batch](), list[Batch]()
        for batch in batches:
            good = [one for one in batch.messages if not _over(one, now)]
            if good:
                live.append(batch if len(good) == len(batch.messages) else replace(batch, messages=good))
            if len(good) < len(batch.messages):
                over.append(replace(batch, messages=[one for one in batch.messages if _over(one, now)]))
        for start in range(0, len(over), OUT):
            self._settle_over(retailer, over[start : start + OUT], now, result)
        return live

    def _settle_over(self, retailer: str, batches: list[Batch], now: int, result: Result) -> None:
        """Settles messages whose time is over. They are claimed first, for one that was sent without an answer has not
        expired: it is unknown."""
        owner, workspace = self._owner(), self._caller.workspace(retailer)
        receipts = []
        for batch, pairs in self._standings(batches, owner, now, now + POLL_MS, "hold"):
            unsent = self._sort_out(retailer, batch, pairs, now, result)
            receipts += [make_receipt(one, workspace, "expired", now, reason=_over(one, now)) for one in unsent]
        if receipts:
            self._caller.settle(owner, receipts, now, result)

    def _allowed(self, retailer: str, batches: list[Batch], result: Result) -> list[Batch]:
        """The batches that may be sent now, in order; the others wait until they may ask again."""
        with self._lock:
            room = (_OUT_SLOW if retailer in self._slow else OUT) - self._busy[retailer]
        terms, taken, left = self._tenants.terms(retailer), list[Batch](), batches
        wake = self._now() + POLL_MS
        if len(batches) <= room and _without_rate(terms):
            grant = self._limiter.ask(retailer, terms, sum(len(one.messages) for one in batches), len(batches))
            # Fewer calls than asked for: the hour's rest, or the one that a half-open breaker lets try. They are taken.
            taken, left, room = batches[: grant.calls], batches[grant.calls :], 0
            wake = grant.wake_at or wake
        while left and len(taken) < room:
            batch, left = left[0], left[1:]
            size = len(batch.messages)
            grant = self._limiter.ask(retailer, terms, size, 1)
            may = grant.messages if grant.calls else 0
            if may:
                taken.append(replace(batch, messages=batch.messages[:may]))
            if may < size:
                left = [replace(batch, messages=batch.messages[may:]), *left]
                wake = grant.wake_at or wake
                break
        result.waiting += [replace(batch, not_before=wake) for batch in left]
        return taken

    def _claim(self, retailer: str, batches: list[Batch], result: Result) -> list[Batch]:
        """Claims the batches' events in one step and starts their calls; the batches whose call is out."""
        delivery = self._tenants.delivery()
        owner, now = self._owner(), self._now()
        lease_until = now + int(delivery.lease.total_seconds() * 1000)
        out = []
        for batch, pairs in self._standings(batches, owner, now, lease_until, delivery.on_unknown):
            sendable = self._sort_out(retailer, batch, pairs, now, result)
            if sendable:
                again = frozenset(standing.event_id for _, standing in pairs if standing.state == "regranted")
                lease = Lease(owner, lease_until, again, delivery.on_unknown)
                call = Batch(sendable, batch.attempt)
                out.append(call)
                with self._lock:
                    self._busy[retailer] += 1
                    self._calls[call.batch_id] = self._pool.submit(self._send, retailer, call, lease)
            else:
                self._limiter.report(retailer, "nothing")  # a breaker that let it try would wait for its answer
        return out

    def _standings(
        self, batches: list[Batch], owner: str, now: int, lease_until: int, on_unknown: OnUnknown
    ) -> list[tuple[Batch, list[tuple[Message, Standing]]]]:
        """What the ledger says to each message of the batches, which are claimed in one step."""
        ids = [(batch, batch.batch_id) for batch in batches]
        claims = [Claim(one.event_id, batch_id) for batch, batch_id in ids for one in batch.messages]
        standings = iter(self._ledger.claim(claims, owner, now, lease_until, on_unknown))
        return [(batch, [(message, next(standings)) for message in batch.messages]) for batch in batches]

    def _sort_out(
        self, retailer: str, batch: Batch, pairs: list[tuple[Message, Standing]], now: int, result: Result
    ) -> list[Message]:
        """The messages that this owner may send. Settled ones are over; taken ones wait for the lease to end."""
        lapsed = [message for message, standing in pairs if standing.state == "lapsed"]
        if lapsed:
            workspace = self._caller.workspace(retailer)
            receipts = [make_receipt(one, workspace, "unknown", now, reason="no_answer") for one in lapsed]
            self._caller.settle(self._owner(), receipts, now, result)
        taken = [(message, standing.until) for message, standing in pairs if standing.state == "taken"]
        if taken:
            until = max(end for _, end in taken) + 1
            result.waiting.append(Batch([message for message, _ in taken], batch.attempt, until))
        settled = sum(standing.state == "settled" for _, standing in pairs)
        self._settled.inc(settled)
        self._batched.inc(-settled)  # each in one place, or what is missing at the end would not be seen
        return [message for message, standing in pairs if standing.state in ("granted", "regranted")]

    def _collect(self, retailer: str, out: list[Batch], result: Result) -> list[Batch]:
        """Concludes the calls that are over after a short wait; the batches whose call is still out."""
        with self._lock:
            # Another thread may have met the same batch and concluded its call: then it comes again, and is settled.
            calls = {one.batch_id: self._calls[one.batch_id] for one in out if one.batch_id in self._calls}
        patience = _IMPATIENT_S if retailer in self._slow else _PATIENCE_S
        _, pending = wait(calls.values(), timeout=patience)
        if pending:
            self._slow.add(retailer)
        elif calls:
            self._slow.discard(retailer)
        with self._lock:
            ended = {name for name, one in calls.items() if one not in pending and self._calls.get(name) is one}
            for name in ended:
                del self._calls[name]
        self._caller.conclude(retailer, [calls[name].result() for name in calls if name in ended], result)
        return [batch for batch in out if batch.batch_id not in ended]

    def _send(self, retailer: str, batch: Batch, lease: Lease) -> Reply:
        try:
            return self._caller.send(retailer, batch, lease)
        finally:
            with self._lock:
                self._busy[retailer] -= 1

    def _owner(self) -> str:
        return f"{self._process}/{uuid.uuid4().hex[:12]}"


def _without_rate(terms: Terms) -> bool:
    """Whether only the vendor's calls an hour bind: then one question does for many batches."""
    pace = terms.workspace.pace
    return pace is None or (pace.per_second is None and pace.warm_up is None)


def _over(message: Message, now: int) -> str | None:
    """Why a message is no longer sent."""
    if 0 < message.expires_at <= now:
        return "expired"
    return "late_72h" if now - max(message.arrived_at, message.deliver_after) > LATE_MS else None
