"""What the steps of collect are handed: made in a worker's process, once."""

from __future__ import annotations

import logging
import time
from collections import defaultdict
from functools import cache
from threading import Lock

from connectors.kafka.schema_registry import SchemaRegistry
from connectors.open import open_event_store
from connectors.schema_versions import versions_by_guid, versions_by_id, versions_by_revision
from pipelines.collect.options import CollectConfig
from schemas.contracts import DeadLetter
from schemas.events.framing import Framing
from stores.events.fuse import Fuse, blow_fuse, clear_fuse
from stores.events.quarantine import keep_quarantined
from transforms.collect.append_events import EventStore
from transforms.collect.decode_events import Quarantined, Types
from transforms.collect.watch import Alarm, Watch

_log = logging.getLogger(__name__)
_LOCK = Lock()
_WATCHES: dict[str, Watch] = {}


@cache
def make_types(config: CollectConfig) -> Types:
    """The event types, and what finds the type of a message: registries are asked about ids that they know."""
    types, registry = config.event_types(), config.kafka.registry
    if not registry:
        return Types(types, Framing(types, revisions=versions_by_revision(types)))
    asked = SchemaRegistry(registry)
    framing = Framing(types, versions_by_id(asked, types), versions_by_guid(asked, types), versions_by_revision(types))
    return Types(types, framing)


def make_store(config: CollectConfig) -> EventStore:
    """The event store."""
    return open_event_store(config.store, config.kafka, config.logs())


def make_watch(config: CollectConfig) -> Watch:
    """The watch of this process over a run."""
    with _LOCK:
        if config.run not in _WATCHES:
            _WATCHES[config.run] = Watch(config.limits, lambda alarm: act_on(config.home, alarm))
        return _WATCHES[config.run]


def act_on(home: str, alarm: Alarm) -> None:
    """Blows or clears the fuse of a type, and logs that."""
    if alarm.reason:
        if blow_fuse(home, alarm.type, Fuse(int(alarm.since * 1000), alarm.reason)):
            _log.error("%s is suspect, its features count as stale from now on: %s", alarm.type, alarm.reason)
    elif clear_fuse(home, alarm.type):
        _log.warning("%s is well again", alarm.type)


def keep(home: str, quarantined: list[Quarantined]) -> None:
    """Writes events into the quarantine of their types. Raises JobError."""
    letters: dict[str, list[DeadLetter]] = defaultdict(list)
    for one in quarantined:
        letters[one.type].append(one.letter)
    for name, same in letters.items():
        keep_quarantined(home, name, same, int(time.time() * 1000))
