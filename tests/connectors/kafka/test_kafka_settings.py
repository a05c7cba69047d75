"""The options of Kafka and its properties file: read, or refused with what to do, and no secret is shown."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest
from apache_beam.options.pipeline_options import PipelineOptions
from confluent_kafka import Producer

from connectors.kafka.client import KafkaClient, KafkaErrors, open_client, read_properties
from connectors.kafka.consumer import Start
from connectors.kafka.options import KafkaOptions, read_client, read_start, read_time
from connectors.uri import KafkaUri
from schemas.problems import JobError, Problem

URI = KafkaUri(("a:1", "b:2"), "t")


def options(*argv: str) -> Any:
    return PipelineOptions(list(argv)).view_as(KafkaOptions)


def text_of(problems: list[Problem]) -> str:
    return "\n".join(map(str, problems))


def test_properties_are_read_and_filled_from_the_environment_only_where_a_client_is_made(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("REGION", "eu")
    monkeypatch.setenv("PASSWORD", "hush")
    text = "# TLS\nsecurity.protocol = SASL_SSL\n\nsasl.username=svc-${REGION}\nsasl.password=${PASSWORD}\n! more\nssl.ca.pem=a=b\n"
    properties, wrong = read_properties(text)
    assert wrong == []
    client = KafkaClient(properties)
    assert b"hush" not in pickle.dumps(client)
    made = client.config(URI, KafkaErrors(), {"group.id": "g"})
    assert {name: made[name] for name in ("bootstrap.servers", "sasl.username", "sasl.password", "ssl.ca.pem", "group.id")} == {
        "bootstrap.servers": "a:1,b:2", "sasl.username": "svc-eu", "sasl.password": "hush", "ssl.ca.pem": "a=b", "group.id": "g",
    }  # fmt: skip
    monkeypatch.delenv("PASSWORD")
    with pytest.raises(JobError, match=r"sasl\.password of Kafka needs the environment variable PASSWORD"):
        client.config(URI, KafkaErrors(), {})


@pytest.mark.parametrize(
    ("line", "fix"),
    [
        ("sasl.password=hunter2", "write sasl.password=${NAME} and set NAME in the environment"),
        ("ssl.key.password=hunter2${PASSWORD}", "is a secret"),
        ("sasl.oauthbearer.client.secret=hunter2", "is a secret"),
        ("ssl.key.pem=hunter2", "is a secret"),
        ("sasl.oauthbearer.config=hunter2", "is a secret"),
        ("sasl.password=${NOT_SET}", "set the environment variable NOT_SET"),
        ("client.id=${NOT_SET}", "set the environment variable NOT_SET"),
        ("bootstrap.servers=a:1", "name the brokers in the URI"),
        ("group.id=g", "--kafka_group"),
        ("plugin.library.paths=/tmp/x.so", "no code is loaded"),
        ("enable.auto.commit=true", "take it out"),
        ("acks=0", "take it out"),
        ("sasl.password", "NAME=VALUE"),
    ],
)
def test_a_property_that_cannot_be_taken_says_what_to_do_and_shows_no_secret(line: str, fix: str) -> None:
    _, wrong = read_properties(f"client.rack=1\n{line}\n")
    assert len(wrong) == 1
    assert fix in wrong[0][2]
    assert "hunter2" not in str(wrong)


def test_a_property_that_the_client_does_not_know_is_reported() -> None:
    client = KafkaClient((("no.such.property", "1"),))
    with pytest.raises(JobError, match=r"no\.such\.property.*Correct --kafka_config"):
        open_client(Producer, client, URI, KafkaErrors(), {})


def test_the_options_are_read_together(tmp_path: Path) -> None:
    file = tmp_path / "kafka.properties"
    file.write_text("client.rack=r1\n")
    problems: list[Problem] = []
    given = options(f"--kafka_config={file}", "--schema_registry=https://registry:8081")
    assert read_client(given, problems) == KafkaClient((("client.rack", "r1"),), "https://registry:8081")
    assert read_start(given, problems) is None
    assert problems == []
    file.write_text("sasl.password=hunter2\n")
    given = options(
        f"--kafka_config={file}", "--schema_registry=http://ann:hunter2@registry", "--start=soon", "--kafka_group=a b"
    )
    read_client(given, problems)
    read_start(given, problems)
    read_client(options("--kafka_config=/nowhere", "--schema_registry=registry:8081"), problems)
    assert len(problems) == 6
    for name in ("sasl.password", "--schema_registry", "--start", "--kafka_group", "--kafka_config", "/nowhere"):
        assert name in text_of(problems)
    assert "hunter2" not in text_of(problems)


@pytest.mark.parametrize(
    ("text", "start"),
    [
        ("earliest", Start("earliest")),
        ("latest", Start("latest")),
        ("1970-01-01T00:16:40Z", Start(at=1_000_000)),
        ("1970-01-01T02:16:40+02:00", Start(at=1_000_000)),
        ("0:123,1:456", Start(offsets=((0, 123), (1, 456)))),
    ],
)
def test_a_start_is_a_word_a_time_or_offsets(text: str, start: Start) -> None:
    problems: list[Problem] = []
    assert read_start(options(f"--start={text}"), problems) == start
    assert problems == []


@pytest.mark.parametrize("text", ["2026-04-01T09:00", "2026-13-01T09:00Z", "0", "0:1,", "0:-1", "newest"])
def test_a_start_that_says_nothing_is_a_mistake(text: str) -> None:
    problems: list[Problem] = []
    assert read_start(options(f"--start={text}"), problems) is None
    assert "write earliest, latest, a time with its zone" in text_of(problems)


def test_a_time_needs_its_zone() -> None:
    assert read_time("2026-04-01T09:00Z") == 1_775_034_000_000
    assert read_time("2026-04-01T09:00") is None
