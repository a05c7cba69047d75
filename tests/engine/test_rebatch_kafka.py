"""The job rebatch from a Kafka topic, and the source that engines with checkpoints read it by, both on Prism."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path
from typing import Any

import apache_beam as beam
import pytest
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.transforms.window import FixedWindows
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewPartitions
from support.delivering import KEY, Delivery, any_events, eventually

from bench.deliveries import Wire, kill, publish_to
from connectors.kafka.client import KafkaClient
from connectors.kafka.consumer import PartitionConsumer
from connectors.kafka.partition_reader import KafkaPartitionReader
from connectors.uri import KafkaUri
from pipelines.engines.choose import choose_engine, prepare_engine
from runners.cli.main import main
from runners.sandbox.process import Sandbox
from transforms.streaming.elements import Envelopes
from transforms.streaming.read_partitions import ReadPartitions

pytestmark = pytest.mark.engine
CLIENT = KafkaClient()
SEEN: list[str] = []
CLOSED: list[int] = []


@pytest.fixture(autouse=True)
def _environment(prism_engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAMPAIGNS_PRISM", prism_engine)
    monkeypatch.setenv("SANDBOX_KEY", KEY["SANDBOX_KEY"])


@pytest.fixture
def delivery(tmp_path: Path, uri: KafkaUri, sandbox: Sandbox) -> Delivery:
    """From the topic to the sandbox."""
    return Delivery(tmp_path, sandbox.url, str(uri)).configure()


def send(uri: KafkaUri, events: dict[str, Wire]) -> None:
    publish_to(str(uri), list(events.values()))


def committed(uri: KafkaUri) -> int:
    """Offsets of all partitions together that the group has read."""
    consumer = PartitionConsumer(uri, CLIENT, "campaigns").open()
    found = consumer.committed(range(consumer.partitions()))
    consumer.close()
    return sum(found.values())


def test_a_topic_is_drained_and_every_event_accepted_once(delivery: Delivery, sandbox: Sandbox, uri: KafkaUri) -> None:
    events, broken = any_events(300), next(iter(any_events(1, "broken").values()))
    send(uri, {**events, "broken": (broken[0][:20], broken[1])})
    send(uri, any_events(50))
    assert delivery.run("--drain", "--idle=1") == 0
    assert sandbox.accepted() == dict.fromkeys(events, 1)
    assert delivery.outcomes() == dict.fromkeys(events, "accepted")
    (letter,) = delivery.letters()
    assert (letter.reason, letter.data) == ("broken_bytes", broken[0][:20])
    summary = delivery.summary()
    assert summary["read"] == 351 == sum(summary[name] for name in ("accepted", "dead_lettered", "repeats"))
    assert committed(uri) == 351
    later = any_events(10, "later")
    send(uri, later)
    assert delivery.run("--drain", "--idle=1", "--start=earliest") == 0
    assert delivery.summary()["read"] == 10
    assert sandbox.accepted() == dict.fromkeys({**events, **later}, 1)
    assert main(["replay", str(uri), "--from", "2020-01-01T00:00Z", "--events", str(uri)]) == 0
    assert delivery.run("--drain", "--idle=1") == 0
    assert delivery.summary()["read"] == 361
    assert sandbox.accepted() == dict.fromkeys({**events, **later}, 1)
    assert len(delivery.letters()) == 2  # its bytes are the same, but it is another message: replayed


def test_a_job_that_is_killed_loses_nothing_and_sends_nothing_twice(
    delivery: Delivery, sandbox: Sandbox, uri: KafkaUri
) -> None:
    first, second = any_events(400, "first"), any_events(400, "second")
    short: dict[str, Any] = {
        "timeout": "PT1S",
        "lease": "PT2S",
        "on_unknown": "hold",
    }  # what a kill leaves open is not tried again
    delivery.configure({"aldi": {"paused": True}}, **short)
    send(uri, first)
    with delivery.started() as job:
        eventually(lambda: len(sandbox.accepted()) >= 100, "some of the first")
        send(uri, second)
        eventually(lambda: committed(uri) > 400, "a commit")
        kill(job)  # type: ignore[arg-type]
    delivery.configure(**short)
    time.sleep(2.5)  # the lease of what was claimed and not told ends
    assert delivery.run("--drain", "--idle=1") == 0
    everyone = {**first, **second}
    assert set(sandbox.accepted().values()) == {1}
    outcomes = delivery.outcomes()
    assert outcomes.keys() == everyone.keys()
    assert {name for name, outcome in outcomes.items() if outcome == "accepted"} <= sandbox.accepted().keys()
    assert set(outcomes.values()) <= {"accepted", "unknown"}  # unknown: the kill took the answer


def note(polled: Envelopes) -> tuple[int, int]:
    SEEN.extend(one.body.decode() for one in polled.items)
    return 0, len(polled.items)


def close(window: tuple[int, Any]) -> None:
    CLOSED.append(sum(window[1]))


def test_an_engine_reads_partitions_that_are_added_and_an_idle_one_does_not_hold_the_watermark(
    uri: KafkaUri, tmp_path: Path
) -> None:
    SEEN.clear()
    CLOSED.clear()
    options, stop = PipelineOptions([]), tmp_path / "stop"
    choose_engine(options, drain=False)
    prepare_engine(options)

    def put(partition: int, *names: str) -> None:
        producer = Producer({"bootstrap.servers": uri.brokers[0]})  # one that was there knows no new partition yet
        for name in names:
            producer.produce(uri.topic, name.encode(), partition=partition)
        assert producer.flush(30) == 0

    put(0, *(f"{number:03}" for number in range(500)))
    p = beam.Pipeline(options=options)
    make = partial(KafkaPartitionReader, uri, CLIENT, "sdf", look_every_s=0.2, stop=stop.exists)
    _ = (
        p
        | ReadPartitions(make, time.time)
        | "Note" >> beam.Map(note)
        | "Window" >> beam.WindowInto(FixedWindows(1))
        | "Close" >> beam.GroupByKey()
        | "NoteClosed" >> beam.Map(close)
    )
    job = p.run()
    eventually(lambda: sum(CLOSED) == 500, "the end of the window, with partition 1 empty")
    admin = AdminClient({"bootstrap.servers": uri.brokers[0]})
    admin.create_partitions([NewPartitions(uri.topic, 3)])[uri.topic].result()
    eventually(lambda: len(admin.list_topics(uri.topic).topics[uri.topic].partitions) == 3)
    put(2, "new")
    put(1, "idle no more")
    eventually(lambda: {"new", "idle no more"} <= set(SEEN), "the new partition")
    consumer = PartitionConsumer(uri, CLIENT, "sdf").open()
    eventually(lambda: consumer.committed(range(3)) == {0: 500, 1: 1, 2: 1}, "the group's offsets")
    consumer.close()
    stop.touch()
    job.wait_until_finish()
    assert sorted(SEEN) == sorted([*(f"{number:03}" for number in range(500)), "idle no more", "new"])
