"""Sinks of a launch's events: a file for each batch, or the messages of a Pub/Sub topic."""

from __future__ import annotations

from typing import Any

from connectors.files.sink import FileSink
from connectors.pubsub.publish_requests import Refused, publish_requests, pubsub_messages
from connectors.pubsub.publisher import PubsubPublisher
from schemas.contracts import schema
from schemas.elements import EventBatch, Refusal

_REASONS = {"TOO_LARGE": "over_size", "ATTRIBUTE_TOO_LONG": "over_size"}


def event_file(launch_id: str, batch: str) -> str:
    """The name of the Avro file that holds a batch's events."""
    return f"{launch_id}-{batch}"


def event_path(directory: str, launch_id: str, batch: str) -> str:
    """The path of that file, local or gs://."""
    return f"{directory.rstrip('/')}/{event_file(launch_id, batch)}.avro"


class FileEvents:
    """Writes each batch as one Avro container file; a batch without events gives a file without records."""

    def __init__(self, directory: str) -> None:
        self._sink = FileSink(directory)

    def open(self) -> None:
        """Nothing to open: a file is written as a whole."""

    def send(self, events: EventBatch) -> None:
        """Write the batch's file. Raises JobError when the disk refuses."""
        name = event_file(events.attributes["launch_id"], events.batch.name)
        self._sink.write(name, schema("campaign_event"), events.bodies)

    def settle(self) -> list[Refusal]:
        """Files refuse nothing."""
        return []

    def close(self) -> None:
        """Nothing to close."""


class PubsubEvents:
    """Publishes each event as one message of a topic."""

    def __init__(self, topic: str, **publisher: Any) -> None:
        self._topic = topic
        self._publisher = PubsubPublisher(topic, **publisher)
        self._refused: list[Refused] = []

    def open(self) -> None:
        """Connect."""
        self._publisher.open()

    def send(self, events: EventBatch) -> None:
        """Start publishing the batch. Raises JobError when an earlier batch could not be published."""
        messages = pubsub_messages(events.bodies, events.attributes)
        requests = publish_requests(self._topic, messages)
        self._refused += [*messages.refused, *requests.refused]
        self._publisher.submit(requests.requests)

    def settle(self) -> list[Refusal]:
        """Wait until all events are published or refused; the refused ones."""
        refused, self._refused = [*self._refused, *self._publisher.settle()], []
        return [Refusal(row, _REASONS.get(code, "refused_by_broker"), detail) for row, code, detail in refused]

    def close(self) -> None:
        """Disconnect."""
        self._publisher.close()
