"""Publishes to Pub/Sub: encoded requests through a raw stub, several in flight, retried by status code.

Delivery is at least once: a request whose answer was lost is sent again, and event ids make duplicates harmless.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from threading import Condition
from typing import Any

import grpc

from connectors.google_channel import open_google_channel
from connectors.pubsub.publish_requests import PublishRequest, Refused
from schemas.problems import JobError

_UNLIMITED = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
_CALL_S, _FIRST_WAIT_S, _LONGEST_WAIT_S = 20.0, 0.1, 5.0
_SYSTEMATIC = 100  # when a request of so many messages is refused whole, the topic is the cause, not the messages

Code = grpc.StatusCode
_RETRIED = {
    Code.UNAVAILABLE, Code.DEADLINE_EXCEEDED, Code.RESOURCE_EXHAUSTED, Code.INTERNAL, Code.ABORTED, Code.UNKNOWN,
    Code.CANCELLED,
}  # fmt: skip
_AGAIN = "then run the same command again: it goes on where it stopped"
_TODO = {
    Code.NOT_FOUND: f"Create the topic, `campaigns topic create pubsub:{{topic}}`, {_AGAIN}",
    Code.PERMISSION_DENIED: f"Give this account roles/pubsub.publisher on the topic, {_AGAIN}",
    Code.UNAUTHENTICATED: f"Log in, `gcloud auth application-default login`, {_AGAIN}",
}


def open_channel() -> grpc.Channel:
    """A channel to Pub/Sub or its emulator. Raises JobError when there are no Google credentials."""
    return open_google_channel("pubsub", "pubsub", _UNLIMITED)


class PubsubPublisher:
    """Publishes requests to one topic, at most `in_flight` at a time, each retried while anything succeeds.

    `submit` queues and returns (it waits while `queued_bytes` wait to be sent); `settle` waits for all and
    returns what Pub/Sub refused. Nothing published for `deadline_s` seconds is a JobError.
    """

    def __init__(
        self,
        topic: str,
        *,
        in_flight: int = 4,
        deadline_s: float = 60.0,
        queued_bytes: int = 64 << 20,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        if in_flight < 1 or deadline_s <= 0:
            raise ValueError(f"in_flight {in_flight} and deadline_s {deadline_s} must be positive")
        self._topic, self._in_flight, self._deadline_s = topic, in_flight, deadline_s
        self._queued_bytes, self._clock, self._sleep = queued_bytes, clock, sleep
        self._change = Condition()
        self._pending = self._waiting = 0
        self._progress = clock()
        self._refused: list[Refused] = []
        self._failure: BaseException | None = None
        self._channel: grpc.Channel | None = None

    def open(self) -> PubsubPublisher:
        """Connects (lazily) and starts the sending threads."""
        self._channel = open_channel()
        self._call = self._channel.unary_unary("/google.pubsub.v1.Publisher/Publish")
        self._pool = ThreadPoolExecutor(self._in_flight, thread_name_prefix="publish")
        return self

    def close(self) -> None:
        """Drops what was not sent and disconnects. May be called twice."""
        if self._channel is not None:
            self._failure = self._failure or JobError("The publisher was closed", "Open another one")
            self._pool.shutdown(wait=True, cancel_futures=True)
            self._channel.close()
            self._channel = None

    def __enter__(self) -> PubsubPublisher:
        return self.open()

    def __exit__(self, *_: object) -> None:
        self.close()

    def submit(self, requests: Iterable[PublishRequest]) -> None:
        """Queues requests. Raises the JobError of an earlier one."""
        for request in requests:
            with self._change:
                self._change.wait_for(lambda: self._failure or self._waiting < self._queued_bytes)
                if self._failure:
                    raise self._failure
                if not self._pending:
                    self._progress = self._clock()
                self._pending += 1
                self._waiting += request.size
            self._pool.submit(self._run, request)

    def settle(self) -> list[Refused]:
        """Waits until every submitted request is published or refused; the refused messages, by row. Raises
        JobError when a request could not be published; what was queued behind it is dropped."""
        with self._change:
            self._change.wait_for(lambda: not self._pending)
            refused, self._refused = self._refused, []
            failure, self._failure = self._failure, None
        if failure:
            raise failure
        return sorted(refused, key=lambda refusal: refusal.row)

    def _run(self, request: PublishRequest) -> None:
        refused: list[Refused] = []
        try:
            refused = self._deliver(request)
            if len(refused) == len(request.framed) >= _SYSTEMATIC:
                happened = f"{self._topic} refused every message of a request ({refused[0].detail})"
                raise JobError(happened, f"Give it our schema, `campaigns topic create pubsub:{self._topic}`")
        except BaseException as error:
            self._failure = self._failure or error
        with self._change:
            self._refused += refused
            self._pending -= 1
            self._waiting -= request.size
            self._change.notify_all()

    def _deliver(self, request: PublishRequest) -> list[Refused]:
        """Publish a request, in halves when it is refused, so that only the faulty messages are refused."""
        detail = self._send(request.payload())
        if detail is None:
            return []
        if len(request.framed) == 1:
            return [Refused(request.first_row, Code.INVALID_ARGUMENT.name, detail)]
        return [refusal for half in request.halves() for refusal in self._deliver(half)]

    def _send(self, payload: bytes) -> str | None:
        """Sends until it is published (None) or refused (why); nothing at all once another request failed."""
        wait, metadata = _FIRST_WAIT_S, [("x-goog-request-params", f"topic={self._topic}")]
        while not self._failure:
            try:
                self._call(payload, timeout=min(_CALL_S, self._deadline_s), metadata=metadata)
            except grpc.RpcError as error:
                if error.code() is Code.INVALID_ARGUMENT:
                    return str(error.details())
                self._check_retry(error)
            else:
                self._progress = self._clock()
                return None
            self._sleep(random.uniform(wait / 2, wait))
            wait = min(2 * wait, _LONGEST_WAIT_S)
        return None

    def _check_retry(self, error: Any) -> None:
        """Raises JobError unless the request may be sent again."""
        code, problem = error.code(), f"{error.code().name}: {error.details()}"
        if code not in _RETRIED:
            todo = _TODO.get(code, f"Put it right, {_AGAIN}").format(topic=self._topic)
            raise JobError(f"Pub/Sub refuses to publish to {self._topic} ({problem})", todo) from error
        silent = self._clock() - self._progress
        if silent >= self._deadline_s:
            happened = f"Nothing could be published to {self._topic} for {silent:.0f} s ({problem})"
            raise JobError(happened, f"Check the network and the project's quotas, {_AGAIN}") from error
