"""Messages of a Pub/Sub subscription, given again from a time on, and messages published again to a topic."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

import pyarrow as pa
from google.api_core.exceptions import GoogleAPICallError
from google.pubsub_v1 import SubscriberClient
from google.pubsub_v1.services.subscriber.transports import SubscriberGrpcTransport

from connectors.pubsub.publish_requests import publish_requests, pubsub_messages
from connectors.pubsub.publisher import PubsubPublisher, open_channel
from connectors.replay import Message, group_messages
from connectors.uri import SubscriptionUri
from schemas.problems import JobError


def seek(uri: SubscriptionUri, since: int) -> None:
    """Set a subscription back to a time (epoch ms). Raises JobError, also when it keeps no acknowledged messages."""
    with open_channel() as channel:
        client = SubscriberClient(transport=SubscriberGrpcTransport(channel=channel))
        try:
            current = client.get_subscription(subscription=uri.path)
            if not current.retain_acked_messages and not current.topic_message_retention_duration:
                keep = f"gcloud pubsub subscriptions update {uri.name} --retain-acked-messages"
                happened = f"{uri} keeps no message that was acknowledged, so none can be read again"
                raise JobError(happened, f"For the next time: `{keep}`")
            client.seek(request={"subscription": uri.path, "time": datetime.fromtimestamp(since / 1000, UTC)})
        except GoogleAPICallError as error:
            happened = f"{uri} could not be set back ({type(error).__name__}: {error.message})"
            raise JobError(happened, "Check its name, and give this account roles/pubsub.editor on it") from error


def publish(publisher: PubsubPublisher, topic: str, messages: Sequence[Message]) -> int:
    """Publish messages; how many were accepted."""
    refused = 0
    for names, group in group_messages(messages, lambda attributes: tuple(sorted(attributes))).items():
        columns = {name: pa.array([attributes[name] for _, attributes in group]) for name in names}
        encoded = pubsub_messages(pa.array([body for body, _ in group], pa.large_binary()), columns)
        requests = publish_requests(topic, encoded)
        refused += len(encoded.refused) + len(requests.refused)
        publisher.submit(requests.requests)
    return len(messages) - refused - len(publisher.settle())
