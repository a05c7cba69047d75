"""Reading a Pub/Sub subscription: pulled ahead by threads, leases extended until committed, then acknowledged."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from threading import Condition, Event, Thread
from typing import Any

import grpc
from google.pubsub_v1 import types

from schemas.transport import Envelope, Poll
from stores.transports import TransportError
from stores.transports.pubsub import Code, open_channel

_AHEAD = 10_000  # messages pulled and not yet polled, at most
_PULL = 1_000  # messages asked for in one pull
_PULL_S = 20.0
_LEASE_S, _EXTEND_EVERY_S, _LONGEST_S = 60, 20.0, 600.0
_ACK = 1_000  # ack ids a call: a request holds at most 512 KiB
_WAIT_S, _LINGER_S = 0.2, 0.05
_FATAL = {
    Code.NOT_FOUND: "Create the subscription, `campaigns topic create pubsub:projects/P/topics/T --subscription S`",
    Code.PERMISSION_DENIED: "Give this account roles/pubsub.subscriber on the subscription",
    Code.UNAUTHENTICATED: "Log in, `gcloud auth application-default login`",
    Code.INVALID_ARGUMENT: "See that the subscription is a pull subscription",
}
Raw = Any  # a ReceivedMessage
_Ack, _Extend = types.AcknowledgeRequest.pb(), types.ModifyAckDeadlineRequest.pb()  # bare: the wrapper costs 2 µs an id


class PubsubReader:
    """Messages of a subscription for one process.

    Pull threads keep up to 10,000 messages at hand. Leases of everything that was pulled and not acknowledged are
    extended for up to ten minutes; what the engine has not committed by then comes again.
    `stop` is asked at each poll; once it says yes, or with `idle_s` once nothing has come for so long, the reader
    is done. Raises TransportError when the subscription cannot be read until somebody acts.
    """

    def __init__(
        self,
        subscription: str,
        *,
        pullers: int = 4,
        idle_s: float | None = None,
        stop: Callable[[], bool] = lambda: False,
    ) -> None:
        self._subscription, self._pullers, self._idle_s, self._stop = subscription, pullers, idle_s, stop

    def open(self) -> None:
        """Start to pull."""
        self._channel = open_channel()
        service = "/google.pubsub.v1.Subscriber/"
        self._pull = self._channel.unary_unary(
            f"{service}Pull",
            request_serializer=types.PullRequest.serialize,
            response_deserializer=types.PullResponse.pb().FromString,
        )
        self._ack = self._channel.unary_unary(f"{service}Acknowledge", _Ack.SerializeToString)
        self._extend = self._channel.unary_unary(f"{service}ModifyAckDeadline", _Extend.SerializeToString)
        self._change, self._closed = Condition(), Event()
        self._ready: deque[Raw] = deque()
        self._leases: dict[str, float] = {}
        self._failure: TransportError | None = None
        self._away, self._last = False, time.monotonic()
        threads = [Thread(target=self._keep_pulling, daemon=True) for _ in range(self._pullers)]
        for thread in [*threads, Thread(target=self._keep_extending, daemon=True)]:
            thread.start()

    def close(self) -> None:
        """Stop; what was pulled and not acknowledged comes again when its lease ends."""
        self._closed.set()
        with self._change:
            self._change.notify_all()
        self._channel.close()

    def poll(self, most: int) -> Poll:
        """What is there, once something is, and what comes in the next moment; the handle holds the ack ids."""
        if self._stop():
            return Poll([], [], done=True)
        end = time.monotonic() + _WAIT_S
        with self._change:
            self._change.wait_for(lambda: self._ready or self._failure, _WAIT_S)
            if self._ready:
                end = min(end, time.monotonic() + _LINGER_S)
                self._change.wait_for(
                    lambda: len(self._ready) >= most or self._failure, max(0.0, end - time.monotonic())
                )
            if self._failure:
                raise self._failure
            got = [self._ready.popleft() for _ in range(min(most, len(self._ready)))]
            self._change.notify_all()
        if got:
            self._last = time.monotonic()
        idle = not got and not self._away
        done = self._idle_s is not None and idle and time.monotonic() - self._last > self._idle_s
        return Poll([_envelope(one.message) for one in got], [one.ack_id for one in got], done)

    def commit(self, handle: list[str]) -> None:
        """Acknowledges the messages of a poll; a failure only means that they come again."""
        for start in range(0, len(handle), _ACK):
            ids = handle[start : start + _ACK]
            try:
                self._ack(_Ack(subscription=self._subscription, ack_ids=ids), timeout=_PULL_S)
            except (grpc.RpcError, ValueError):  # ValueError: the channel is closed
                continue
        with self._change:
            for one in handle:
                self._leases.pop(one, None)

    def oldest(self) -> float:
        """The publish time of the oldest message at hand, or now."""
        with self._change:
            times = [one.message.publish_time.seconds for one in list(self._ready)[:_PULL]]
        return float(min(times, default=time.time()))

    def _keep_pulling(self) -> None:
        request = types.PullRequest(subscription=self._subscription, max_messages=_PULL)
        pause = 0.1
        while not self._closed.is_set():
            with self._change:
                self._change.wait_for(lambda: len(self._ready) < _AHEAD or self._closed.is_set())
            try:
                received = self._pull(request, timeout=_PULL_S).received_messages
            except (grpc.RpcError, ValueError) as error:
                code = error.code() if isinstance(error, grpc.RpcError) else None  # ValueError: the channel is closed
                if code in _FATAL:
                    self._fail(error, _FATAL[code])
                    return
                reached = code is Code.DEADLINE_EXCEEDED
                self._reached(reached)
                if not reached:
                    self._closed.wait(pause)
                    pause = min(2 * pause, 5.0)
                continue
            pause = 0.1
            self._reached(True)
            now = time.monotonic()
            with self._change:
                self._ready.extend(received)
                self._leases.update((one.ack_id, now) for one in received)
                self._change.notify_all()

    def _reached(self, reached: bool) -> None:
        """A broker that is away is not one that has nothing: idleness begins when it is back."""
        if reached and self._away:
            self._last = time.monotonic()
        self._away = not reached

    def _fail(self, error: Any, todo: str) -> None:
        with self._change:
            happened = f"{self._subscription} cannot be read ({error.code().name}: {error.details()})"
            self._failure = TransportError(happened, f"{todo}, then run the same command again")
            self._change.notify_all()

    def _keep_extending(self) -> None:
        while not self._closed.wait(_EXTEND_EVERY_S):
            now = time.monotonic()
            with self._change:
                for one in [one for one, since in self._leases.items() if now - since > _LONGEST_S]:
                    del self._leases[one]
                ids = [one for one, since in self._leases.items() if now - since >= _EXTEND_EVERY_S / 2]
            for start in range(0, len(ids), _ACK):
                request = _Extend(
                    subscription=self._subscription, ack_ids=ids[start : start + _ACK], ack_deadline_seconds=_LEASE_S
                )
                try:
                    self._extend(request, timeout=_PULL_S)
                except (grpc.RpcError, ValueError):
                    break


def _envelope(message: Any) -> Envelope:
    time_, attributes = message.publish_time, message.attributes
    named = {name: attributes[name] for name in attributes}  # dict(attributes) goes through Python for each item
    return Envelope(message.message_id, named, message.data, time_.seconds * 1000 + time_.nanos // 1_000_000)
