"""Reading a subscription of the real Pub/Sub emulator."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import grpc
import pytest
from google.pubsub_v1 import PublisherClient, PubsubMessage, SubscriberClient
from google.pubsub_v1.services.publisher.transports import PublisherGrpcTransport
from google.pubsub_v1.services.subscriber.transports import SubscriberGrpcTransport
from support.wire import Wire

from connectors.pubsub import reader as pubsub_reader
from connectors.pubsub.publisher import open_channel
from connectors.pubsub.reader import PubsubReader
from schemas.problems import JobError
from schemas.transport import Envelope, Poll

pytestmark = pytest.mark.engine
OpenReader = Callable[..., PubsubReader]


@pytest.fixture
def opened() -> Iterator[OpenReader]:
    """`opened(subscription, …)`: a reader that pulls, closed after the test."""
    with ExitStack() as stack:

        def another(subscription: str, **options: Any) -> PubsubReader:
            reader = PubsubReader(subscription, **{"pullers": 1, **options})
            reader.open()
            stack.callback(reader.close)
            return reader

        yield another


@pytest.fixture
def wire(pubsub_host: str, topic: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Wire]:
    """A wire to the broker, which all channels that are opened from now on use."""
    made = Wire(pubsub_host)
    monkeypatch.setenv("PUBSUB_EMULATOR_HOST", made.host)
    yield made
    made.close()


def publish(topic: str, *names: str, host: str = "") -> None:
    """A message a name, by the way that the reader takes or by another."""
    messages = [PubsubMessage(data=b"\0\xff" + name.encode(), attributes={"event_id": name}) for name in names]
    with grpc.insecure_channel(host) if host else open_channel() as channel:
        client = PublisherClient(transport=PublisherGrpcTransport(channel=channel))
        for start in range(0, len(messages), 1_000):
            client.publish(topic=topic, messages=messages[start : start + 1_000])


def give_back(subscription: str, ack_ids: list[str]) -> None:
    """As if the leases of these had ended."""
    with open_channel() as channel:
        client = SubscriberClient(transport=SubscriberGrpcTransport(channel=channel))
        client.modify_ack_deadline(subscription=subscription, ack_ids=ack_ids, ack_deadline_seconds=0)


def polls(reader: PubsubReader, expected: int, most: int = 1_000) -> list[Poll]:
    """Polls until so many messages have come; the test's timeout ends it otherwise."""
    got: list[Poll] = []
    while sum(len(poll.envelopes) for poll in got) < expected:
        poll = reader.poll(most)
        assert not poll.done
        if poll.envelopes:
            got.append(poll)
    return got


def envelopes(some: list[Poll]) -> list[Envelope]:
    return [one for poll in some for one in poll.envelopes]


def ids(some: list[Poll]) -> list[str]:
    return sorted(one.attributes["event_id"] for one in envelopes(some))


def test_all_messages_come_as_they_were_published(topic: Any, opened: OpenReader) -> None:
    names = [f"{number:04}" for number in range(2_500)]
    before = int(time.time() * 1000)
    publish(topic.path, *names)
    reader = opened(topic.subscription, pullers=4)
    got = polls(reader, len(names), most=700)
    assert ids(got) == names
    assert max(len(poll.envelopes) for poll in got) <= 700
    one = envelopes(got)[0]
    assert one.body == b"\0\xff" + one.attributes["event_id"].encode()
    assert before - 1_000 <= one.published_at <= time.time() * 1000 + 1_000
    assert len({envelope.message_id for envelope in envelopes(got)}) == len(names)


def test_only_what_is_committed_is_acknowledged(topic: Any, opened: OpenReader) -> None:
    publish(topic.path, *"abcdef")
    first = opened(topic.subscription)
    got = polls(first, 6, most=2)
    first.commit(got[0].handle)
    first.close()
    give_back(topic.subscription, [one for poll in got for one in poll.handle])
    again = polls(opened(topic.subscription), 4)
    assert ids(again) == ids(got[1:])


def test_a_commit_that_fails_only_means_that_they_come_again(topic: Any, opened: OpenReader) -> None:
    publish(topic.path, "a")
    first = opened(topic.subscription)
    got = polls(first, 1)
    first.close()
    first.commit(got[0].handle)  # the engine may finish a bundle after the reader was closed
    give_back(topic.subscription, got[0].handle)
    assert ids(polls(opened(topic.subscription), 1)) == ["a"]


def test_leases_are_extended_until_they_are_committed(
    topic: Any, opened: OpenReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pubsub_reader, "_EXTEND_EVERY_S", 0.05)
    publish(topic.path, *"ab")
    reader = opened(topic.subscription)
    extended: list[list[str]] = []
    real = reader._extend

    def extend(request: Any, timeout: float) -> None:
        extended.append(list(request.ack_ids))
        real(request, timeout=timeout)

    monkeypatch.setattr(reader, "_extend", extend)
    got = polls(reader, 2)
    handle = [one for poll in got for one in poll.handle]
    reader.commit(handle[:1])
    seen = len(extended)
    while len(extended) < seen + 3:
        reader.poll(1)
    assert extended[-1] == handle[1:]


def test_an_idle_reader_is_done_and_one_without_a_limit_is_not(topic: Any, opened: OpenReader) -> None:
    publish(topic.path, "a")
    reader, patient = opened(topic.subscription, idle_s=0.5), opened(topic.subscription)
    while not (poll := reader.poll(10)).done:
        assert not patient.poll(10).done
    assert poll.envelopes == []


def test_a_reader_that_is_asked_to_stop_is_done_at_once(topic: Any, opened: OpenReader) -> None:
    publish(topic.path, "a")
    stop: list[bool] = []
    reader = opened(topic.subscription, stop=lambda: bool(stop))
    polls(reader, 1)
    stop.append(True)
    assert reader.poll(10) == Poll([], [], done=True)


def test_a_subscription_that_is_not_there_says_what_to_do(topic: Any, opened: OpenReader) -> None:
    reader = opened(f"{topic.subscription}-x")
    expected = r"-x cannot be read \(NOT_FOUND: .*Create the subscription, `campaigns .* run the same"
    for _ in range(2):
        with pytest.raises(JobError, match=expected):
            polls(reader, 1)


def test_the_oldest_message_at_hand_holds_the_watermark_back(topic: Any, opened: OpenReader) -> None:
    reader = opened(topic.subscription)
    assert abs(reader.oldest() - time.time()) < 60
    publish(topic.path, "a")
    with reader._change:
        assert reader._change.wait_for(lambda: bool(reader._ready), 30)
    at = reader.oldest()
    (one,) = envelopes(polls(reader, 1))
    assert at == one.published_at // 1000


def test_a_broker_that_goes_away_and_comes_back_is_waited_for(
    topic: Any, wire: Wire, opened: OpenReader, pubsub_host: str
) -> None:
    reader = opened(topic.subscription)
    publish(topic.path, "a")
    got = polls(reader, 1)
    reader.commit(got[0].handle)
    wire.cut()
    for _ in range(3):
        assert reader.poll(10) == Poll([], [])
    publish(topic.path, "lost on the way", host=pubsub_host)  # to the pull that was out; it comes again much later
    wire.mend()
    publish(topic.path, "b")
    while "b" not in ids(polls(reader, 1)):
        pass


def test_a_broker_that_cannot_be_reached_is_not_one_that_has_nothing(
    topic: Any, wire: Wire, opened: OpenReader
) -> None:
    wire.cut()
    reader = opened(topic.subscription, idle_s=0.3)
    while not reader._unreachable:
        reader.poll(10)
    for _ in range(4):
        assert not reader.poll(10).done
    wire.mend()
    publish(topic.path, "a")
    assert ids(polls(reader, 1)) == ["a"]
    while not reader.poll(10).done:
        pass
