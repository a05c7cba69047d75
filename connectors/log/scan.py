"""Reads a range of a log in whole batches, for backfill and replay; finds where it begins, ends, and was at a time."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from connectors.log.batch import Batch
from connectors.log.reader import PartitionCursor
from connectors.log.segments import headers, list_segments, read_settings, whole_end
from connectors.replay import Window
from schemas.transport import Envelope

_READ_BYTES = 8 << 20


class Bounds(NamedTuple):
    """The first position that is kept, and the one that the next event will have."""

    first: int
    end: int


def bounds(folder: Path, partition: int) -> Bounds:
    """The bounds of a partition now. Raises JobError for a damaged file."""
    segments = list_segments(folder, partition)
    if not segments:
        return Bounds(0, 0)
    with segments[-1].path.open("rb") as file:
        end, _ = whole_end(file.fileno(), segments[-1].path, segments[-1].first)
    return Bounds(segments[0].first, end)


def scan(folder: Path, partition: int, start: int = 0, stop: int | None = None) -> Iterator[Batch]:
    """The events of a partition from a position on, up to before another (now's end), in batches that lie within. The
    first batch begins later than `start` where that is gone. Raises JobError for a damaged file."""
    first, end = bounds(folder, partition)
    stop = end if stop is None else min(stop, end)
    cursor = PartitionCursor(folder, partition)
    try:
        cursor.seek(max(start, first))
        while cursor.position < stop:
            batches = cursor.read(_READ_BYTES)
            if not batches:
                return
            for batch in batches:
                if batch.first < stop:
                    yield batch.cut(batch.first, stop)
    finally:
        cursor.close()


def position_at(folder: Path, partition: int, at: int) -> int:
    """The first position of the first batch with an event that was published at a time (epoch ms) or after it; the end
    if there is none. Every such event stands there or behind."""
    for segment in list_segments(folder, partition):
        with suppress(FileNotFoundError), segment.path.open("rb") as file:
            for _, header in headers(file.fileno()):
                if header.newest >= at:
                    return header.first
    return bounds(folder, partition).end


def read_between(folder: Path, since: int, until: int) -> Iterator[Window]:
    """Lists of the events published from `since` on and before `until` (epoch ms), a partition after the other."""
    for partition in range(read_settings(folder).partitions):
        for batch in scan(folder, partition, position_at(folder, partition, since)):
            if batch.header.newest < since or batch.header.oldest >= until:
                continue
            positions, times = range(batch.first, batch.end), batch.published.tolist()
            window = [
                Envelope(f"{partition}:{position}", batch.attributes, body, at)
                for position, body, at in zip(positions, batch.bodies(), times, strict=True)
                if since <= at < until
            ]
            if window:
                yield window, _nothing


def expire(folder: Path, now_ms: int) -> list[Path]:
    """Deletes the segments of which every event was published, and stored, longer ago than the log's retention, but
    never the last of a partition, which is being written; gives their paths. A history that is stored today is kept as
    long as what happens today. Raises InputError for a folder that is no log."""
    settings, deleted = read_settings(folder), list[Path]()
    if settings.retention_ms is None:
        return []
    for partition in range(settings.partitions):
        for segment in list_segments(folder, partition)[:-1]:
            with segment.path.open("rb") as file:
                stored = int(os.fstat(file.fileno()).st_mtime * 1000)
                newest = max([stored, *(header.newest for _, header in headers(file.fileno()))])
            if newest >= now_ms - settings.retention_ms:
                break  # the oldest go first, so that the log has no hole
            os.unlink(segment.path)
            deleted.append(segment.path)
    return deleted


def _nothing() -> None:
    """Acknowledges nothing: a log keeps no reader's position."""
