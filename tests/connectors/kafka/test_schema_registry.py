"""The client of a schema registry, against a small one that really runs."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from support.registry_server import Registry, running_registry
from support.wire_events import any_envelope

from connectors.kafka.schema_registry import SchemaRegistry
from schemas.contracts import fingerprint, released, schema
from schemas.problems import JobError

MARK = fingerprint("campaign_event")
ONE = any_envelope(1)


@pytest.fixture
def registry() -> Iterator[Registry]:
    with running_registry() as made:
        yield made


def client(registry: Registry) -> SchemaRegistry:
    return SchemaRegistry(registry.url, sleep=lambda _: None)


def framed(number: int, body: bytes = ONE.body) -> bytes:
    return b"\0" + number.to_bytes(4, "big") + body


def test_our_schema_is_registered_once_under_the_topics_subject_and_its_id_frames_bodies(registry: Registry) -> None:
    made = client(registry)
    frames = {made.frame("campaign.events", MARK) for _ in range(3)}
    (number,) = registry.subjects["campaign.events-value"]
    assert frames == {framed(number, b"")}
    assert json.loads(registry.schemas[number]["schema"]) == schema("campaign_event")
    assert registry.calls == ["POST /subjects/campaign.events-value/versions"]


def test_a_frame_is_taken_off_and_its_id_becomes_the_fingerprint(registry: Registry) -> None:
    number = registry.add("t-value", {"schema": json.dumps(released()[0])})
    made = client(registry)
    bare = ONE._replace(attributes={"event_id": "e-1"}, body=framed(number))
    for _ in range(3):
        got = made.unframe(bare)
        assert got == ONE._replace(attributes={"event_id": "e-1", "schema": fingerprint(released()[0])})
    assert len(registry.calls) == 1


def test_a_message_without_a_frame_stays_as_it_is_and_nobody_is_asked(registry: Registry) -> None:
    made = client(registry)
    for body in (ONE.body, b"", b"\0\0\0"):
        assert made.unframe(ONE._replace(body=body)) == ONE._replace(body=body)
    assert registry.calls == []


@pytest.mark.parametrize(
    "known",
    [
        None,
        {"schema": json.dumps({"type": "record", "name": "other", "fields": []})},
        {"schema": '{"type": "record"}'},
        {"schema": "no json"},
        {"schemaType": "PROTOBUF", "schema": 'syntax = "proto3";'},
        {"schema": '"string"'},
    ],
    ids=["unknown", "another record", "no Avro", "no JSON", "protobuf", "a plain type"],
)
def test_a_schema_that_is_none_of_ours_leaves_the_bytes_as_they_are(
    known: dict[str, str] | None, registry: Registry
) -> None:
    number = registry.add("t-value", known) if known else 7
    got = client(registry).unframe(ONE._replace(body=framed(number)))
    assert got.body == framed(number)
    assert got.attributes["schema"] == f"registry-{number}"


def test_a_registry_that_is_busy_is_asked_again_and_one_that_stays_so_is_reported(registry: Registry) -> None:
    registry.first = [503, 429, 500]
    assert len(client(registry).frame("t", MARK)) == 5
    registry.first = [503] * 5
    with pytest.raises(JobError, match=r"503.*not now"):
        client(registry).frame("t", MARK)
    registry.first = [409]
    with pytest.raises(JobError, match="409"):
        client(registry).frame("t", MARK)
    with pytest.raises(JobError, match="Check --schema_registry"):
        SchemaRegistry("http://127.0.0.1:9", sleep=lambda _: None).unframe(ONE._replace(body=framed(1)))


def test_a_password_comes_from_the_environment_and_is_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    with running_registry("ann:secret-1") as registry:
        monkeypatch.setenv("CAMPAIGNS_REGISTRY_USER", "ann")
        monkeypatch.setenv("CAMPAIGNS_REGISTRY_PASSWORD", "secret-1")
        assert len(client(registry).frame("t", MARK)) == 5
        monkeypatch.setenv("CAMPAIGNS_REGISTRY_PASSWORD", "secret-2")
        with pytest.raises(JobError, match="401") as expected:
            client(registry).frame("t", MARK)
        assert "secret" not in str(expected.value)
