"""Logs of events in a folder, and what stands in them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from connectors.log.reader import LogPartitionReader
from connectors.log.scan import scan
from connectors.log.segments import LogSettings, create_log, headers, list_segments
from connectors.log.writer import LogWriter
from schemas.transport import Envelope


def any_log(folder: Path, partitions: int = 2, retention_ms: int | None = None, **writer: Any) -> LogWriter:
    """An open writer of a log that is created unless it is there."""
    create_log(folder, LogSettings(partitions, retention_ms))
    return LogWriter(folder, **writer).open()


def log_reader(folder: Path, **changes: Any) -> LogPartitionReader:
    """An open reader that is done at the end."""
    reader = LogPartitionReader(folder, **{"idle_s": 0, "wait_s": 0, **changes})
    reader.open()
    return reader


def poll_all(reader: LogPartitionReader, partition: int, offset: int = 0, most: int = 1_000) -> list[Envelope]:
    """Everything in a partition from an offset on."""
    envelopes: list[Envelope] = []
    while not (poll := reader.poll(partition, offset, most)).done:
        envelopes += poll.envelopes
        offset = poll.handle
    return envelopes


def scanned(folder: Path, partition: int, start: int = 0, stop: int | None = None) -> list[tuple[int, bytes, int]]:
    """(position, body, published at) of a range."""
    return [
        event
        for batch in scan(folder, partition, start, stop)
        for event in zip(range(batch.first, batch.end), batch.bodies(), batch.published.tolist(), strict=True)
    ]


def stored_when_published(folder: Path, partition: int) -> None:
    """Makes each segment look as if its events had been stored when they were published."""
    for segment in list_segments(folder, partition):
        with segment.path.open("rb") as file:
            newest = max((header.newest for _, header in headers(file.fileno())), default=0)
        os.utime(segment.path, (newest / 1000, newest / 1000))


def event_id(number: int) -> bytes:
    """16 bytes that follow from a number."""
    return number.to_bytes(16, "big")
