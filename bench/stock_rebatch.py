"""Rebatch as Beam's documentation writes it for one machine: ReadFromPubSub, a state cell for each event id,
GroupIntoBatches, one HTTP call a batch. `python -m bench.stock_rebatch SUBSCRIPTION URL` runs until it is killed.

It has no ledger, no pace, no receipts and acknowledges before it has processed, which is in its favour.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import Any

import apache_beam as beam
import urllib3
from apache_beam.coders import BooleanCoder
from apache_beam.io.gcp.pubsub import PubsubMessage, ReadFromPubSub
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.transforms.userstate import ReadModifyWriteStateSpec

from schemas.contracts import decode
from schemas.delivery import BATCH


class Decode(beam.DoFn):
    """(event id, event)."""

    def process(self, message: PubsubMessage) -> Iterator[Any]:
        event = decode(message.attributes["schema"], message.data)
        yield event["event_id"], event


class DropSeen(beam.DoFn):
    """(retailer, event) of the ids that were not seen."""

    SEEN = ReadModifyWriteStateSpec("seen", BooleanCoder())

    def process(self, element: Any, seen: Any = beam.DoFn.StateParam(SEEN)) -> Iterator[Any]:
        if not seen.read():
            seen.write(True)
            yield element[1]["retailer_id"], element[1]


class Send(beam.DoFn):
    """One call a batch."""

    def __init__(self, url: str) -> None:
        self._url = url

    def setup(self) -> None:
        self._http = urllib3.PoolManager()

    def process(self, element: Any) -> None:
        retailer, events = element
        recipients = [
            {"external_user_id": one["customer_id"], "trigger_properties": {"event_id": one["event_id"]}}
            for one in events
        ]
        body = json.dumps({"campaign_id": events[0]["vendor_campaign"], "recipients": recipients}).encode()
        headers = {"Authorization": "Bearer key", "Content-Type": "application/json"}
        self._http.request("POST", f"{self._url}/w/{retailer}/campaigns/trigger/send", body=body, headers=headers)


def main(subscription: str, url: str) -> None:
    """Runs until it is killed."""
    options = PipelineOptions(["--streaming", "--runner=BundleBasedDirectRunner"])
    with beam.Pipeline(options=options) as p:
        _ = (
            p
            | ReadFromPubSub(subscription=subscription, with_attributes=True)
            | beam.ParDo(Decode()).with_output_types(tuple[str, Any])
            | beam.ParDo(DropSeen()).with_output_types(tuple[str, Any])
            | beam.GroupIntoBatches(BATCH, max_buffering_duration_secs=2)
            | beam.ParDo(Send(url))
        )


if __name__ == "__main__":
    main(*sys.argv[1:])
