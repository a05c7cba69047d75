"""Collect: raw events of any team and transport into the one event store, each once, those that break a rule aside.

    read sources | decode events (quarantine) | group by type | drop repeats | append events

`group by type` and `drop repeats` are for engines whose state survives the run. Elsewhere no hop may stand between a
source and the store, and the store itself knows the ids of its last events.
"""

from __future__ import annotations

import time
from functools import partial

import apache_beam as beam

from pipelines.collect.factories import keep, make_store, make_types, make_watch
from pipelines.collect.options import CollectConfig
from pipelines.collect.sources import ReadSources
from transforms.collect.append_events import AppendEvents
from transforms.collect.counters import COUNTERS
from transforms.collect.decode_events import DecodeEvents
from transforms.collect.elements import RawEvents, event_id_of, event_ids, type_of
from transforms.streaming.drop_duplicates import DropDuplicates
from transforms.streaming.engine_traits import EngineTraits
from transforms.streaming.group_by_shard import GroupByShard


def build(p: beam.Pipeline, config: CollectConfig, engine: EngineTraits) -> None:
    """Builds the pipeline for an engine with these promises."""
    types, watch = partial(make_types, config), partial(make_watch, config)
    aside, store, clock = partial(keep, config.home), partial(make_store, config), time.time
    events = (
        p
        | "ReadSources" >> ReadSources(config, engine)
        | "DecodeEvents" >> DecodeEvents(types, aside, watch, clock)
    )  # fmt: skip
    if engine.durable_state:
        events = (
            events
            | "GroupByType" >> GroupByShard(RawEvents, type_of, event_id_of, time.monotonic)
            | "DropRepeats" >> DropDuplicates(event_ids, config.remember, clock, engine, COUNTERS)
        )
    _ = events | "AppendEvents" >> AppendEvents(store, aside)
