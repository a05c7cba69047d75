"""The options of features, and the configuration that is made of them."""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Any

from apache_beam.options.pipeline_options import PipelineOptions

from connectors.kafka.client import KafkaClient
from connectors.kafka.options import KafkaOptions, read_client
from connectors.uri import StoreUri, store_uri
from pipelines.command_line.logs import LOG_FORMAT
from pipelines.launch.options import add_once, missing_options, read_uri, small_options
from schemas.events.event_types import EventType, load_event_types
from schemas.features.catalogue import load_groups
from schemas.features.declarations import FeatureGroup
from schemas.problems import InputError, JobError, Problem
from stores.features.open import open_store


class FeaturesOptions(PipelineOptions):
    """The options of features; every other option is Beam's."""

    @classmethod
    def _add_argparse_args(cls, parser: ArgumentParser) -> None:
        add = partial(add_once, parser)
        add("--events", help="the event store: file:DIR with a folder a type, or kafka:HOST:PORT/PREFIX")
        add("--features", help="folder of *.py files that declare the feature groups")
        add("--feature_store", help="the feature store: lmdb:DIR, redis://… or bigtable:…")
        add("--types", help="folder of event types, a folder each (those that come with the engine)")
        add("--drain", action="store_true", help="fold what is there, then stop")
        add("--idle", type=float, default=5.0, help="with --drain: end when no event has come for so many seconds (5)")
        add("--as_of", help="fold events of the past as at this time, such as 2017-12-31 (now)")
        add("--log_format", **LOG_FORMAT)


@dataclass(frozen=True)
class FeaturesConfig:
    """The checked options. `groups` are by event type; types without a group are not read."""

    events: StoreUri
    store: str
    types: dict[str, EventType]
    groups: dict[str, tuple[FeatureGroup, ...]]
    idle_s: float | None
    kafka: KafkaClient = field(default_factory=KafkaClient)
    as_of_s: float | None = None

    @classmethod
    def of(cls, options: Any, mistakes: Sequence[Problem] = ()) -> FeaturesConfig:
        """The configuration of parsed options. Raises InputError with every mistake in them, in the declarations and in
        the event types, and with the `mistakes` of the parser."""
        problems = missing_options(options, "features", ("events", "features", "feature_store"), mistakes)
        problems += small_options(options, {"idle": 0.1})
        events = read_uri(store_uri, options.events, problems) if options.events else None
        kafka, groups = read_client(options.view_as(KafkaOptions), problems), dict[str, FeatureGroup]()
        as_of = read_as_of(options.as_of, problems)
        types = _loaded(lambda: load_event_types(options.types), problems)
        if types and options.features:
            columns = {name: one.columns for name, one in types.items()}
            groups = _loaded(lambda: load_groups(options.features, columns), problems)
        if options.feature_store:
            with suppress(JobError):  # it does not answer: the run says so
                _loaded(lambda: open_store(options.feature_store, read_only=True).close(), problems)
        if problems or events is None:
            raise InputError(problems)
        by_type: dict[str, tuple[FeatureGroup, ...]] = {}
        for group in groups.values():
            by_type[group.source] = (*by_type.get(group.source, ()), group)
        return cls(events, options.feature_store, types, by_type, options.idle if options.drain else None, kafka, as_of)


def read_as_of(text: str | None, problems: list[Problem]) -> float | None:
    """The seconds since 1970 of an ISO time, which is UTC without an offset; None, and a problem more, for others."""
    if not text:
        return None
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        problems.append(Problem("command line", "--as_of", text, "write a time such as 2017-12-31 or 2017-12-31T18:00"))
        return None
    return (time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp()


def _loaded(load: Any, problems: list[Problem]) -> Any:
    """What a loader gives; nothing, and its problems more, where it raises InputError."""
    try:
        return load()
    except InputError as error:
        problems += error.problems
        return {}
