"""The publisher against a real gRPC server that answers as it is expected."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeAlias

import grpc
import pyarrow as pa
import pytest
from google.pubsub_v1 import PublishRequest as Real
from google.pubsub_v1 import PublishResponse

from connectors.pubsub.publish_requests import PublishRequest, Refused, publish_requests, pubsub_messages
from connectors.pubsub.publisher import PubsubPublisher, open_channel
from schemas.problems import JobError

TOPIC = "projects/project-1/topics/events"
Code: TypeAlias = grpc.StatusCode
Answer = Callable[[list[bytes]], Code | None]


class Broker:
    """Takes publish requests; `answer` says for the bodies of one whether to refuse it."""

    def __init__(self) -> None:
        self.answer: Answer = lambda bodies: None
        self.published: Counter[bytes] = Counter()
        self.calls = 0
        self.metadata: dict[str, Any] = {}
        self._lock = threading.Lock()

    def publish(self, request: Real, context: grpc.ServicerContext) -> PublishResponse:
        bodies = [message.data for message in request.messages]
        with self._lock:
            self.calls += 1
            self.metadata = dict(context.invocation_metadata())
        code = self.answer(bodies)
        if code:
            context.abort(code, "as expected")
        with self._lock:
            self.published.update(bodies)
        return PublishResponse(message_ids=["1"] * len(bodies))


@pytest.fixture
def broker(monkeypatch: pytest.MonkeyPatch) -> Iterator[Broker]:
    made = Broker()
    handler = grpc.unary_unary_rpc_method_handler(made.publish, Real.deserialize, PublishResponse.serialize)
    server = grpc.server(ThreadPoolExecutor(8), options=[("grpc.max_receive_message_length", -1)])
    service = grpc.method_handlers_generic_handler("google.pubsub.v1.Publisher", {"Publish": handler})
    server.add_generic_rpc_handlers((service,))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    monkeypatch.setenv("PUBSUB_EMULATOR_HOST", f"127.0.0.1:{port}")
    yield made
    server.stop(None).wait()


class Time:
    """A clock that only sleeping moves."""

    def __init__(self) -> None:
        self.now = 0.0

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def publisher(**options: Any) -> PubsubPublisher:
    time = Time()
    return PubsubPublisher(TOPIC, **{"clock": time.clock, "sleep": time.sleep, **options})


def requests(bodies: list[bytes], each: int = 100_000) -> list[PublishRequest]:
    """The bodies in batches of `each`."""
    made = [pubsub_messages(pa.array(bodies[i : i + each], pa.binary()), {}) for i in range(0, len(bodies), each)]
    return [request for messages in made for request in publish_requests(TOPIC, messages).requests]


def publish(sink: PubsubPublisher, requests: list[PublishRequest]) -> list[Refused]:
    sink.submit(requests)
    return sink.settle()


def numbered(count: int) -> list[bytes]:
    return [str(i).encode() for i in range(count)]


def test_every_message_is_published_once_and_routed_by_its_topic(broker: Broker) -> None:
    with publisher() as sink:
        assert publish(sink, requests(numbered(3_500))) == []
        assert publish(sink, requests([b"x" * 9_000_000])) == []
    assert broker.published == Counter([*numbered(3_500), b"x" * 9_000_000])
    assert broker.calls == 5
    assert broker.metadata["x-goog-request-params"] == f"topic={TOPIC}"


@pytest.mark.parametrize(
    "code",
    [Code.UNAVAILABLE, Code.RESOURCE_EXHAUSTED, Code.INTERNAL, Code.ABORTED, Code.UNKNOWN, Code.CANCELLED],
)
def test_a_passing_trouble_is_waited_out(broker: Broker, code: Code) -> None:
    broker.answer = lambda bodies: code if broker.calls <= 3 else None
    with publisher(in_flight=1) as sink:
        assert publish(sink, requests([b"a", b"b"])) == []
    assert broker.published == Counter([b"a", b"b"])


def test_a_call_that_hangs_is_given_up_and_made_again(broker: Broker) -> None:
    release = threading.Event()
    broker.answer = lambda bodies: Code.INTERNAL if broker.calls == 1 and not release.wait(30) else None
    with PubsubPublisher(TOPIC, deadline_s=1.0, clock=Time().clock) as sink:
        assert publish(sink, requests([b"a"])) == []
    assert broker.calls == 2
    release.set()


@pytest.mark.parametrize(
    ("code", "todo"),
    [
        (Code.NOT_FOUND, f"campaigns topic create pubsub:{TOPIC}"),
        (Code.PERMISSION_DENIED, "roles/pubsub.publisher"),
        (Code.UNAUTHENTICATED, "gcloud auth application-default login"),
        (Code.FAILED_PRECONDITION, "as expected.* run the same command again"),
    ],
)
def test_what_waiting_does_not_mend_says_what_to_do(broker: Broker, code: Code, todo: str) -> None:
    broker.answer = lambda bodies: code
    with publisher() as sink, pytest.raises(JobError, match=todo):
        publish(sink, requests(numbered(10), each=1))
    assert not broker.published


def test_no_progress_until_the_deadline_is_an_error(broker: Broker) -> None:
    broker.answer = lambda bodies: Code.UNAVAILABLE
    time = Time()
    message = r"Nothing could be published to .* for 6\d s .*same command again"
    sink = publisher(deadline_s=60.0, clock=time.clock, sleep=time.sleep)
    with sink, pytest.raises(JobError, match=message):
        publish(sink, requests([b"a"]))
    assert 60 <= time.now < 66
    assert broker.calls > 12


def test_a_deadline_counts_from_the_last_success(broker: Broker) -> None:
    broker.answer = lambda bodies: None if broker.calls % 8 == 0 else Code.UNAVAILABLE
    time = Time()
    with publisher(deadline_s=30.0, in_flight=1, clock=time.clock, sleep=time.sleep) as sink:
        assert publish(sink, requests(numbered(8), each=1)) == []
    assert time.now > 60
    assert broker.published == Counter(numbered(8))


def test_only_the_messages_to_blame_are_refused_and_the_others_published_once(broker: Broker) -> None:
    broker.answer = lambda bodies: Code.INVALID_ARGUMENT if b"bad" in bodies else None
    bodies = numbered(1_500)
    bodies[0] = bodies[700] = bodies[1_499] = b"bad"
    with publisher() as sink:
        refused = publish(sink, requests(bodies))
        assert sink.settle() == []
    assert broker.published == Counter(body for body in bodies if body != b"bad")
    assert [(one.row, one.code) for one in refused] == [(row, "INVALID_ARGUMENT") for row in (0, 700, 1499)]
    assert refused[0].detail == "as expected"


def test_a_topic_that_refuses_everything_is_to_blame_itself(broker: Broker) -> None:
    broker.answer = lambda bodies: Code.INVALID_ARGUMENT
    with publisher() as sink, pytest.raises(JobError, match="refused every message of a request"):
        publish(sink, requests(numbered(100)))


def test_requests_are_in_flight_together_up_to_the_limit(broker: Broker) -> None:
    both, running, most, lock = threading.Barrier(2, timeout=20), 0, 0, threading.Lock()

    def answer(bodies: list[bytes]) -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        both.wait()
        with lock:
            running -= 1

    broker.answer = answer
    with publisher(in_flight=2) as sink:
        assert publish(sink, requests(numbered(12), each=1)) == []
    assert most == 2


def test_submitting_waits_while_too_much_is_queued(broker: Broker) -> None:
    release, done = threading.Event(), threading.Event()
    broker.answer = lambda bodies: None if release.wait(20) else Code.NOT_FOUND
    with publisher(in_flight=1, queued_bytes=1) as sink:

        def submit() -> None:
            sink.submit(requests(numbered(3), each=1))
            done.set()

        thread = threading.Thread(target=submit)
        thread.start()
        assert not done.wait(0.2)
        release.set()
        thread.join()
        assert sink.settle() == []
    assert broker.published == Counter(numbered(3))


def test_after_an_error_the_rest_is_dropped_and_a_new_start_is_possible(broker: Broker) -> None:
    broker.answer = lambda bodies: Code.NOT_FOUND
    with publisher(in_flight=1) as sink:
        with pytest.raises(JobError):
            publish(sink, requests(numbered(50), each=1))
        assert broker.calls == 1
        broker.answer = lambda bodies: None
        assert publish(sink, requests([b"new"])) == []
        sink.close()
    assert broker.published == Counter([b"new"])


def test_missing_credentials_say_how_to_log_in(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.delenv("PUBSUB_EMULATOR_HOST", raising=False)
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "none.json"))
    with pytest.raises(JobError, match="gcloud auth application-default login"):
        open_channel()


@pytest.mark.parametrize("wrong", [{"in_flight": 0}, {"deadline_s": 0.0}])
def test_limits_must_be_positive(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must be positive"):
        PubsubPublisher(TOPIC, **wrong)
