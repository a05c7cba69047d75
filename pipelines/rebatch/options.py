"""The options of rebatch, and the configuration that is made of them."""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from apache_beam.options.pipeline_options import PipelineOptions

from connectors.gcs import absolute_path, is_remote
from connectors.kafka.client import KafkaClient
from connectors.kafka.consumer import Start
from connectors.kafka.options import GROUP, KafkaOptions, read_client, read_start
from connectors.uri import SourceUri, source_uri
from pipelines.command_line.logs import LOG_FORMAT
from pipelines.engines.dataflow.checks import secrets_problems
from pipelines.launch.options import add_once, folder_problems, missing_options, read_uri, small_options
from schemas.problems import InputError, Problem
from stores.deliveries.delivery_folder import DeliveryFolder
from stores.ledger.open import open_ledger

_AS_GIVEN = ("drain", "idle", "patience", "readers", "ignore_times", "secrets")


class RebatchOptions(PipelineOptions):
    """The options of rebatch; every other option is Beam's."""

    @classmethod
    def _add_argparse_args(cls, parser: ArgumentParser) -> None:
        add, share = parser.add_argument, partial(add_once, parser)
        share("--campaigns", help="folder with engine.yaml: vendor, workspaces, pace; read again as it changes")
        share("--events", help="file:DIR, pubsub:projects/P/subscriptions/S or kafka:HOST:PORT/TOPIC")
        share("--output", help="folder of this delivery: receipts, dead letters, ledger; used again by the next run")
        share("--secrets", help="projects/P: Secret Manager there holds the keys, for workers in the cloud")
        add("--ledger", help="sqlite:PATH or firestore:projects/P/databases/D/COLLECTION (OUTPUT/ledger.db)")
        share("--drain", action="store_true", help="deliver what is there, then stop")
        share(
            "--idle", type=float, default=5.0, help="with --drain: end when no event has come for so many seconds (5)"
        )
        add(
            "--patience",
            type=float,
            default=60.0,
            help="when a run ends: stop waiting for events that cannot be sent yet after so many seconds without any "
            "being sent (60)",
        )
        add(
            "--ignore_times",
            action="store_true",
            help="for tests: send events at once, also those that are not due yet or have expired",
        )
        add_once(parser, "--log_format", **LOG_FORMAT)
        share("--readers", type=int, default=1, help="readers of the source (1)")


@dataclass(frozen=True)
class RebatchConfig:
    """The checked options."""

    campaigns: str
    events: SourceUri
    output: str
    ledger: str
    drain: bool = False
    idle: float = 5.0
    patience: float = 60.0
    readers: int = 1
    ignore_times: bool = False
    secrets: str | None = None
    kafka: KafkaClient = field(default_factory=KafkaClient)
    group: str = GROUP
    start: Start | None = None

    @classmethod
    def of(cls, options: Any, mistakes: Sequence[Problem] = ()) -> RebatchConfig:
        """The configuration of parsed options. Raises InputError with every mistake in them, and with the `mistakes` of
        the parser."""
        problems = missing_options(options, "rebatch", ("campaigns", "events", "output"), mistakes)
        events = read_uri(source_uri, options.events, problems) if options.events else None
        problems += secrets_problems(options.secrets)
        ledger = options.ledger or DeliveryFolder(options.output or "").ledger
        if not options.ledger and is_remote(options.output or ""):
            fix = "an --output in Cloud Storage has no place for SQLite; give firestore:projects/P/databases/D/"
            problems.append(Problem("command line", "--ledger", "missing", f"{fix}COLLECTION"))
        else:
            read_uri(open_ledger, ledger, problems, "--ledger")
        problems += small_options(options, {"idle": 0.1, "patience": 0.0, "readers": 1})
        kafka_options = options.view_as(KafkaOptions)
        kafka, start = read_client(kafka_options, problems), read_start(kafka_options, problems)
        if problems or events is None:
            raise InputError(problems + folder_problems(options.campaigns))
        return cls(
            campaigns=absolute_path(options.campaigns),
            events=events,
            output=absolute_path(options.output),
            ledger=ledger,
            kafka=kafka,
            group=kafka_options.kafka_group,
            start=start,
            **{name: getattr(options, name) for name in _AS_GIVEN},
        )
