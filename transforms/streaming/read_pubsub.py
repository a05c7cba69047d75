"""ReadNativePubsub: Dataflow's own Pub/Sub source, in lists as a poll of our own reader gives them."""

from __future__ import annotations

from typing import Any

import apache_beam as beam
from apache_beam.io.gcp.pubsub import PubsubMessage, ReadFromPubSub

from schemas.transport import Envelope
from transforms.streaming.elements import LIST, LIST_BYTES, Envelopes


def to_envelope(message: PubsubMessage) -> Envelope:
    """The envelope of a message of Dataflow's source."""
    published = int(message.publish_time.timestamp() * 1000) if message.publish_time else 0
    return Envelope(message.message_id or "", dict(message.attributes or {}), message.data or b"", published)


def size(message: PubsubMessage) -> float:
    """The places of a list that a message takes: one, or more if its share of the bytes is larger."""
    return min(LIST, max(1.0, LIST * len(message.data or b"") / LIST_BYTES))


class ReadNativePubsub(beam.PTransform):
    """Envelopes of a subscription, in lists of up to 1,000 messages and 4 MB of a bundle. Steps: Messages, Lists,
    Envelopes."""

    def __init__(self, subscription: str) -> None:
        super().__init__()
        self._subscription = subscription

    def expand(self, begin: Any) -> beam.PCollection[Envelopes]:
        return (
            begin
            | "Messages" >> ReadFromPubSub(subscription=self._subscription, with_attributes=True)
            | "Lists" >> beam.BatchElements(min_batch_size=LIST, max_batch_size=LIST, element_size_fn=size)
            | "Envelopes"
            >> beam.Map(lambda messages: Envelopes(list(map(to_envelope, messages)))).with_output_types(Envelopes)
        )
