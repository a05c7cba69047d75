"""Registries are asked for the schemas of messages: once for each, and again later for what they did not have."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from uuid import UUID

import grpc
import pytest
from google.pubsub_v1.types import GetSchemaRequest, Schema
from support.raw_events import TYPES, any_event, body_of
from support.registry_server import Registry, running_registry

from connectors.kafka.schema_registry import SchemaRegistry
from connectors.schema_versions import RemoteVersions, versions_by_guid, versions_by_id, versions_by_revision
from schemas.events.framing import Framed, Framing, SchemaVersion
from schemas.problems import JobError
from schemas.transport import Envelope

SCAN = SchemaVersion("item_scan", 1)
WRITTEN = json.dumps({**TYPES["item_scan"].versions[1], "doc": "as the registry has it"})
GUID = UUID("89791762-2336-4186-9674-299b90a802e2")


@pytest.fixture
def registry() -> Iterator[Registry]:
    with running_registry() as made:
        yield made


def test_ids_and_guids_of_a_confluent_registry_are_versions_of_ours(registry: Registry) -> None:
    number = registry.add("scans-value", {"schema": WRITTEN})
    registry.guids[str(GUID)] = {"schema": WRITTEN}
    client = SchemaRegistry(registry.url, sleep=lambda _: None)
    framing = Framing(TYPES, versions_by_id(client, TYPES), versions_by_guid(client, TYPES))
    body = body_of(TYPES["item_scan"], any_event("item_scan"))
    for _ in range(3):
        assert framing.read(Envelope("", {}, b"\0" + number.to_bytes(4, "big") + body, 0)) == Framed(SCAN, body)
        assert framing.read(Envelope("", {}, b"\1" + GUID.bytes + body, 0)) == Framed(SCAN, body)
    assert registry.calls == [f"GET /schemas/ids/{number}", f"GET /schemas/guids/{GUID}"]
    unknown = framing.read(Envelope("", {}, b"\0\0\0\0\7" + body, 0))
    assert unknown.problem == "no version has the schema id 7"


@pytest.mark.parametrize(
    "schema", [None, "", "{", '"string"', '{"type": "record"}', '{"type": "record", "name": "x", "fields": []}']
)
def test_what_is_no_version_is_asked_for_again_after_a_minute(schema: str | None) -> None:
    now, asked, answers = [0.0], list[str](), {"a": schema}

    def read_schema(key: str) -> str | None:
        asked.append(key)
        return answers[key]

    versions = RemoteVersions(TYPES, read_schema, lambda: now[0])
    assert [versions.get("a") for _ in range(3)] == [None] * 3
    assert asked == ["a"]
    answers["a"] = WRITTEN
    now[0] = 59
    assert versions.get("a") is None
    now[0] = 60
    assert versions.get("a") == SCAN
    now[0] = 10_000
    assert versions.get("a") == SCAN
    assert asked == ["a", "a"]


def test_any_number_of_unknown_keys_is_forgotten() -> None:
    versions = RemoteVersions[int](TYPES, lambda _: None)
    assert {versions.get(number) for number in range(25_000)} == {None}
    assert len(versions._missing) <= 10_000


def test_a_registry_that_does_not_answer_stops_the_job() -> None:
    client = SchemaRegistry("http://127.0.0.1:9", sleep=lambda _: None)
    with pytest.raises(JobError, match="schema registry"):
        versions_by_id(client, TYPES).get(1)


@pytest.fixture
def schema_service(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    """The definitions of Pub/Sub's schemas by name and revision, in a server that speaks GetSchema."""
    held: dict[str, str] = {}

    def get_schema(request: GetSchemaRequest, context: grpc.ServicerContext) -> Schema:
        if request.name not in held:
            context.abort(grpc.StatusCode.NOT_FOUND, "no such revision")
        if held[request.name] == "denied":
            context.abort(grpc.StatusCode.PERMISSION_DENIED, "not for you")
        return Schema(name=request.name, definition=held[request.name])

    handler = grpc.unary_unary_rpc_method_handler(get_schema, GetSchemaRequest.deserialize, Schema.serialize)
    server = grpc.server(ThreadPoolExecutor(2))
    handlers = grpc.method_handlers_generic_handler("google.pubsub.v1.SchemaService", {"GetSchema": handler})
    server.add_generic_rpc_handlers((handlers,))
    monkeypatch.setenv("PUBSUB_EMULATOR_HOST", f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}")
    server.start()
    yield held
    server.stop(None)


def test_revisions_of_pubsub_are_versions_of_ours(schema_service: dict[str, str]) -> None:
    schema_service["projects/p/schemas/scans@0a1b2c3d"] = WRITTEN
    schema_service["projects/other/schemas/scans@0a1b2c3d"] = "denied"
    framing = Framing(TYPES, revisions=versions_by_revision(TYPES))
    body = body_of(TYPES["item_scan"], any_event("item_scan"))

    def read(name: str, revision: str) -> Framed:
        attributes = {"googclient_schemaname": name, "googclient_schemarevisionid": revision}
        return framing.read(Envelope("", {**attributes, "googclient_schemaencoding": "BINARY"}, body, 0))

    assert read("projects/p/schemas/scans", "0a1b2c3d") == Framed(SCAN, body)
    assert "projects/p/schemas/scans@ffffffff" in read("projects/p/schemas/scans", "ffffffff").problem
    with pytest.raises(JobError, match="PermissionDenied"):
        read("projects/other/schemas/scans", "0a1b2c3d")
