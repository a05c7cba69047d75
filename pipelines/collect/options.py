"""The options of collect, and the configuration that is made of them."""

from __future__ import annotations

import uuid
from argparse import ArgumentParser
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from apache_beam.options.pipeline_options import PipelineOptions

from connectors.gcs import absolute_path
from connectors.kafka.client import KafkaClient
from connectors.kafka.consumer import Start
from connectors.kafka.options import GROUP, KafkaOptions, read_client, read_start
from connectors.log.segments import LogSettings
from connectors.open import existing_logs
from connectors.uri import SourceUri, StoreUri, source_uri, store_uri
from pipelines.command_line.logs import LOG_FORMAT
from pipelines.launch.options import add_once, missing_options, read_uri, small_options
from schemas.events.event_types import EventType, load_event_types
from schemas.problems import InputError, Problem
from transforms.collect.watch import Limits

Uri = TypeVar("Uri", SourceUri, StoreUri)
_AS_GIVEN = ("drain", "idle", "readers", "remember")
PARTITIONS = 8
"""Of a type that is not in the store yet."""
_LEAST = {"idle": 0.0, "readers": 1, "remember": 1.0, "watch_window": 1.0, "most_quarantined": 0.0}


class CollectOptions(PipelineOptions):
    """The options of collect; every other option is Beam's."""

    @classmethod
    def _add_argparse_args(cls, parser: ArgumentParser) -> None:
        add = partial(add_once, parser)
        add("--source", action="append", help="raw events: file:DIR, pubsub:projects/P/subscriptions/S or "
            "kafka:HOST:PORT/TOPIC; may be repeated")  # fmt: skip
        add("--store", help="the event store: file:DIR on this machine, or kafka:HOST:PORT/PREFIX (topics PREFIX.TYPE)")
        add("--output", help="with a store on Kafka: folder for the quarantine and the fuses")
        add("--types", help="folder of event types, a folder each (those that come with the engine)")
        add("--partitions", type=int, help="partitions of a type that is not in the store yet (8)")
        add("--remember", type=float, default=86_400.0, help="seconds in which an event_id is a duplicate (86400)")
        add("--most_quarantined", type=float, default=0.05,
            help="share of a type's events in quarantine above which its fuse blows (0.05)")  # fmt: skip
        add("--volume_change", type=float, default=0.0,
            help="blow the fuse of a type when its volume changes by more than this factor (0: never)")  # fmt: skip
        add("--watch_window", type=float, default=60.0, help="seconds over which a type's events are counted (60)")
        add("--drain", action="store_true", help="collect what is there, then stop")
        add("--idle", type=float, default=5.0, help="with --drain: end when no event has come for so many seconds (5)")
        add("--readers", type=int, default=1, help="readers of each source (1)")
        add("--log_format", **LOG_FORMAT)


@dataclass(frozen=True)
class CollectConfig:
    """The checked options. `home` is the folder of the quarantine and the fuses: the store's own, or --output; `run`
    names this run."""

    sources: tuple[SourceUri, ...]
    store: StoreUri
    home: str
    types: str | None = None
    partitions: int | None = None
    remember: float = 86_400.0
    limits: Limits = field(default_factory=Limits)
    drain: bool = False
    idle: float = 5.0
    readers: int = 1
    kafka: KafkaClient = field(default_factory=KafkaClient)
    group: str = GROUP
    start: Start | None = None
    run: str = field(default_factory=lambda: uuid.uuid4().hex[:12])

    @classmethod
    def of(cls, options: Any, mistakes: Sequence[Problem] = ()) -> CollectConfig:
        """The configuration of parsed options. Raises InputError with every mistake in them and in the event types, and
        with the `mistakes` of the parser."""
        problems = missing_options(options, "collect", ("source", "store"), mistakes)
        sources = [read_uri(source_uri, text, problems, "--source") for text in options.source or ()]
        store = read_uri(store_uri, options.store, problems, "--store") if options.store else None
        home = (store.folder if store else None) or options.output
        if store is not None and not home:
            fix = "give it: the folder for the quarantine and the fuses; topics cannot hold them"
            problems.append(Problem("command line", "--output", "missing", fix))
        problems += [
            Problem("command line", "--source", str(uri), "is the store as well; name where raw events come from")
            for uri in sources
            if uri is not None and uri == store
        ]
        for uri in sources:
            if folders := _folders_of_events(uri.folder if uri else None):
                each = " ".join(f"--source file:{one}" for one in folders)
                fix = f"has no *.avro files itself; name each folder: {each}"
                problems.append(Problem("command line", "--source", str(uri), fix))
        problems += small_options(options, _LEAST | ({} if options.partitions is None else {"partitions": 1}))
        kafka_options = options.view_as(KafkaOptions)
        kafka, start = read_client(kafka_options, problems), read_start(kafka_options, problems)
        try:
            load_event_types(options.types)
        except InputError as error:
            problems += error.problems
        if problems or store is None or home is None:
            raise InputError(problems)
        return cls(
            sources=tuple(_absolute(source_uri, uri) for uri in sources if uri is not None),
            store=_absolute(store_uri, store),
            home=absolute_path(home),
            types=absolute_path(options.types) if options.types else None,
            partitions=options.partitions,
            limits=Limits(options.watch_window, options.most_quarantined, volume=options.volume_change),
            kafka=kafka,
            group=kafka_options.kafka_group,
            start=start,
            **{name: getattr(options, name) for name in _AS_GIVEN},
        )

    def event_types(self) -> dict[str, EventType]:
        """The event types, by name."""
        return load_event_types(self.types)

    def logs(self) -> Mapping[str, LogSettings]:
        """How the events of each type are kept. A log that is there keeps its number of partitions, unless another is
        asked for, which it refuses."""
        wanted = {
            name: LogSettings(self.partitions or PARTITIONS, one.retention_ms)
            for name, one in self.event_types().items()
        }
        if self.partitions:
            return wanted
        found = existing_logs(self.store, wanted)
        return {name: one._replace(partitions=found[name].partitions) for name, one in wanted.items()}

    @property
    def stop_file(self) -> Path:
        """The file that asks this run to stop."""
        return Path(self.home) / f".stop-{self.run}"


def _folders_of_events(folder: str | None) -> list[str]:
    """The folders with events in a folder of this machine that has none itself: it would be read as empty for ever."""
    if not folder or any(Path(folder).glob("*.avro")):
        return []
    return sorted({str(path.parent) for path in Path(folder).glob("*/*.avro")})


def _absolute(parse: Callable[[str], Uri], uri: Uri) -> Uri:
    """A URI that means the same in every folder."""
    return parse(f"file:{absolute_path(uri.folder)}") if uri.folder else uri
