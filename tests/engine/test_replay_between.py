"""Events that were published between two times, read again from each transport and published to another."""

from __future__ import annotations

import time
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import fastavro
import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from conftest import Topic
from google.pubsub_v1 import SubscriberClient
from google.pubsub_v1.services.subscriber.transports import SubscriberGrpcTransport
from support.delivering import any_events

from bench.deliveries import Wire, publish, write_file
from connectors import open as transports
from connectors.kafka.client import KafkaClient, create_topic
from connectors.pubsub.publisher import open_channel
from connectors.uri import KafkaUri
from runners.cli.main import main

pytestmark = pytest.mark.engine
START = 1_775_034_000_000  # 2026-04-01T09:00Z
WINDOW = ("--from", "2026-04-01T09:10Z", "--to", "2026-04-01T11:20:00+02:00")
EVENTS = {name: wire for minute in range(30) for name, wire in any_events(1, f"m{minute}", emitted_at=START + minute * 60_000).items()}  # fmt: skip
INSIDE = list(EVENTS)[10:20]


@pytest.fixture
def uri(kafka_host: str) -> KafkaUri:
    """A fresh topic of three partitions."""
    made = KafkaUri((kafka_host,), f"t-{uuid.uuid4().hex}")
    assert create_topic(made, KafkaClient(), partitions=3, replicas=1)
    return made


def messages(uri: KafkaUri, expected: int) -> dict[str, Wire]:
    """What a topic holds, by event id."""
    consumer = Consumer({"bootstrap.servers": uri.brokers[0], "group.id": "plain"})
    consumer.assign([TopicPartition(uri.topic, one, 0) for one in range(3)])
    got: list[Any] = []
    while len(got) < expected or (more := consumer.consume(100, 0.5)):
        got += consumer.consume(100, 0.2) if len(got) < expected else more
    consumer.close()
    assert len(got) == expected
    made: list[Any] = [(one.value(), {name: value.decode() for name, value in one.headers()}) for one in got]
    return {headers["event_id"]: (body, headers) for body, headers in made}


def written(folder: Path) -> list[str]:
    """The ids of the events in the files of a folder."""
    found: list[str] = []
    for path in folder.glob("*.avro"):
        with path.open("rb") as file:
            found += [record["event_id"] for record in fastavro.reader(file)]
    return sorted(found)


def test_files_and_kafka_give_what_was_published_between_the_times(
    uri: KafkaUri, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_file(tmp_path / "archive", "a", [body for body, _ in EVENTS.values()])
    assert main(["replay", f"file:{tmp_path}/archive", *WINDOW, "--events", str(uri)]) == 0
    assert capsys.readouterr().out == "10 messages published again, 0 messages left out\n"
    got = messages(uri, 10)
    assert got.keys() == set(INSIDE)
    assert {name: body for name, (body, _) in got.items()} == {name: EVENTS[name][0] for name in INSIDE}
    (mark,) = {headers.pop("replay") for _, headers in got.values()}
    assert len(mark) == 12
    assert got == {name: EVENTS[name] for name in INSIDE}

    other = KafkaUri(uri.brokers, f"{uri.topic}-2")
    assert create_topic(other, KafkaClient(), partitions=3, replicas=1)
    producer = Producer({"bootstrap.servers": uri.brokers[0]})
    for minute, (body, attributes) in enumerate(EVENTS.values()):
        at = START + minute * 60_000
        producer.produce(other.topic, body, partition=minute % 2, timestamp=at, headers=list(attributes.items()))
    producer.produce(other.topic, b"broken", partition=0, timestamp=START + 15 * 60_000)  # late
    producer.produce(other.topic, b"broken", partition=2, timestamp=START + 15 * 60_000)
    assert producer.flush(30) == 0
    assert main(["replay", str(other), *WINDOW, "--events", f"file:{tmp_path}/again"]) == 0
    assert capsys.readouterr().out == "10 messages published again, 2 messages left out\n"
    assert written(tmp_path / "again") == sorted(INSIDE)
    assert main(["replay", str(other), *WINDOW[:2], "--events", str(other)]) == 0  # no longer than until now
    assert capsys.readouterr().out == "22 messages published again, 0 messages left out\n"


def test_a_subscription_is_set_back_and_keeps_what_is_not_asked_for(
    topic: Topic, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transports, "_IDLE_S", 1.0)
    name = topic.subscription.replace("/t-", "/kept-")
    first, second = any_events(5, "first"), any_events(5, "second")
    source = f"pubsub:{name}"
    with open_channel() as channel:
        client = SubscriberClient(transport=SubscriberGrpcTransport(channel=channel))
        wanted = {"name": name, "topic": topic.path, "retain_acked_messages": True}
        client.create_subscription(request=wanted)
        publish(topic.path, list(first.values()))
        got = client.pull(subscription=name, max_messages=10).received_messages
        client.acknowledge(subscription=name, ack_ids=[one.ack_id for one in got])
        time.sleep(0.1)
        until = datetime.now(UTC).isoformat()
        time.sleep(0.1)
        publish(topic.path, list(second.values()))
        argv = ["replay", source, "--from", "2026-01-01T00:00Z", "--to", until, "--events", f"file:{tmp_path}/again"]
        assert main(argv) == 0
        assert capsys.readouterr().out == "5 messages published again, 0 messages left out\n"
        assert written(tmp_path / "again") == sorted(first)
    assert main([*argv[:1], f"pubsub:{topic.subscription}", *argv[2:]]) == 1
    assert "--retain-acked-messages" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (["file:x", "--from", "soon", "--events", "file:y"], "--from = soon"),
        (["file:x", "--from", "2026-04-01T09:00", "--events", "file:y"], "write a time with its zone"),
        (["x", "--to", "2026-04-01T09:00Z", "--events", "file:y"], "say from when on"),
        (["file:x", "--from", "2026-04-01T09:00Z", "--to", "2026-04-01T09:00Z", "--events", "file:y"], "must be later"),
        (["file:x", "--from", "2026-04-01T09:00Z", "--reason", "r", "--events", "file:y"], "is for dead letters"),
        (["file:x", "--from", "2026-04-01T09:00Z", "--events", "file:x"], "name another folder"),
        (["x", "--from", "2026-04-01T09:00Z", "--events", "file:y"], "names no transport"),
        (["pubsub:projects/project-1/topics/t-1", "--from", "2026-04-01T09:00Z", "--events", "file:y"], "a subscription to it"),
        (["file:x", "--from", "2026-04-01T09:00Z", "--events", "kafka:h/t"], "'h' is no broker"),
        (["file:x", "--from", "2026-04-01T09:00Z", "--events", "kafka:h:1/t", "--kafka_config", "/none"], "--kafka_config"),
    ],
)  # fmt: skip
def test_mistakes_are_reported(argv: list[str], expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["replay", *argv]) == 2
    assert expected in capsys.readouterr().err
