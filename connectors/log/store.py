"""LogEventStore: the embedded event store as `collect` writes it, a log for each type of event."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

from connectors.log.segments import LogSettings, create_log
from connectors.log.writer import LogWriter
from schemas.events.raw_event import RawEvent, partition_of

_SYNC_EVERY_S = 1.0


@cache
def _writer(folder: str, settings: LogSettings) -> LogWriter:
    """The writer of a log, one a process: it remembers the ids of its last events."""
    create_log(Path(folder), settings)
    return LogWriter(Path(folder)).open()


class LogEventStore:
    """Appends events to FOLDER/TYPE, to the partition of their entity; `settings` are of the types. An event whose id
    is among the last of its partition is left out, also after a restart. What is appended survives the process at once,
    and the machine within a second."""

    def __init__(self, folder: str, settings: Mapping[str, LogSettings]) -> None:
        self._folder, self._settings = folder.rstrip("/"), settings
        self._writers: dict[str, LogWriter] = {}
        self._synced = 0.0

    def open(self) -> None:
        """Creates the logs that are missing. Raises InputError for one with another number of partitions."""
        for name, settings in self._settings.items():
            self._writers[name] = _writer(f"{self._folder}/{name}", settings)

    def append(self, events: Sequence[RawEvent], ids: Sequence[bytes]) -> int:
        """Appends events, but for those that are there; how many. Raises JobError."""
        places: dict[tuple[str, int], list[int]] = defaultdict(list)
        for place, event in enumerate(events):
            partitions = self._settings[event.type].partitions
            places[event.type, partition_of(event.entity, partitions)].append(place)
        appended = 0
        for (name, partition), chosen in places.items():
            same = [events[place] for place in chosen]
            bodies, times = [event.body for event in same], [event.published_at for event in same]
            joined = b"".join([ids[place] for place in chosen])
            appended += self._writers[name].append(partition, bodies, times, {}, joined).events
        return appended

    def settle(self) -> list[tuple[RawEvent, str]]:
        """Writes to the disk now and then; a log refuses nothing. Raises JobError."""
        now = time.monotonic()
        if now - self._synced > _SYNC_EVERY_S:
            self._synced = now
            self._sync()
        return []

    def close(self) -> None:
        """Writes to the disk; the files stay open for others in this process."""
        self._sync()

    def _sync(self) -> None:
        for writer in self._writers.values():
            writer.sync()
