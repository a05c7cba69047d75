"""Raw events in files, a run of collect over them, and what stands in the event store and in quarantine."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import fastavro
from support.logs import log_reader, poll_all
from support.raw_events import TYPES, any_event

from bench.deliveries import ROOT, kill
from connectors.log.scan import bounds
from connectors.log.segments import is_log, read_settings
from pipelines.collect.driver import run
from schemas.contracts import DeadLetter
from schemas.transport import Envelope
from stores.events.quarantine import quarantine_files, quarantined_types
from transforms.features.scan_events import scan

PAST = 1_700_000_000_000


def any_rows(name: str, count: int, start: int = 0, **changes: Any) -> list[dict[str, Any]]:
    """Rows of a type whose id and household follow from a number."""
    times = {"occurred_at": PAST, "published_at": PAST + 10}
    keys = [key for key in TYPES[name].key if TYPES[name].columns[key] == "string"]
    return [
        any_event(name, event_id=f"{name}-{number}", **{**times, **dict.fromkeys(keys, f"k-{number % 50}"), **changes})
        for number in range(start, start + count)
    ]


def write_rows(folder: Path, part: str, rows: list[dict[str, Any]]) -> None:
    """A finished container file of rows of one type and version, as a producer writes it."""
    folder.mkdir(parents=True, exist_ok=True)
    schema = TYPES[rows[0]["type"]].versions[rows[0]["version"]]
    temporary = folder / f".{part}"
    with temporary.open("wb") as file:
        fastavro.writer(file, schema, rows, sync_interval=4_000)
    temporary.rename(folder / f"{part}.avro")


class Collection:
    """A folder with raw events, and room for a store."""

    def __init__(self, root: Path) -> None:
        self.root, self.raw, self.store = root, root / "raw", root / "store"

    def argv(self, *more: str) -> list[str]:
        """The options of collect."""
        own = [f"--source=file:{self.raw}", f"--store=file:{self.store}"]
        given = {option.partition("=")[0] for option in more}
        return [*(option for option in own if option.partition("=")[0] not in given), *more]

    def run(self, *more: str) -> int:
        """The exit code of the command in this process."""
        return run(self.argv(*more))

    @contextmanager
    def started(self, *more: str, **environment: str) -> Iterator[subprocess.Popen[str]]:
        """The command in a process of its own, ended with the block."""
        with subprocess.Popen(
            [sys.executable, "-m", "pipelines.collect", *self.argv(*more)],
            cwd=ROOT, env={**os.environ, **environment}, text=True, start_new_session=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        ) as job:  # fmt: skip
            try:
                yield job
            finally:
                kill(job)  # type: ignore[arg-type]

    def events(self, name: str) -> list[Envelope]:
        """Everything in the log of a type."""
        if not is_log(self.store / name):
            return []
        reader = log_reader(self.store / name)
        return [one for part in range(read_settings(self.store / name).partitions) for one in poll_all(reader, part)]

    def stored(self, name: str) -> Counter[str]:
        """How often each event_id stands in the store."""
        scanned = scan(TYPES[name], self.events(name), PAST * 2)
        assert scanned.rejected == []
        return Counter(scanned.event_ids)

    def count(self, name: str) -> int:
        """The number of events of a type."""
        if not is_log(self.store / name):
            return 0
        return sum(bounds(self.store / name, one).end for one in range(read_settings(self.store / name).partitions))

    def letters(self, name: str) -> list[DeadLetter]:
        """The quarantine of a type."""
        return [letter for _, letters in quarantine_files(str(self.store), name) for letter in letters]

    def quarantined(self) -> dict[str, int]:
        """The size of the quarantine by type."""
        return {name: len(self.letters(name)) for name in quarantined_types(str(self.store))}
