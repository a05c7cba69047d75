"""Clients of Kafka: their properties, with secrets from the environment, and errors that say what to do."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient, NewTopic

from connectors.uri import KafkaUri
from schemas.problems import JobError

WAIT_S = 20.0  # for an answer of the broker
AGAIN = "then run the same command again"
_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
_SECRET = re.compile(r"password|secret|\.pem$|ssl_key$|private\.key|oauthbearer\.config$")
_PUBLIC = ("ssl.ca.pem", "ssl.certificate.pem")
_OURS = {
    "bootstrap.servers": "name the brokers in the URI, kafka:HOST:PORT[,…]/TOPIC",
    "metadata.broker.list": "name the brokers in the URI, kafka:HOST:PORT[,…]/TOPIC",
    "group.id": "name the group by --kafka_group",
    "plugin.library.paths": "take it out: no code is loaded from a configuration",
} | dict.fromkeys(
    (
        "enable.auto.commit", "enable.auto.offset.store", "enable.partition.eof", "enable.idempotence", "acks",
        "delivery.report.only.error", "message.timeout.ms", "delivery.timeout.ms",
    ),
    "take it out: what is promised of reading and publishing depends on it",
)  # fmt: skip
_log = logging.getLogger("kafka")
_TODO = {
    KafkaError.UNKNOWN_TOPIC_OR_PART: f"Create the topic, `campaigns topic create {{uri}}`, {AGAIN}",
    KafkaError._UNKNOWN_TOPIC: f"Create the topic, `campaigns topic create {{uri}}`, {AGAIN}",
    KafkaError._UNKNOWN_PARTITION: f"See that {{uri}} is the topic that was read before, {AGAIN}",
    KafkaError.TOPIC_AUTHORIZATION_FAILED: f"Give this user the right to the topic (READ, or WRITE), {AGAIN}",
    KafkaError.GROUP_AUTHORIZATION_FAILED: f"Give this user READ on the group, or name another: --kafka_group, {AGAIN}",
    KafkaError._AUTHENTICATION: f"Check user, password and mechanism in --kafka_config, {AGAIN}",
    KafkaError.SASL_AUTHENTICATION_FAILED: f"Check user and password in --kafka_config, {AGAIN}",
    KafkaError._SSL: f"Check security.protocol and the certificates in --kafka_config, {AGAIN}",
    KafkaError._AUTO_OFFSET_RESET: "What was to be read next is no longer there (retention, or another topic of that "
    "name). To go on with what is: set auto.offset.reset=earliest in --kafka_config",
}
FATAL = frozenset(_TODO)


@dataclass(frozen=True)
class KafkaClient:
    """How to reach Kafka: librdkafka's properties, whose values may name environment variables as ${NAME}, and the
    schema registry's URL. It travels to workers as it is: each takes the secrets from its own environment."""

    properties: tuple[tuple[str, str], ...] = ()
    registry: str | None = None

    def config(self, uri: KafkaUri, errors: KafkaErrors, ours: Mapping[str, Any]) -> dict[str, Any]:
        """The settings of a client of confluent-kafka. Raises JobError for a variable that is not set."""
        properties = {name: _filled(name, value) for name, value in self.properties}
        common = {"bootstrap.servers": ",".join(uri.brokers), "error_cb": errors, "logger": _log}
        return {**common, "reconnect.backoff.max.ms": 2_000, **properties, **ours}


class KafkaErrors:
    """The last error that a client reported in its callback: its calls only say that they timed out."""

    def __init__(self) -> None:
        self.last: KafkaError | None = None

    def __call__(self, error: KafkaError) -> None:
        self.last = error


def read_properties(text: str) -> tuple[tuple[tuple[str, str], ...], list[tuple[str, str, str]]]:
    """The properties of a file in the form of Java's and librdkafka's (`name=value`, # begins a comment), and its
    mistakes as (name, value, what to do). A secret's value is never repeated."""
    properties: dict[str, str] = {}
    mistakes: list[tuple[str, str, str]] = []
    for line in text.splitlines():
        name, equals, value = (part.strip() for part in line.strip().partition("="))
        if not name or name[0] in "#!":
            continue
        secret = _SECRET.search(name) and name not in _PUBLIC
        if not equals:
            mistakes.append(("(a line)", "without =", "write NAME=VALUE, one property a line"))
        elif name in _OURS:
            mistakes.append((name, "***" if secret else value, _OURS[name]))
        elif secret and not _VARIABLE.fullmatch(value):
            mistakes.append((name, "***", f"is a secret: write {name}=${{NAME}} and set NAME in the environment"))
        elif missing := [variable for variable in _VARIABLE.findall(value) if not os.environ.get(variable)]:
            mistakes.append((name, value, f"set the environment variable {missing[0]}, on every worker"))
        properties[name] = value
    return tuple(properties.items()), mistakes


def _filled(name: str, value: str) -> str:
    for variable in _VARIABLE.findall(value):
        if not os.environ.get(variable):
            raise JobError(f"{name} of Kafka needs the environment variable {variable}", "Set it on every worker")
    return _VARIABLE.sub(lambda match: os.environ[match[1]], value)


def open_client(kind: Any, client: KafkaClient, uri: KafkaUri, errors: KafkaErrors, ours: Mapping[str, Any]) -> Any:
    """A client of that kind. Raises JobError for properties that librdkafka does not take."""
    try:
        return kind(client.config(uri, errors, ours))
    except KafkaException as error:
        cause = error.args[0]
        raise JobError(f"Kafka's client refuses its settings ({cause.str()})", "Correct --kafka_config") from None


def count_partitions(client: Any, uri: KafkaUri, errors: KafkaErrors, wait_s: float = WAIT_S) -> int:
    """How many partitions the topic has. Raises JobError when it is missing or the brokers do not answer."""
    try:
        topic = client.list_topics(uri.topic, timeout=wait_s).topics[uri.topic]
    except KafkaException as error:
        client.poll(0)  # runs the error callback
        raise kafka_error(uri, "cannot be reached", errors.last or error.args[0]) from error
    if topic.error is not None:
        raise kafka_error(uri, "cannot be used", topic.error)
    return len(topic.partitions)


def kafka_error(uri: KafkaUri, what: str, error: KafkaError) -> JobError:
    """A JobError for an error of Kafka, with what to do."""
    todo = _TODO.get(error.code(), f"Check the brokers' addresses, the network and --kafka_config, {AGAIN}")
    return JobError(f"{uri} {what} ({error.name()}: {error.str()})", todo.format(uri=uri))


def create_topic(
    uri: KafkaUri, client: KafkaClient, partitions: int = 6, replicas: int = -1, retention_ms: int | None = None
) -> bool:
    """Makes the topic, replicated and kept as the cluster does by default; False when it is there. Raises JobError."""
    settings = {} if retention_ms is None else {"retention.ms": str(retention_ms)}
    errors = KafkaErrors()
    admin = open_client(AdminClient, client, uri, errors, {})
    try:
        admin.create_topics([NewTopic(uri.topic, partitions, replicas, config=settings)], request_timeout=WAIT_S)[
            uri.topic
        ].result()
    except KafkaException as error:
        if error.args[0].code() == KafkaError.TOPIC_ALREADY_EXISTS:
            return False
        admin.poll(0)
        raise kafka_error(uri, "could not be made", errors.last or error.args[0]) from error
    return True
