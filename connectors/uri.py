"""URIs of transports: `file:DIR`, `pubsub:projects/P/topics/T` or `…/subscriptions/S`, and `kafka:HOST:PORT/TOPIC`.

A URI says as data what its transport can do. Only connectors/ tells the classes apart, most of it in open.py.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import ClassVar, TypeAlias

FORMS = "file:DIR, pubsub:projects/P/topics/T, pubsub:projects/P/subscriptions/S or kafka:HOST:PORT[,…]/TOPIC"
_PROJECT = re.compile(r"([a-z0-9.-]+:)?[a-z][a-z0-9-]{4,28}[a-z0-9]")
_RESOURCE = re.compile(r"(?!goog)[A-Za-z][A-Za-z0-9._~%+-]{2,254}")
_BROKER = re.compile(r"[^\s:,/]+:\d{1,5}")
_KAFKA_TOPIC = re.compile(r"(?!\.{1,2}$)[A-Za-z0-9._-]{1,249}")


class UriError(ValueError):
    """A URI of a transport or ledger that is wrong, or of the wrong kind; the message says how to write it."""


class Transport:
    """What every transport's URI says of it."""

    has_partitions: ClassVar[bool] = False
    """It has numbered partitions, which an engine reads from an offset on, and groups of readers."""

    @property
    def folder(self) -> str | None:
        """The folder, local or gs://, if its events are files. They stay after they are read; a broker's do not."""
        return None

    @property
    def subscription_path(self) -> str | None:
        """The path of a Pub/Sub subscription, which leases each message to one reader at a time."""
        return None


@dataclass(frozen=True)
class FileUri(Transport):
    """A folder of Avro container files, local or gs://."""

    directory: str

    @property
    def folder(self) -> str:
        """The directory."""
        return self.directory

    def of_type(self, event_type: str) -> FileUri:
        """The log of a type of event in this event store."""
        return FileUri(f"{self.directory.rstrip('/')}/{event_type}")

    def __str__(self) -> str:
        return f"file:{self.directory}"


@dataclass(frozen=True)
class _PubsubUri(Transport):
    kind: ClassVar[str]
    project: str
    name: str

    @property
    def path(self) -> str:
        """Its name in Pub/Sub's API."""
        return f"projects/{self.project}/{self.kind}/{self.name}"

    def __str__(self) -> str:
        return f"pubsub:{self.path}"


class TopicUri(_PubsubUri):
    """A Pub/Sub topic: a sink only."""

    kind = "topics"


class SubscriptionUri(_PubsubUri):
    """A Pub/Sub subscription: a source only."""

    kind = "subscriptions"

    @property
    def subscription_path(self) -> str:
        """The same path."""
        return self.path


@dataclass(frozen=True)
class KafkaUri(Transport):
    """A Kafka topic and the brokers to ask first (HOST:PORT)."""

    has_partitions = True
    brokers: tuple[str, ...]
    topic: str

    def of_type(self, event_type: str) -> KafkaUri:
        """The topic of a type of event in the event store of which this topic's name is the prefix."""
        return KafkaUri(self.brokers, f"{self.topic}.{event_type}")

    def __str__(self) -> str:
        return f"kafka:{','.join(self.brokers)}/{self.topic}"


TransportUri: TypeAlias = FileUri | TopicUri | SubscriptionUri | KafkaUri
BrokerTopicUri: TypeAlias = TopicUri | KafkaUri
SinkUri: TypeAlias = FileUri | TopicUri | KafkaUri
StoreUri: TypeAlias = FileUri | KafkaUri
SourceUri: TypeAlias = FileUri | SubscriptionUri | KafkaUri


def parse_uri(text: str) -> TransportUri:
    """Read a URI. Raises UriError with the part that is wrong and how to write it."""
    scheme, colon, rest = text.partition(":")
    if not colon or scheme not in _READERS:
        raise UriError(f"{text!r} names no transport; write {FORMS}")
    return _READERS[scheme](text, rest)


def sink_uri(text: str) -> SinkUri:
    """Read the URI of a sink. Raises UriError for a transport that can only be read."""
    uri = parse_uri(text)
    if isinstance(uri, SubscriptionUri):
        fix = "publish to file:DIR, pubsub:projects/P/topics/T or kafka:HOST:PORT/TOPIC"
        raise UriError(f"{text!r} is a subscription, which can only be read; {fix}")
    return uri


def source_uri(text: str) -> SourceUri:
    """Read the URI of a source. Raises UriError for a transport that can only be written."""
    uri = parse_uri(text)
    if isinstance(uri, TopicUri):
        fix = "name a subscription to it, pubsub:projects/P/subscriptions/S"
        raise UriError(f"{text!r} is a topic, which cannot be read; {fix}")
    return uri


def store_uri(text: str) -> StoreUri:
    """Read the URI of an event store: a local folder, or the prefix of topics. Raises UriError for any other."""
    uri = parse_uri(text)
    if isinstance(uri, TopicUri | SubscriptionUri) or (isinstance(uri, FileUri) and "://" in uri.directory):
        raise UriError(f"{text!r} is no event store; give file:DIR on this machine, or kafka:HOST:PORT/PREFIX")
    return uri


def topic_uri(text: str) -> BrokerTopicUri:
    """Read the URI of a topic. Raises UriError for any other transport."""
    uri = parse_uri(text)
    if isinstance(uri, FileUri | SubscriptionUri):
        raise UriError(f"{text!r} is no topic; give pubsub:projects/P/topics/T or kafka:HOST:PORT/TOPIC")
    return uri


def _file(text: str, rest: str) -> FileUri:
    directory = "/" + rest.lstrip("/") if rest.startswith("//") else rest
    if not directory.strip("/"):
        fix = "write file:DIR, for instance file:out/events or file:gs://bucket/events"
        raise UriError(f"{text!r} names no folder; {fix}")
    return FileUri(directory)


def _pubsub(text: str, rest: str) -> TopicUri | SubscriptionUri:
    parts = rest.split("/")
    if len(parts) != 4 or parts[0] != "projects" or parts[2] not in ("topics", "subscriptions"):
        raise UriError(f"{text!r}: write pubsub:projects/P/topics/T or pubsub:projects/P/subscriptions/S")
    if not _PROJECT.fullmatch(parts[1]):
        raise UriError(f"{text!r}: {parts[1]!r} is no project id (6 to 30 lower-case letters, digits and hyphens)")
    if not _RESOURCE.fullmatch(parts[3]):
        rule = "3 to 255 characters, a letter first, not goog…"
        raise UriError(f"{text!r}: {parts[3]!r} is no name Pub/Sub takes ({rule})")
    return TopicUri(parts[1], parts[3]) if parts[2] == "topics" else SubscriptionUri(parts[1], parts[3])


def _kafka(text: str, rest: str) -> KafkaUri:
    brokers, _, topic = rest.partition("/")
    wrong = [broker for broker in brokers.split(",") if not _BROKER.fullmatch(broker)]
    if wrong:
        raise UriError(f"{text!r}: {wrong[0]!r} is no broker; write kafka:HOST:PORT[,HOST:PORT…]/TOPIC")
    if not _KAFKA_TOPIC.fullmatch(topic):
        raise UriError(f"{text!r}: {topic!r} is no topic's name; write kafka:HOST:PORT[,HOST:PORT…]/TOPIC")
    return KafkaUri(tuple(brokers.split(",")), topic)


_READERS = {"file": _file, "pubsub": _pubsub, "kafka": _kafka}
