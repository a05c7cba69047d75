"""Events, a campaigns' folder and a running job, for the certificate and the benchmarks of rebatch."""

from __future__ import annotations

import io
import os
import random
import secrets
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import fastavro
import psutil
import pyarrow as pa
import yaml
from google.pubsub_v1 import PublisherClient, SubscriberClient
from google.pubsub_v1.services.publisher.transports import PublisherGrpcTransport
from google.pubsub_v1.services.subscriber.transports import SubscriberGrpcTransport

from connectors.files.sink import FileSink
from connectors.kafka.client import KafkaClient, create_topic
from connectors.open import open_publisher
from connectors.pubsub.publisher import open_channel
from connectors.uri import KafkaUri, sink_uri
from schemas.contracts import EVENT, fingerprint, parsed, schema

ROOT = Path(__file__).resolve().parents[1]
ATTRIBUTES = ("event_id", "retailer_id", "campaign_id", "launch_id")
Event = dict[str, Any]


def make_event(rnd: random.Random, number: int, retailer: str, now: int, **changes: Any) -> Event:
    """A campaign event of a customer of its own, due at once, for a day."""
    return {
        "event_id": f"{rnd.getrandbits(128):032x}",
        "launch_id": "launch-1",
        "campaign_id": "spring",
        "campaign_version": "0123456789ab",
        "surface": "storefront",
        "retailer_id": retailer,
        "customer_id": f"customer-{number}",
        "recipient": f"customer-{number}@example.org",
        "channel": "email",
        "vendor_campaign": "vendor-1",
        "experiment": {"key": "subject", "variant": "ab"[number % 2], "bucket": 0.5, "scheme": "growthbook/2"},
        "offers": [
            {"id": "five", "kind": "unique_code", "code": f"CODE{number}", "value": "5.00", "currency": "USD",
             "expires_at": None}
        ],
        "template": "plain",
        "properties": {"name": "Ann"},
        "deliver_after": now - 1000,
        "expires_at": now + 86_400_000,
        "emitted_at": now,
        "trace": "launch-1/0",
        **changes,
    }  # fmt: skip


@cache
def _written() -> tuple[Any, str]:
    """The event's schema as fastavro wants it, and its fingerprint: both take a millisecond to make."""
    return parsed(schema(EVENT)), fingerprint(EVENT)


def encode(event: Event) -> bytes:
    """The Avro body of an event."""
    out = io.BytesIO()
    fastavro.schemaless_writer(out, _written()[0], event)
    return out.getvalue()


def plain_topic(name: str, ack_s: int = 600) -> tuple[str, str]:
    """(topic, subscription) of its own and without a schema, which would refuse malformed messages."""
    made = f"{name}-{secrets.token_hex(4)}"
    path, subscription = f"projects/bench-project/topics/{made}", f"projects/bench-project/subscriptions/{made}"
    with open_channel() as channel:
        PublisherClient(transport=PublisherGrpcTransport(channel=channel)).create_topic(name=path)
        client = SubscriberClient(transport=SubscriberGrpcTransport(channel=channel))
        client.create_subscription(request={"name": subscription, "topic": path, "ack_deadline_seconds": ack_s})
    return path, subscription


Wire = tuple[bytes, dict[str, str]]  # body and attributes


def on_the_wire(events: Iterable[Event]) -> list[Wire]:
    """Bodies and attributes as the launch publishes them."""
    return [(encode(one), {**{name: one[name] for name in ATTRIBUTES}, "schema": _written()[1]}) for one in events]


def publish(topic: str, messages: Sequence[Wire]) -> None:
    """Publishes messages to a Pub/Sub topic."""
    publish_to(f"pubsub:{topic}", messages)


def publish_to(uri: str, messages: Sequence[Wire]) -> None:
    """Publishes messages to a topic, of Pub/Sub or of Kafka, as the launch does."""
    with open_publisher(sink_uri(uri), KafkaClient()) as put:
        accepted = put(messages)
    if accepted < len(messages):
        raise RuntimeError(f"{len(messages) - accepted} messages were not published to {uri}")


def publish_live(uri: str, per_second: dict[str, float], seconds: float) -> Iterator[tuple[float, list[Event]]]:
    """Publishes so many events a second of each retailer, ten times a second; (seconds since the start, those)."""
    rnd, number, due = random.Random(7), 0, dict.fromkeys(per_second, 0.0)
    with open_publisher(sink_uri(uri), KafkaClient()) as put:
        started = time.monotonic()
        while (at := time.monotonic() - started) < seconds:
            now, some = int(time.time() * 1000), list[Event]()
            for retailer, rate in per_second.items():
                while due[retailer] <= at:
                    due[retailer] += rnd.expovariate(rate)
                    number += 1
                    some.append(make_event(rnd, number, retailer, now))
            put(on_the_wire(some))
            yield at, some
            time.sleep(max(0.0, 0.1 - (time.monotonic() - started - at)))


def kafka_topic(host: str, name: str, partitions: int = 4) -> str:
    """The URI of a topic of its own."""
    uri = KafkaUri((host,), f"{name}-{secrets.token_hex(4)}")
    create_topic(uri, KafkaClient(), partitions=partitions, replicas=1)
    return str(uri)


def fresh_topic(transport: str, name: str, kafka_host: str) -> tuple[str, str]:
    """(where to publish to, where to read from), as URIs, of a topic of its own in `pubsub` or `kafka`."""
    if transport == "kafka":
        uri = kafka_topic(kafka_host, name)
        return uri, uri
    topic, subscription = plain_topic(name)
    return f"pubsub:{topic}", f"pubsub:{subscription}"


def write_file(folder: Path, part: str, bodies: Sequence[bytes]) -> None:
    """A finished file of events in a folder."""
    FileSink(str(folder)).write(part, schema(EVENT), pa.array(bodies, pa.large_binary()))


def write_campaigns(folder: Path, url: str, delivery: dict[str, Any], workspaces: dict[str, Any] | None = None) -> Path:
    """A campaigns' folder whose engine.yaml delivers to a sandbox. Written whole: a running job may read it."""
    folder.mkdir(parents=True, exist_ok=True)
    own = workspaces or {}
    common = {"url": f"{url}/w/{{retailer}}", "key_env": "SANDBOX_KEY", "shared_account": "sandbox"}
    engine = {
        "channels": {"email": {"address": "email"}},
        "delivery": {"vendor": "braze", **delivery},
        "workspaces": {**own, "*": {**common, **own.get("*", {})}},
    }
    campaign = {"id": "spring", "surface": "storefront", "channel": "email", "content": {"template": "plain"}}
    campaign["audience"] = {"all": ["true"]}
    for name, data in (("engine.yaml", engine), ("spring.yaml", campaign)):
        new = folder / f".{name}.new"
        new.write_text(yaml.safe_dump(data))
        new.replace(folder / name)
    return folder


def start_rebatch(campaigns: Path, events: str, output: Path, *more: str, log: Path) -> subprocess.Popen[bytes]:
    """A job in a process group of its own, as a person starts it; it writes to a log."""
    command = [sys.executable, "-m", "pipelines.rebatch", f"--campaigns={campaigns}", f"--events={events}"]
    with log.open("ab") as out:
        return subprocess.Popen(
            [*command, f"--output={output}", *more],
            cwd=ROOT,
            env={**os.environ, "SANDBOX_KEY": "key"},
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def kill(job: subprocess.Popen[bytes]) -> bool:
    """Ends the job with -9; whether it still ran. What it had started must end by itself: raises RuntimeError when a
    minute later something is left."""
    if job.poll() is not None:
        return False
    children = psutil.Process(job.pid).children(recursive=True)
    job.kill()
    job.wait()
    _, left = psutil.wait_procs(children, timeout=60)
    if left:
        raise RuntimeError(f"the job was killed and left {[child.cmdline() for child in left]}")
    return True


def wait(job: subprocess.Popen[bytes], seconds: float) -> int | None:
    """The exit code, or None if it still runs after so many seconds."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if job.poll() is not None:
            return job.returncode
        time.sleep(0.1)
    return None
