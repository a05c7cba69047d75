"""What every test may ask for: the Pub/Sub emulator, a fresh topic on it, and what arrived there."""

from __future__ import annotations

import signal
import time
import uuid
import warnings
from collections.abc import Callable, Iterator
from typing import NamedTuple

import pytest
from google.pubsub_v1 import PublisherClient, PubsubMessage, SubscriberClient
from google.pubsub_v1.services.publisher.transports import PublisherGrpcTransport
from google.pubsub_v1.services.subscriber.transports import SubscriberGrpcTransport
from hypothesis import settings
from support.feature_stores import make_bigtable
from support.servers import missing, needed

from connectors.pubsub.publisher import open_channel
from pipelines.engines.prism import find_prism
from runners.local.emulators import bigtable_emulator, firestore_emulator, pubsub_emulator
from runners.local.kafka_broker import KafkaBroker, kafka_broker
from runners.local.redis_server import RedisServer, redis_server
from runners.sandbox.process import Sandbox, running_sandbox

settings.register_profile("no test asserts a time", deadline=None)
settings.load_profile("no test asserts a time")
# A runner that was started in the background ignores these, and so would every process that a test starts and stops.
for _number, _handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, _handler)
Drain = Callable[..., list[PubsubMessage]]


class Topic(NamedTuple):
    """A topic of the emulator and a subscription to it, by their full names."""

    path: str
    subscription: str

    @property
    def uri(self) -> str:
        return f"pubsub:{self.path}"


@pytest.fixture(scope="module")
def _running() -> Iterator[Sandbox]:
    with running_sandbox() as made:
        yield made


@pytest.fixture
def sandbox(_running: Sandbox) -> Sandbox:
    """The vendor of the tests of a file, which has forgotten everything and fails at nothing."""
    _running.script([])
    _running.reset()
    return _running


@pytest.fixture(scope="session")
def pubsub_host() -> Iterator[str]:
    """`host:port` of the emulator; the tests that need it are skipped without one, and fail in CI."""
    with needed(pubsub_emulator()) as host:
        yield host


@pytest.fixture(scope="session")
def firestore_host() -> Iterator[str]:
    """`host:port` of the emulator; the tests that need it are skipped without one, and fail in CI."""
    with needed(firestore_emulator()) as host:
        yield host


@pytest.fixture
def firestore_uri(firestore_host: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """An empty collection; FIRESTORE_EMULATOR_HOST is set for the test."""
    monkeypatch.setenv("FIRESTORE_EMULATOR_HOST", firestore_host)
    return f"firestore:projects/project-1/databases/(default)/ledger-{uuid.uuid4().hex}"


@pytest.fixture(scope="session")
def redis() -> Iterator[RedisServer]:
    """A Redis server; the tests that need it are skipped without one, and fail in CI."""
    with needed(redis_server()) as server:
        yield server


@pytest.fixture(scope="session")
def bigtable_uri() -> Iterator[str]:
    """A feature store in Bigtable's emulator; BIGTABLE_EMULATOR_HOST is set for the session."""
    with needed(bigtable_emulator()) as host, pytest.MonkeyPatch.context() as patch:
        patch.setenv("BIGTABLE_EMULATOR_HOST", host)
        yield make_bigtable(host)


@pytest.fixture(scope="session")
def kafka() -> Iterator[KafkaBroker]:
    """A Kafka broker; the tests that need it are skipped without Kafka's jars, and fail in CI."""
    with needed(kafka_broker()) as broker:
        yield broker


@pytest.fixture(scope="session")
def kafka_host(kafka: KafkaBroker) -> str:
    """Its `host:port`."""
    return kafka.host


@pytest.fixture(scope="session")
def prism_engine() -> str:
    """Prism's path; the tests that need it are skipped without one, and fail in CI."""
    found = find_prism()
    if found is None:
        missing("needs Prism, run `make engines`")
    return found


@pytest.fixture
def topic(pubsub_host: str, monkeypatch: pytest.MonkeyPatch) -> Topic:
    """A fresh topic without a schema; PUBSUB_EMULATOR_HOST is set for the test."""
    monkeypatch.setenv("PUBSUB_EMULATOR_HOST", pubsub_host)
    name = f"t-{uuid.uuid4().hex}"
    made = Topic(f"projects/project-1/topics/{name}", f"projects/project-1/subscriptions/{name}")
    with open_channel() as channel:
        PublisherClient(transport=PublisherGrpcTransport(channel=channel)).create_topic(name=made.path)
        subscriber = SubscriberClient(transport=SubscriberGrpcTransport(channel=channel))
        subscriber.create_subscription(name=made.subscription, topic=made.path)
    return made


@pytest.fixture
def drain() -> Drain:
    """`drain(subscription, expected, timeout=30)`: the messages that arrived, acknowledged, and any surplus."""
    return _drain


def _drain(subscription: str, expected: int, timeout: float = 30) -> list[PubsubMessage]:
    got: list[PubsubMessage] = []
    end = time.monotonic() + timeout
    with open_channel() as channel, warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # return_immediately: the only way to see "nothing more"
        client = SubscriberClient(transport=SubscriberGrpcTransport(channel=channel))
        while time.monotonic() < end:
            request = {"subscription": subscription, "max_messages": 1000, "return_immediately": True}
            received = client.pull(request=request).received_messages
            if received:
                got += [one.message for one in received]
                client.acknowledge(subscription=subscription, ack_ids=[one.ack_id for one in received])
            elif len(got) >= expected:
                break
            else:
                time.sleep(0.02)
    return got
