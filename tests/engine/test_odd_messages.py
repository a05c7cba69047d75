"""Odd messages from the brokers themselves: no one stops the job, and each good one beside them is sent once."""

from __future__ import annotations

import time
import uuid
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic
from conftest import Topic
from support.delivering import KEY, NOW, Delivery, any_events

from bench.deliveries import Wire, publish
from bench.mutations import Mutations
from connectors.uri import KafkaUri
from runners.sandbox.process import Sandbox

pytestmark = pytest.mark.engine
SEED, ODD = 20, 120
LARGE = 200_000


@pytest.fixture(autouse=True)
def _environment(prism_engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAMPAIGNS_PRISM", prism_engine)
    monkeypatch.setenv("SANDBOX_KEY", KEY["SANDBOX_KEY"])


def odd_messages(carries: Any) -> list[Wire]:
    """Odd messages that a transport carries."""
    source, found = Mutations(SEED, NOW), list[Wire]()
    while len(found) < ODD:
        mutant = source.any()
        if len(mutant.body) < LARGE and carries(mutant.attributes):
            found.append((mutant.body, mutant.attributes))
    return found


def check(delivery: Delivery, sandbox: Sandbox, good: dict[str, Wire], odd: int) -> None:
    """Whether every good event was accepted once, no event twice, and every message is counted."""
    accepted = sandbox.accepted()
    assert {name: accepted.get(name) for name in good} == dict.fromkeys(good, 1)
    assert set(accepted.values()) == {1}
    outcomes = delivery.outcomes()
    assert {name for name, outcome in outcomes.items() if outcome == "accepted"} == set(accepted)
    summary = delivery.summary()
    ends = ("dead_lettered", "already_settled", "repeats", "accepted", "rejected", "expired", "left_waiting")
    assert summary["read"] == len(good) + odd == sum(summary[name] for name in ends)
    assert summary["dead_lettered"] == len([one for one in delivery.letters() if one.step == "Decode"]) > odd / 4


def test_odd_messages_of_a_subscription_hurt_nobody(tmp_path: Path, sandbox: Sandbox, topic: Topic) -> None:
    delivery, good = Delivery(tmp_path, sandbox.url, f"pubsub:{topic.subscription}").configure(), any_events(ODD)
    odd = odd_messages(_fits_pubsub)
    publish(topic.path, [one for pair in zip(good.values(), odd, strict=True) for one in pair])
    assert delivery.run("--drain", "--idle=2") == 0
    check(delivery, sandbox, good, len(odd))


def _fits_pubsub(attributes: dict[str, str]) -> bool:
    names = all(0 < len(name.encode()) <= 256 and not name.startswith("goog") for name in attributes)
    return names and len(attributes) <= 100 and all(len(value.encode()) <= 1_024 for value in attributes.values())


def test_odd_messages_of_a_topic_of_kafka_hurt_nobody(tmp_path: Path, sandbox: Sandbox, uri: KafkaUri) -> None:
    delivery, good = Delivery(tmp_path, sandbox.url, str(uri)).configure(), any_events(ODD)
    odd = odd_messages(lambda attributes: sum(map(len, attributes.values())) < LARGE)
    raw = list(_raw(any_events(6, "odd")))
    producer = Producer({"bootstrap.servers": ",".join(uri.brokers)})
    for (body, attributes), (odd_body, odd_attributes) in zip(good.values(), odd, strict=True):
        producer.produce(uri.topic, body, headers=list(attributes.items()), key="")
        producer.produce(uri.topic, odd_body, headers=list(odd_attributes.items()))
    for message in raw:
        producer.produce(uri.topic, **message)
    assert producer.flush(60) == 0
    assert delivery.run("--drain", "--idle=2") == 0
    check(delivery, sandbox, good, len(odd) + len(raw))


def test_a_time_that_no_watermark_can_hold_does_not_stop_the_job(
    tmp_path: Path, sandbox: Sandbox, kafka_host: str
) -> None:
    uri = KafkaUri((kafka_host,), f"t-{uuid.uuid4().hex}")
    any_time = {"message.timestamp.after.max.ms": str((1 << 63) - 1)}
    admin = AdminClient({"bootstrap.servers": kafka_host})
    (made,) = admin.create_topics([NewTopic(uri.topic, 1, 1, config=any_time)]).values()
    made.result(60)
    good = any_events(10)
    producer = Producer({"bootstrap.servers": kafka_host})
    for body, attributes in good.values():
        producer.produce(uri.topic, body, headers=list(attributes.items()), timestamp=1 << 60)
    assert producer.flush(60) == 0
    delivery = Delivery(tmp_path, sandbox.url, str(uri)).configure()
    assert delivery.run("--drain", "--idle=2") == 0
    assert sandbox.accepted() == dict.fromkeys(good, 1)


def test_on_prism_too_what_is_due_at_the_end_of_time_waits(tmp_path: Path, sandbox: Sandbox) -> None:
    delivery, good = Delivery(tmp_path, sandbox.url).configure(), any_events(10)
    delivery.put("part-0", good)
    for number, at in enumerate((253_402_300_799_999, (1 << 63) - 1, NOW + 99 * 365 * 86_400_000)):
        delivery.put(f"part-{number + 1}", any_events(2, f"later-{number}", deliver_after=at, expires_at=None))
    assert delivery.run("--drain") == 0
    assert sandbox.accepted() == dict.fromkeys(good, 1)
    assert delivery.summary()["left_waiting"] == 6


def _raw(events: dict[str, Wire]) -> Any:
    """What only Kafka carries: no body, no headers, headers that are no text or null or twice, any time."""
    wires = [(body, list(attributes.items())) for body, attributes in events.values()]
    yield {"value": None, "key": ""}
    yield {"value": None, "headers": wires[0][1], "key": b"\xff"}
    yield {"value": wires[0][0]}
    yield {"value": wires[1][0], "headers": [*wires[1][1], ("retailer_id", b"\xff\xfe")]}
    yield {"value": wires[2][0], "headers": [*wires[2][1], ("event_id", None)]}
    yield {"value": wires[3][0], "headers": [*wires[3][1], ("note", b"x" * LARGE)], "timestamp": 1}
    yield {"value": wires[4][0], "headers": wires[4][1], "timestamp": int(time.time() * 1000) + 3_000_000}
    yield {"value": wires[5][0], "headers": [("replay", "\0"), *wires[5][1]]}
