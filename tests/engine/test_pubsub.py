"""Publishing to the real Pub/Sub emulator."""

from __future__ import annotations

import io
from collections import Counter
from typing import Any

import fastavro
import pyarrow as pa
import pytest

from connectors.pubsub.admin import create_topic
from connectors.pubsub.publish_requests import publish_requests, pubsub_messages
from connectors.pubsub.publisher import PubsubPublisher
from connectors.uri import TopicUri
from runners.local.emulators import free_port, pubsub_emulator
from schemas.codec.avro_columns import encode_records
from schemas.contracts import decode, fingerprint, schema
from schemas.problems import JobError

pytestmark = pytest.mark.engine
COUNT = 5_000


def any_events(count: int) -> pa.Array:
    """The bodies of `count` campaign events, one a customer."""
    customers = pa.array([f"c-{i}" for i in range(count)])
    columns = {
        "event_id": pa.array([f"{i:032x}" for i in range(count)]),
        **dict.fromkeys(["launch_id", "campaign_id", "campaign_version", "trace"], "x"),
        "surface": "storefront",
        "retailer_id": pa.array([f"r-{i % 7}" for i in range(count)]).dictionary_encode(),
        "customer_id": customers,
        "recipient": customers,
        "channel": "email",
        "properties": {"name": pa.array([None if i % 3 else f"Zoë {i}" for i in range(count)])},
        "deliver_after": 1_775_000_000_000,
        "emitted_at": 1_775_000_000_000,
    }
    return encode_records(schema("campaign_event"), columns, count)


def published(topic: str, bodies: pa.Array, attributes: Any = None, **options: Any) -> list[tuple[int, str]]:
    """Publishes; the refused rows and codes."""
    messages = pubsub_messages(bodies, attributes or {})
    made = publish_requests(topic, messages)
    with PubsubPublisher(topic, **options) as sink:
        sink.submit(made.requests)
        refused = sink.settle()
    return [(one.row, one.code) for one in (*messages.refused, *made.refused, *refused)]


def test_five_thousand_events_arrive_as_they_were_with_their_attributes(topic: Any, drain: Any) -> None:
    bodies = any_events(COUNT)
    ids = [f"{i:032x}" for i in range(COUNT)]
    attributes = {"event_id": pa.array(ids), "schema": fingerprint("campaign_event")}
    assert published(topic.path, bodies, attributes) == []
    got = drain(topic.subscription, COUNT)
    expected = zip(ids, bodies.to_pylist(), strict=True)
    assert Counter((m.attributes["event_id"], m.data) for m in got) == Counter(expected)
    assert decode(got[0].attributes["schema"], got[0].data)["event_id"] == got[0].attributes["event_id"]


def test_a_topic_with_our_schema_takes_our_bytes_and_refuses_a_corrupted_body_only(topic: Any, drain: Any) -> None:
    uri = TopicUri("project-1", f"{topic.path.rpartition('/')[2]}-s")
    made = create_topic(uri, subscription=uri.name)
    good = any_events(1_500).to_pylist()
    bodies = [*good[:700], good[0][:-3], *good[700:], b"no event"]
    assert published(uri.path, pa.array(bodies)) == [(700, "INVALID_ARGUMENT"), (1501, "INVALID_ARGUMENT")]
    assert made.subscription is not None
    assert Counter(m.data for m in drain(made.subscription, 1_500)) == Counter(good)


def test_making_a_topic_again_changes_nothing_and_a_changed_schema_is_a_new_revision(
    topic: Any, monkeypatch: pytest.MonkeyPatch, drain: Any
) -> None:
    uri = TopicUri("project-2", "events")
    first = create_topic(uri, subscription="rebatch")
    assert first.created == [first.schema, first.topic, first.subscription]
    again = create_topic(uri, subscription="rebatch")
    assert (again.created, again.changed) == ([], [])
    newer = schema("campaign_event") | {
        "fields": [*schema("campaign_event")["fields"], {"name": "locale", "type": ["null", "string"], "default": None}]
    }
    monkeypatch.setattr("connectors.pubsub.admin.schema", lambda name: newer)
    assert create_topic(uri).changed == [first.schema]
    buffer = io.BytesIO()
    event = decode(fingerprint("campaign_event"), any_events(1)[0].as_py())
    fastavro.schemaless_writer(buffer, fastavro.parse_schema(newer), {**event, "locale": "en"})
    assert published(uri.path, pa.array([buffer.getvalue()])) == []
    assert [m.data for m in drain(again.subscription, 1)] == [buffer.getvalue()]


def test_a_topic_with_another_schema_gets_ours(topic: Any) -> None:
    uri = TopicUri("project-1", topic.path.rpartition("/")[2])
    assert create_topic(uri).changed == [topic.path]
    assert published(topic.path, pa.array([b"no event"])) == [(0, "INVALID_ARGUMENT")]


def test_a_message_over_the_limit_is_refused_and_the_largest_one_arrives(topic: Any, drain: Any) -> None:
    bodies = [b"a", b"x" * 10_000_001, b"y" * 9_999_000, b"z" * 9_999_990]
    assert published(topic.path, pa.array(bodies)) == [(1, "TOO_LARGE"), (3, "TOO_LARGE")]
    assert sorted(len(m.data) for m in drain(topic.subscription, 2)) == [1, 9_999_000]


def test_a_missing_topic_teaches_how_to_make_it(topic: Any) -> None:
    with pytest.raises(JobError, match="campaigns topic create pubsub:projects/project-1/topics/missing"):
        published("projects/project-1/topics/missing", any_events(1))


def test_a_restart_of_the_broker_is_survived(topic: Any, drain: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The emulator forgets its topics, so the first wait for it starts another one and makes them again."""
    port, uri = free_port(), TopicUri("project-1", "events")
    monkeypatch.setenv("PUBSUB_EMULATOR_HOST", f"127.0.0.1:{port}")
    before, during = any_events(10), any_events(COUNT)
    running = pubsub_emulator(port)
    running.__enter__()
    restarts = 0

    def restart(seconds: float) -> None:
        nonlocal running, restarts
        if not restarts:
            restarts, running = 1, pubsub_emulator(port)
            running.__enter__()
            create_topic(uri, subscription="rebatch")

    try:
        create_topic(uri)
        with PubsubPublisher(uri.path, in_flight=1, sleep=restart, deadline_s=60.0) as sink:
            sink.submit(publish_requests(uri.path, pubsub_messages(before, {})).requests)
            assert sink.settle() == []
            running.__exit__(None, None, None)
            sink.submit(publish_requests(uri.path, pubsub_messages(during, {})).requests)
            assert sink.settle() == []
        assert restarts == 1
        got = drain("projects/project-1/subscriptions/rebatch", COUNT)
        assert Counter(m.data for m in got) == Counter(during.to_pylist())
    finally:
        running.__exit__(None, None, None)


def test_a_broker_that_stays_away_ends_in_an_error_after_the_deadline(
    topic: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PUBSUB_EMULATOR_HOST", f"127.0.0.1:{free_port()}")
    with pytest.raises(JobError, match=r"Nothing could be published .*UNAVAILABLE.* same command again"):
        published(topic.path, any_events(10), deadline_s=1.0)
