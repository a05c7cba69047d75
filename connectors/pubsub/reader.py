"""Reads a Pub/Sub subscription: threads prefetch, leases are extended until the commit, then acknowledged."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable
from threading import Condition, Event, Thread
from typing import Any

import grpc
from google.pubsub_v1 import types

from connectors.pubsub.leases import LeaseFile
from connectors.pubsub.publisher import Code, open_channel
from schemas.problems import JobError
from schemas.transport import POLL_BYTES, Envelope, Poll

_AHEAD, _AHEAD_BYTES = 10_000, 32 << 20  # messages, and bytes, pulled and not yet polled, at most
_PULL, _PULL_BYTES = 1_000, 4 << 20  # messages asked for in one pull; fewer where they would be more than so many bytes
_PULL_S, _CALL_S = 5.0, 10.0
_LEASE_S, _EXTEND_EVERY_S, _LONGEST_S = 60, 20.0, 600.0
_DEADLINE_S = (10, 600)  # of a subscription: the shortest and the longest that there is
_ACK = 1_000  # ack ids a call: a request holds at most 512 KiB
_ACK_TRIES = 3
_WAIT_S, _LINGER_S, _EMPTY_S = 0.2, 0.05, 0.1
_FATAL = {
    Code.NOT_FOUND: "Create the subscription, `campaigns topic create pubsub:projects/P/topics/T --subscription S`",
    Code.PERMISSION_DENIED: "Give this account roles/pubsub.subscriber on the subscription",
    Code.UNAUTHENTICATED: "Log in, `gcloud auth application-default login`",
    Code.INVALID_ARGUMENT: "See that the subscription is a pull subscription",
}
Raw = Any  # a ReceivedMessage
# Bare messages: the wrapper costs 2 µs an id.
_Ack, _Extend = types.AcknowledgeRequest.pb(), types.ModifyAckDeadlineRequest.pb()
_Pull, _Get = types.PullRequest.pb(), types.GetSubscriptionRequest.pb()
_log = logging.getLogger(__name__)


class PubsubReader:
    """Reads the messages of a subscription in one process.

    Pull threads prefetch up to 10,000 messages and 32 MB. Leases of messages that were pulled and not acknowledged are
    extended for up to ten minutes; messages that the engine has not committed by then come again.
    The reader is done once `stop()` is true, which each poll asks. With `idle_s` it is done once nothing came for so
    many seconds, and not before all known leases have ended: those of a killed reader, which its file of `leases`
    bounds, and those of a pull whose answer was lost. Other subscribers' leases cannot be known.
    Raises JobError when the subscription cannot be read until somebody acts.
    """

    def __init__(
        self,
        subscription: str,
        *,
        pullers: int = 4,
        idle_s: float | None = None,
        stop: Callable[[], bool] = lambda: False,
        leases: LeaseFile | None = None,
    ) -> None:
        self._subscription, self._pullers, self._idle_s, self._stop = subscription, pullers, idle_s, stop
        self._lease_file = leases

    def open(self) -> None:
        """Start to pull."""
        self._channel = open_channel()
        service = "/google.pubsub.v1.Subscriber/"
        self._pull = self._channel.unary_unary(
            f"{service}Pull", _Pull.SerializeToString, types.PullResponse.pb().FromString
        )
        self._ack = self._channel.unary_unary(f"{service}Acknowledge", _Ack.SerializeToString)
        self._extend = self._channel.unary_unary(f"{service}ModifyAckDeadline", _Extend.SerializeToString)
        self._change, self._closed = Condition(), Event()
        self._ready: deque[Raw] = deque()
        self._ready_bytes, self._body_bytes = 0, 1024.0  # the second: of a message on average
        self._leases: dict[str, float] = {}
        self._failure: JobError | None = None
        self._unreachable, self._last = False, time.monotonic()
        shortest, longest = self._ack_deadline()
        self._every_s, self._longest_s = min(_EXTEND_EVERY_S, shortest / 3), max(_LEASE_S, longest)
        self._earlier_leases_end = self._lost_leases_end = self._lease_file.earlier if self._lease_file else 0.0
        self._note_leases()
        self._warn_of_leases()
        self._threads = [Thread(target=self._keep_pulling, daemon=True) for _ in range(self._pullers)]
        self._threads.append(Thread(target=self._keep_extending, daemon=True))
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """Stop once the pulls in flight have ended: a broker gives messages to a pull that is cut off. Messages that
        were not acknowledged are given back, and come again at once."""
        self._end_pulls()
        end = time.monotonic() + 2 * _PULL_S
        for thread in self._threads:
            thread.join(max(0.0, end - time.monotonic()))
        ids = list(self._leases)
        given_back = all(self._call(self._give_back, ids[at : at + _ACK], 1) for at in range(0, len(ids), _ACK))
        if self._lease_file is not None and given_back and not any(thread.is_alive() for thread in self._threads):
            self._lease_file.hold(self._lost_leases_end if self._lost_leases_end > time.time() else 0.0)
        self._channel.close()

    def poll(self, most: int) -> Poll:
        """The next messages: waits for the first one, and a moment for more; the handle holds the ack ids."""
        if self._stop():
            self._end_pulls()
            return Poll([], [], done=True)
        end = time.monotonic() + _WAIT_S
        with self._change:
            self._change.wait_for(lambda: self._ready or self._failure, _WAIT_S)
            if self._ready:
                end = min(end, time.monotonic() + _LINGER_S)
                self._change.wait_for(
                    lambda: len(self._ready) >= most or self._ready_bytes >= POLL_BYTES or self._failure,
                    max(0.0, end - time.monotonic()),
                )
            if self._failure:
                raise self._failure
            received = self._take(most)
            self._change.notify_all()
        if received:
            self._last = time.monotonic()
        ack_ids = [raw.ack_id for raw in received]
        return Poll([_envelope(raw.message) for raw in received], ack_ids, not received and self._is_empty())

    def _take(self, most: int) -> list[Raw]:
        """The first of the prefetched messages."""
        received, size = list[Raw](), 0
        while self._ready and len(received) < most and size < POLL_BYTES:
            received.append(self._ready.popleft())
            size += len(received[-1].message.data)
        self._ready_bytes -= size
        return received

    def _is_empty(self) -> bool:
        """Whether nothing has come for `idle_s`, and every known lease has ended."""
        if self._idle_s is None or self._unreachable or time.monotonic() - self._last <= self._idle_s:
            return False
        return self._lost_leases_end == 0 or time.time() - self._lost_leases_end > self._idle_s

    def commit(self, handle: list[str]) -> None:
        """Acknowledge the messages of a poll; after a failure they only come again."""
        for start in range(0, len(handle), _ACK):
            if not self._call(self._acknowledge, handle[start : start + _ACK]):
                self._lost_leases_end = max(self._lost_leases_end, time.time() + self._longest_s)
        with self._change:
            for ack_id in handle:
                self._leases.pop(ack_id, None)

    def _call(self, call: Callable[[list[str]], Any], ids: list[str], tries: int = _ACK_TRIES) -> bool:
        """Whether a call succeeded, after a few tries."""
        for number in range(tries):
            try:
                call(ids)
                return True
            except ValueError:  # the channel is closed
                return False
            except grpc.RpcError:
                time.sleep(0.1 * (number + 1))
        return False

    def _acknowledge(self, ids: list[str]) -> None:
        self._ack(_Ack(subscription=self._subscription, ack_ids=ids), timeout=_CALL_S)

    def _give_back(self, ids: list[str], seconds: int = 0) -> None:
        """End the lease of messages after so many seconds."""
        request = _Extend(subscription=self._subscription, ack_ids=ids, ack_deadline_seconds=seconds)
        self._extend(request, timeout=_CALL_S)

    def oldest(self) -> float:
        """The publish time of the oldest prefetched message, or now."""
        with self._change:
            times = [raw.message.publish_time.seconds for raw in list(self._ready)[:_PULL]]
        return float(min(times, default=time.time()))

    def _ack_deadline(self) -> tuple[int, int]:
        """The lease of a pulled message in seconds: at least, at most. An account that may only subscribe cannot read
        the subscription's own value."""
        get = self._channel.unary_unary(
            "/google.pubsub.v1.Subscriber/GetSubscription", _Get.SerializeToString, types.Subscription.pb().FromString
        )
        try:
            deadline = get(_Get(subscription=self._subscription), timeout=_CALL_S).ack_deadline_seconds
        except grpc.RpcError:
            return _DEADLINE_S
        return deadline or _DEADLINE_S[0], deadline or _DEADLINE_S[0]

    def _note_leases(self) -> None:
        """Write down until when leases may last if this process dies before the next call."""
        if self._lease_file is not None:
            self._lease_file.hold(max(self._earlier_leases_end, time.time() + 2 * self._every_s + self._longest_s))

    def _warn_of_leases(self) -> None:
        """Log why a drain does not end at once."""
        seconds = self._earlier_leases_end - time.time()
        if self._idle_s is not None and seconds > 0:
            text = "%s: an earlier run was killed; waiting up to %.0f s until Pub/Sub redelivers what it had pulled"
            _log.warning(text, self._subscription, seconds)

    def _end_pulls(self) -> None:
        self._closed.set()
        with self._change:
            self._change.notify_all()

    def _keep_pulling(self) -> None:
        pause, drains = 0.1, self._idle_s is not None
        while not self._closed.is_set():
            with self._change:
                self._change.wait_for(self._has_room)
                most = max(1, min(_PULL, int(_PULL_BYTES / self._body_bytes)))
            if self._closed.is_set():
                return
            # A drain leaves no pull open at the broker, which could give it messages that nobody waits for.
            request = _Pull(subscription=self._subscription, max_messages=most, return_immediately=drains)
            try:
                received = self._pull(request, timeout=_PULL_S).received_messages
            except (grpc.RpcError, ValueError) as error:
                code = error.code() if isinstance(error, grpc.RpcError) else None  # ValueError: the channel is closed
                if code in _FATAL:
                    self._fail(error, _FATAL[code])
                    return
                reached = code is Code.DEADLINE_EXCEEDED
                self._note_contact(reached)
                if (not reached or drains) and "failed to connect" not in str(error):  # the answer may have been lost
                    self._lost_leases_end = max(self._lost_leases_end, time.time() + self._longest_s)
                if not reached:
                    self._closed.wait(pause)
                    pause = min(2 * pause, 5.0)
                continue
            pause = 0.1
            self._note_contact(True)
            if received:
                self._store(received)
            elif drains:
                self._closed.wait(_EMPTY_S)

    def _has_room(self) -> bool:
        return (len(self._ready) < _AHEAD and self._ready_bytes < _AHEAD_BYTES) or self._closed.is_set()

    def _store(self, received: Any) -> None:
        """Add pulled messages to the prefetched ones."""
        now, size = time.monotonic(), sum([len(raw.message.data) for raw in received])
        with self._change:
            self._ready.extend(received)
            self._ready_bytes += size
            self._body_bytes = max(1.0, size / len(received))
            self._leases.update((raw.ack_id, now) for raw in received)
            self._change.notify_all()

    def _note_contact(self, reached: bool) -> None:
        """Note whether the broker was reached: the idle time begins when an unreachable broker is back."""
        if reached and self._unreachable:
            self._last = time.monotonic()
        self._unreachable = not reached

    def _fail(self, error: Any, todo: str) -> None:
        with self._change:
            happened = f"{self._subscription} cannot be read ({error.code().name}: {error.details()})"
            self._failure = JobError(happened, f"{todo}, then run the same command again")
            self._change.notify_all()

    def _keep_extending(self) -> None:
        while not self._closed.wait(self._every_s):
            try:
                self._note_leases()
            except JobError as error:
                with self._change:
                    self._failure = error
                    self._change.notify_all()
                return
            self._extend_all(time.monotonic())

    def _extend_all(self, now: float) -> None:
        with self._change:
            for ack_id in [ack_id for ack_id, since in self._leases.items() if now - since > _LONGEST_S]:
                del self._leases[ack_id]
            ids = [ack_id for ack_id, since in self._leases.items() if now - since >= self._every_s / 2]
        for start in range(0, len(ids), _ACK):
            try:
                self._give_back(ids[start : start + _ACK], _LEASE_S)
            except (grpc.RpcError, ValueError):
                return


def _envelope(message: Any) -> Envelope:
    time_, attributes = message.publish_time, message.attributes
    named = {name: attributes[name] for name in attributes}  # dict(attributes) goes through Python for each item
    return Envelope(message.message_id, named, message.data, time_.seconds * 1000 + time_.nanos // 1_000_000)
