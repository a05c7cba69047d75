"""Creates a Pub/Sub topic with our schema, and a subscription to it."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

import grpc
from google.api_core.exceptions import AlreadyExists, GoogleAPICallError, NotFound
from google.pubsub_v1 import PublisherClient, SchemaServiceClient, SubscriberClient, types
from google.pubsub_v1.services.publisher.transports import PublisherGrpcTransport
from google.pubsub_v1.services.schema_service.transports import SchemaServiceGrpcTransport
from google.pubsub_v1.services.subscriber.transports import SubscriberGrpcTransport

from connectors.pubsub.publisher import open_channel
from connectors.uri import TopicUri
from schemas.contracts import EVENT, schema
from schemas.problems import JobError

_ACK_S = 60


class TopicSetup(NamedTuple):
    """A topic, its schema and its subscription by full name; those that are new (`created`) or updated (`changed`)."""

    topic: str
    schema: str
    subscription: str | None
    created: list[str]
    changed: list[str]


def create_topic(uri: TopicUri, schema_name: str = EVENT, subscription: str | None = None) -> TopicSetup:
    """Create the topic with our Avro schema in binary encoding, and a subscription to it if one is named.

    May be run again: existing resources stay, a schema that differs from ours gets a new revision, and a topic
    with another schema or none gets ours. Raises JobError.
    """
    channel = open_channel()
    try:
        return _Admin(channel, uri, schema_name).run(subscription)
    except GoogleAPICallError as error:
        happened = f"{uri} could not be made ({type(error).__name__}: {error.message})"
        raise JobError(happened, "Give this account roles/pubsub.editor in the project, or ask its owner") from error
    finally:
        channel.close()


class _Admin:
    def __init__(self, channel: grpc.Channel, uri: TopicUri, schema_name: str) -> None:
        self._schemas = SchemaServiceClient(transport=SchemaServiceGrpcTransport(channel=channel))
        self._topics = PublisherClient(transport=PublisherGrpcTransport(channel=channel))
        self._subscriptions = SubscriberClient(transport=SubscriberGrpcTransport(channel=channel))
        self._uri, self._schema_id, self._project = uri, schema_name, f"projects/{uri.project}"
        self._schema = f"{self._project}/schemas/{schema_name}"
        self._created: list[str] = []
        self._changed: list[str] = []

    def run(self, subscription: str | None) -> TopicSetup:
        self._make_schema()
        self._make_topic()
        path = None if subscription is None else f"{self._project}/subscriptions/{subscription}"
        if path:
            self._make_subscription(path)
        return TopicSetup(self._uri.path, self._schema, path, self._created, self._changed)

    def _make_schema(self) -> None:
        ours = schema(self._schema_id)
        wanted = types.Schema(name=self._schema, type_=types.Schema.Type.AVRO, definition=json.dumps(ours))
        try:
            current = self._schemas.get_schema(name=self._schema)
        except NotFound:
            self._schemas.create_schema(parent=self._project, schema=wanted, schema_id=self._schema_id)
            self._created.append(self._schema)
            return
        if json.loads(current.definition) != ours:
            self._schemas.commit_schema(name=self._schema, schema=wanted)
            self._changed.append(self._schema)

    def _make_topic(self) -> None:
        settings = types.SchemaSettings(schema=self._schema, encoding=types.Encoding.BINARY)
        wanted = types.Topic(name=self._uri.path, schema_settings=settings)
        try:
            self._topics.create_topic(request=wanted)
            self._created.append(self._uri.path)
        except AlreadyExists:
            current = self._topics.get_topic(topic=self._uri.path).schema_settings
            if (current.schema, current.encoding) != (self._schema, types.Encoding.BINARY):
                self._topics.update_topic(topic=wanted, update_mask={"paths": ["schema_settings"]})
                self._changed.append(self._uri.path)

    def _make_subscription(self, path: str) -> None:
        wanted: Any = types.Subscription(name=path, topic=self._uri.path, ack_deadline_seconds=_ACK_S)
        try:
            self._subscriptions.create_subscription(request=wanted)
            self._created.append(path)
        except AlreadyExists:
            pass
