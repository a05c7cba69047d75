"""Messages in Confluent's frame: the registry says which version of a type an id is."""

from __future__ import annotations

import json
from typing import Any

from support.raw_events import NOW, TYPES, any_event, body_of
from support.registry_server import running_registry

from connectors.kafka.client import KafkaClient
from connectors.kafka.schema_registry import SchemaRegistry
from connectors.uri import source_uri, store_uri
from pipelines.collect.factories import make_types
from pipelines.collect.options import CollectConfig
from schemas.events.framing import frame
from schemas.transport import Envelope
from transforms.collect.decode_events import decode_events


def test_the_frame_of_a_registry_becomes_the_stores_own_and_an_unknown_id_is_kept_as_it_came() -> None:
    body = body_of(TYPES["order_line"], any_event("order_line", version=1))
    with running_registry() as registry:
        number = registry.add("orders-value", {"schema": json.dumps(_written("order_line", 1))})
        client = KafkaClient(registry=registry.url)
        store, source = store_uri("kafka:localhost:1/events"), source_uri("kafka:localhost:1/raw")
        config = CollectConfig((source,), store, "out", kafka=client)
        framed, unknown = b"\0" + number.to_bytes(4, "big") + body, b"\0\0\0\0\7" + body
        reader = SchemaRegistry(registry.url)
        envelopes = [reader.unframe(Envelope("0:0", {}, one, NOW)) for one in (framed, unknown)]
        decoded = decode_events(envelopes, NOW, make_types(config))
    assert [event.body for event in decoded.events] == [frame(TYPES["order_line"], 1) + body]
    assert [(one.type, one.letter.reason, one.letter.data) for one in decoded.quarantined] == [
        ("_unknown", "unknown_version", unknown)
    ]


def _written(name: str, version: int) -> Any:
    """A schema as a producer registers it."""
    hidden = ("__fastavro_parsed__", "__named_schemas")
    return {key: value for key, value in TYPES[name].versions[version].items() if key not in hidden}
