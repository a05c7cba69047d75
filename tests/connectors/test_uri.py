"""Transports by URI: what is read, and what a wrong one teaches."""

from __future__ import annotations

import pytest

from connectors.uri import FileUri, KafkaUri, SubscriptionUri, TopicUri, UriError, parse_uri, sink_uri

GOOD = [
    ("file:out/events", FileUri("out/events")),
    ("file:/abs/dir", FileUri("/abs/dir")),
    ("file:gs://bucket/events", FileUri("gs://bucket/events")),
    ("pubsub:projects/project-1/topics/events", TopicUri("project-1", "events")),
    ("pubsub:projects/acme.com:project-1/topics/a.b~c", TopicUri("acme.com:project-1", "a.b~c")),
    ("pubsub:projects/project-1/subscriptions/rebatch", SubscriptionUri("project-1", "rebatch")),
    ("kafka:localhost:9092/events", KafkaUri(("localhost:9092",), "events")),
    ("kafka:a:1,b:2/campaign.events", KafkaUri(("a:1", "b:2"), "campaign.events")),
]


@pytest.mark.parametrize(("text", "uri"), GOOD)
def test_a_uri_is_read_and_written_again(text: str, uri: object) -> None:
    assert parse_uri(text) == uri
    assert str(uri) == text


def test_a_file_url_is_a_folder_too() -> None:
    assert parse_uri("file:///abs/dir") == FileUri("/abs/dir")


def test_a_pubsub_path_is_what_google_calls_it() -> None:
    assert TopicUri("project-1", "events").path == "projects/project-1/topics/events"
    assert SubscriptionUri("project-1", "s-1").path == "projects/project-1/subscriptions/s-1"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("out/events", "names no transport; write file:DIR"),
        ("s3:bucket", "names no transport"),
        ("file:", "names no folder"),
        ("file:///", "names no folder"),
        ("pubsub:events", "write pubsub:projects/P/topics/T"),
        ("pubsub:projects/project-1/topics/a/b", "write pubsub:projects/P/topics/T"),
        ("pubsub:projects/p/topics/events", "'p' is no project id"),
        ("pubsub:projects/project-1/topics/ev", "'ev' is no name"),
        ("pubsub:projects/project-1/topics/google-events", "'google-events' is no name"),
        ("kafka:localhost/events", "'localhost' is no broker"),
        ("kafka:localhost:9092", "'' is no topic's name"),
        ("kafka:user:secret@localhost:9092/events", "is no broker"),
        ("kafka:localhost:9092/..", "'..' is no topic's name"),
    ],
)
def test_a_wrong_uri_shows_the_right_form(text: str, message: str) -> None:
    with pytest.raises(UriError, match=message):
        parse_uri(text)


def test_sinks_are_folders_and_topics() -> None:
    assert sink_uri("file:out") == FileUri("out")
    assert sink_uri("pubsub:projects/project-1/topics/events") == TopicUri("project-1", "events")
    with pytest.raises(UriError, match="can only be read"):
        sink_uri("pubsub:projects/project-1/subscriptions/rebatch")
    assert sink_uri("kafka:localhost:9092/events") == KafkaUri(("localhost:9092",), "events")
