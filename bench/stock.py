"""The launch as Beam's documentation writes it: a dict a customer, a ParDo a step, WriteToPubSub.

    python -m bench.stock CUSTOMERS TOPIC LEAST_SPEND

It does less than ours (no holdouts, suppression, survey or exposures), which is in its favour.
"""

from __future__ import annotations

import hashlib
import io
import json
import sys
import time
from collections.abc import Iterator
from typing import Any

import apache_beam as beam
import fastavro
from apache_beam.io.gcp.pubsub import PubsubMessage, WriteToPubSub
from apache_beam.options.pipeline_options import PipelineOptions

from schemas.contracts import fingerprint, schema
from transforms.experiments.assignment import bucket, bucket_ranges, choose

FNAPI = "--runner=apache_beam.runners.portability.fn_api_runner.FnApiRunner"
Row = dict[str, Any]


def matches(row: Row, least: float) -> bool:
    return (
        row["retailer_id"] != "marketplace" and (row["spend_90d"] or 0) >= least and (row["recency_days"] or 999) <= 365
    )


class Assign(beam.DoFn):
    def process(self, row: Row) -> Iterator[Row]:
        at = bucket("growthbook/2", "bench-split", row["customer_id"])
        variant = choose(bucket_ranges(2, 1.0, [0.5, 0.5]), at)
        yield {**row, "bucket": at, "variant": ("control", "code")[variant]}


class Offer(beam.DoFn):
    def process(self, row: Row) -> Iterator[Row]:
        code = hashlib.sha256(f"secret|{row['customer_id']}".encode()).hexdigest()[:12].upper()
        yield {**row, "code": code if row["variant"] == "code" else None}


class Encode(beam.DoFn):
    def setup(self) -> None:
        self._schema = fastavro.parse_schema(schema("campaign_event"))
        self._fingerprint = fingerprint("campaign_event")

    def process(self, row: Row) -> Iterator[PubsubMessage]:
        ids = f"bench\x1fone\x1f{row['retailer_id']}\x1f{row['customer_id']}"
        event_id = hashlib.sha256(ids.encode()).hexdigest()[:32]
        offer = {"id": "five", "kind": "unique_code", "code": row["code"], "value": "5.00", "currency": "USD"}
        event = {
            "event_id": event_id, "launch_id": "bench", "campaign_id": "one", "campaign_version": "1",
            "surface": "storefront", "retailer_id": row["retailer_id"], "customer_id": row["customer_id"],
            "recipient": row["email"] or "", "channel": "email",
            "experiment": {"key": "bench-split", "variant": row["variant"], "bucket": row["bucket"], "scheme": "growthbook/2"},
            "offers": [offer] if row["code"] else [], "template": "plain",
            "properties": {"name": row["first_name"], "spend": row["spend_90d"]},
            "deliver_after": 0, "expires_at": None, "emitted_at": 0, "trace": "bench",
        }  # fmt: skip
        body = io.BytesIO()
        fastavro.schemaless_writer(body, self._schema, event)
        attributes = {"event_id": event_id, "retailer_id": row["retailer_id"], "campaign_id": "one",
                      "launch_id": "bench", "schema": self._fingerprint}  # fmt: skip
        yield PubsubMessage(body.getvalue(), attributes)


def run(customers: str, topic: str, least: float) -> dict[str, float]:
    """Seconds and events of the stock launch over a Parquet file."""
    started = time.perf_counter()
    p = beam.Pipeline(options=PipelineOptions([FNAPI]))
    messages = (
        p
        | "Read" >> beam.io.ReadFromParquet(customers)
        | "Match" >> beam.Filter(matches, least)
        | "Assign" >> beam.ParDo(Assign())
        | "Offer" >> beam.ParDo(Offer())
        | "Encode" >> beam.ParDo(Encode())
    )
    counter = beam.metrics.Metrics.counter("bench", "events")
    _ = (
        messages
        | "Count" >> beam.Map(lambda message: (counter.inc(), message)[1])
        | "Publish" >> WriteToPubSub(topic, with_attributes=True)
    )
    result = p.run()
    result.wait_until_finish()
    seconds = time.perf_counter() - started
    found = result.metrics().query(beam.metrics.MetricsFilter().with_name("events"))["counters"]
    return {"seconds": seconds, "events": found[0].committed}


if __name__ == "__main__":
    print(json.dumps(run(sys.argv[1], sys.argv[2], float(sys.argv[3]))))
