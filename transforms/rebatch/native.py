"""ReadNativePubsub: Dataflow's own Pub/Sub source, its messages gathered into lists as a poll would bring them."""

from __future__ import annotations

from typing import Any

import apache_beam as beam
from apache_beam.io.gcp.pubsub import PubsubMessage, ReadFromPubSub

from schemas.transport import Envelope
from transforms.rebatch.elements import Envelopes


def to_envelope(message: PubsubMessage) -> Envelope:
    """What a message of Dataflow's source holds."""
    published = int(message.publish_time.timestamp() * 1000) if message.publish_time else 0
    return Envelope(message.message_id or "", dict(message.attributes or {}), message.data or b"", published)


class ReadNativePubsub(beam.PTransform):
    """Envelopes of a subscription, in lists of up to 1,000: as many as a bundle brings."""

    def __init__(self, subscription: str) -> None:
        super().__init__()
        self._subscription = subscription

    def expand(self, begin: Any) -> beam.PCollection[Envelopes]:
        return (
            begin
            | "Messages" >> ReadFromPubSub(subscription=self._subscription, with_attributes=True)
            | "Lists" >> beam.BatchElements(min_batch_size=1_000, max_batch_size=1_000)
            | "Envelopes"
            >> beam.Map(lambda some: Envelopes([to_envelope(one) for one in some])).with_output_types(Envelopes)
        )
