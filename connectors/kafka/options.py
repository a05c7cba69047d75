"""The options of Kafka, which launch, rebatch and replay share, and their parsing."""

from __future__ import annotations

import re
from argparse import ArgumentParser
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from apache_beam.options.pipeline_options import PipelineOptions

from connectors.kafka.client import KafkaClient, read_properties
from connectors.kafka.consumer import Start
from schemas.problems import Problem

GROUP = "campaigns"
_OFFSETS = re.compile(r"\d{1,9}:\d{1,18}(,\d{1,9}:\d{1,18})*")
_GROUP = re.compile(r"[A-Za-z0-9._-]{1,249}")
OPTIONS: dict[str, dict[str, Any]] = {
    "--kafka_config": {
        "metavar": "FILE",
        "help": "kafka: file of NAME=VALUE lines, librdkafka's properties (TLS, SASL, …); secrets as ${VARIABLE}",
    },
    "--schema_registry": {
        "metavar": "URL",
        "help": "kafka: Confluent schema registry; messages carry its frame, a zero and a schema's id",
    },
    "--kafka_group": {"default": GROUP, "help": f"kafka: the group whose offsets say what was read ({GROUP})"},
    "--start": {
        "help": "kafka: where a group that has read nothing begins: earliest, latest, a time, or PARTITION:OFFSET,… "
        "(earliest)"
    },
}
PUBLISHING = ("--kafka_config", "--schema_registry")


class KafkaOptions(PipelineOptions):
    """The options of Kafka; launch uses those of publishing only."""

    @classmethod
    def _add_argparse_args(cls, parser: ArgumentParser) -> None:
        add_kafka_options(parser)


def add_kafka_options(parser: ArgumentParser, *, publishing: bool = False) -> None:
    """Adds the options to a parser, or only those of publishing."""
    for name, settings in OPTIONS.items():
        if not publishing or name in PUBLISHING:
            parser.add_argument(name, **settings)


def read_client(options: Any, problems: list[Problem]) -> KafkaClient:
    """The client's settings; adds a problem for each mistake in the file and in the registry's URL."""
    properties: tuple[tuple[str, str], ...] = ()
    file, registry = options.kafka_config, options.schema_registry
    if file:
        try:
            properties, wrong = read_properties(Path(file).read_text("utf-8"))
            problems += [Problem(file, name, value, fix) for name, value, fix in wrong]
        except (OSError, UnicodeDecodeError) as error:
            fix = f"cannot be read as UTF-8 text ({error}); name a file of NAME=VALUE lines"
            problems.append(Problem("command line", "--kafka_config", file, fix))
    if registry:
        parts = urlsplit(registry)
        if parts.username or parts.password:
            fix = "take user and password out; set CAMPAIGNS_REGISTRY_USER and CAMPAIGNS_REGISTRY_PASSWORD"
            problems.append(Problem("command line", "--schema_registry", f"{parts.scheme}://***@…", fix))
        elif parts.scheme not in ("http", "https") or not parts.hostname:
            fix = "write the registry's URL, such as https://registry.example.com"
            problems.append(Problem("command line", "--schema_registry", registry, fix))
    return KafkaClient(properties, registry or None)


def read_start(options: Any, problems: list[Problem]) -> Start | None:
    """Where a group begins; None, which means earliest, without --start. Checks the group's name too."""
    if not _GROUP.fullmatch(options.kafka_group):
        fix = "use letters, digits, . _ - and at most 249 characters"
        problems.append(Problem("command line", "--kafka_group", options.kafka_group, fix))
    text = options.start
    if not text:
        return None
    if text in ("earliest", "latest"):
        return Start(text)
    if _OFFSETS.fullmatch(text):
        pairs = [tuple(map(int, pair.split(":"))) for pair in text.split(",")]
        return Start(offsets=tuple((partition, offset) for partition, offset in pairs))
    at = read_time(text)
    if at is None:
        fix = "write earliest, latest, a time with its zone (2026-04-01T09:00Z), or PARTITION:OFFSET,PARTITION:OFFSET"
        problems.append(Problem("command line", "--start", text, fix))
        return None
    return Start(at=at)


def read_time(text: str) -> int | None:
    """Epoch milliseconds of an ISO 8601 time with its zone; None for anything else."""
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        return None
    return None if time.tzinfo is None else int(time.timestamp() * 1000)
