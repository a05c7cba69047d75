"""LogPartitionReader: reads the partitions of a log from a position on, and follows what is appended."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

import numpy as np

from connectors.log.batch import Batch, read_batch, read_header
from connectors.log.segments import (
    Segment,
    damaged,
    has_batch_after,
    headers,
    list_segments,
    read_settings,
    segment_of,
    segment_path,
)
from schemas.problems import JobError
from schemas.transport import POLL_BYTES, Envelope, Poll

_LOOK_S = 1.0  # between two looks at the folder while nothing comes
_PAUSE_S = 0.002  # between two looks at the file
_QUIET_S = 0.5  # an event that is appended now may have been published so much earlier
_log = logging.getLogger(__name__)


class PartitionCursor:
    """A place in a partition: the segment that is open there, and the next position. One thread at a time."""

    def __init__(self, folder: Path, partition: int) -> None:
        self._folder, self._partition = folder, partition
        self._segment: Segment | None = None
        self._handle, self._place, self._checked, self._looked = -1, 0, -1, float("-inf")
        self.position = 0

    def close(self) -> None:
        """Closes its file."""
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1

    def seek(self, position: int) -> None:
        """Goes to a position; where that is gone, to the first that is there, and logs it. Raises JobError for one
        behind the end: then the log is not the one that was read before."""
        while segment := segment_of(list_segments(self._folder, self._partition), position):
            with suppress(FileNotFoundError):  # deleted since: the next look finds what is there
                self._open(segment)
                break
        if segment is None:
            self.close()
            self._segment, self.position = None, position
            if position:
                raise self._behind_end(position, 0)
            return
        if segment.first > position:
            _log.warning(
                "%s/%d: positions %d to %d are gone (retention); reading goes on at %d",
                self._folder, self._partition, position, segment.first - 1, segment.first,
            )  # fmt: skip
        position, end = max(position, segment.first), segment.first
        for place, header in headers(self._handle):
            self._place, end = place, header.end
            if end > position:
                break
            self._place += header.size
        if end < position:
            raise self._behind_end(position, end)
        self.position = position

    def read(self, limit: int) -> list[Batch]:
        """The next whole batches, of about `limit` bytes, the first from the position on; none while there is nothing
        new. Raises JobError for a damaged file."""
        batches = self._read(limit) if self._segment is not None else []
        if not batches and self._move_on():
            batches = self._read(limit)
        if batches:
            if batches[0].first < self.position:
                batches[0] = batches[0].cut(self.position, batches[0].end)
            self.position = batches[-1].end
        return batches

    def _read(self, limit: int) -> list[Batch]:
        left = os.fstat(self._handle).st_size - self._place
        if left <= 0:
            return []
        data = memoryview(os.pread(self._handle, min(left, limit), self._place))
        header = read_header(data)
        if header is not None and len(data) < header.size <= left:
            data = memoryview(os.pread(self._handle, header.size, self._place))
        batches, at = [], 0
        while batch := read_batch(data, at):
            batches.append(batch)
            at += batch.header.size
        self._place += at
        if not batches and left != self._checked:
            self._check(left)
        return batches

    def _check(self, left: int) -> None:
        """Raises JobError when whole batches follow on bytes that are none. A writer completes one before the next."""
        rest = memoryview(os.pread(self._handle, left, self._place))
        again = memoryview(os.pread(self._handle, left, self._place))
        if self._segment is not None and has_batch_after(rest, 0, self.position) and not read_batch(again):
            raise damaged(self._segment.path, self._place)
        self._checked = left

    def _move_on(self) -> bool:
        """Opens the segment that begins at the position, if there is one; whether another one was opened."""
        following = Segment(self.position, segment_path(self._folder, self._partition, self.position))
        if following != self._segment and following.path.exists():
            self._open(following)
            return True
        now = time.monotonic()
        if now - self._looked < _LOOK_S:
            return False
        self._looked = now
        segment = segment_of(list_segments(self._folder, self._partition), self.position)
        if segment is None or segment == self._segment:
            return False
        self.seek(self.position)
        return True

    def _open(self, segment: Segment) -> None:
        handle = os.open(segment.path, os.O_RDONLY | os.O_CLOEXEC)
        self.close()
        self._handle, self._segment, self._place, self._checked = handle, segment, 0, -1

    def _behind_end(self, position: int, end: int) -> JobError:
        happened = (
            f"{self._folder}/{self._partition} ends at position {end:,}, and reading should go on at {position:,}"
        )
        return JobError(happened, "Put back the store that was read before, or begin anew without what was read of it")


@dataclass
class _Reading:
    """A partition that is being read: its cursor, the events that are read and not polled yet, the next offset to poll,
    when something last came, and the oldest time of the last poll (epoch s)."""

    cursor: PartitionCursor
    pending: list[Batch]
    offset: int
    last: float
    oldest: float = 0.0


class LogPartitionReader:
    """Reads the partitions of a log in one process. An envelope's `message_id` is PARTITION:POSITION. `begin` are the
    positions to begin at, by partition; the others begin with their first event. `idle_s`: a partition is done once it
    was read to its end and nothing has come for so long; `stop` ends them all. A poll waits `wait_s` for an event."""

    def __init__(
        self,
        folder: Path,
        *,
        begin: Mapping[int, int] | None = None,
        idle_s: float | None = None,
        stop: Callable[[], bool] = lambda: False,
        wait_s: float = 0.01,
    ) -> None:
        self._folder, self._begin, self._idle_s = folder, dict(begin or {}), idle_s
        self._stop, self._wait_s = stop, wait_s

    def open(self) -> None:
        """Reads the log's settings. Raises InputError for a folder that is no log."""
        self._partitions = read_settings(self._folder).partitions
        self._lock, self._open = Lock(), dict[int, _Reading]()

    def close(self) -> None:
        """Closes the files."""
        with self._lock:
            for reading in self._open.values():
                reading.cursor.close()
            self._open = {}

    def starts(self, seen: int) -> list[int]:
        """The first positions of the partitions from number `seen` on."""
        return [self._start(partition) for partition in range(seen, self._partitions)]

    def ended(self) -> bool:
        """Always: a log has all of its partitions from the beginning."""
        return True

    def poll(self, partition: int, offset: int, most: int) -> Poll:
        """The next events of a partition from a position on; the handle is the position behind them."""
        if self._stop():
            return Poll([], offset, done=True)
        reading = self._reading(partition, offset)
        until = time.monotonic() + self._wait_s
        while not (envelopes := self._take(reading, partition, most)):
            if (now := time.monotonic()) >= until or self._stop():
                idle = self._idle_s is not None and now - reading.last >= self._idle_s
                reading.oldest = time.time() - _QUIET_S
                return Poll([], offset, done=idle)
            time.sleep(_PAUSE_S)
        reading.last = time.monotonic()
        reading.oldest = min([envelope.published_at for envelope in envelopes]) / 1000
        return Poll(envelopes, reading.offset)

    def commit(self, partition: int, offset: int) -> None:
        """Do nothing: a log keeps no reader's position."""

    def oldest(self, partition: int) -> float:
        """Seconds since the epoch: the oldest time of the last poll, or nearly now when it brought nothing."""
        reading = self._open.get(partition)
        return reading.oldest if reading else 0.0

    def _start(self, partition: int) -> int:
        segments = list_segments(self._folder, partition)
        return self._begin.get(partition, segments[0].first if segments else 0)

    def _reading(self, partition: int, offset: int) -> _Reading:
        """The reading of a partition at an offset: an engine goes back when a bundle failed."""
        with self._lock:
            reading = self._open.get(partition)
            if reading is None:
                cursor = PartitionCursor(self._folder, partition)
                reading = self._open[partition] = _Reading(cursor, [], -1, time.monotonic())
        if reading.offset != offset:
            reading.pending, reading.offset = [], -1
            reading.cursor.seek(offset)
            reading.offset = offset
        return reading

    def _take(self, reading: _Reading, partition: int, most: int) -> list[Envelope]:
        envelopes: list[Envelope] = []
        size = 0
        while len(envelopes) < most and size < POLL_BYTES:
            if not reading.pending and not envelopes:
                reading.pending = reading.cursor.read(POLL_BYTES)
            if not reading.pending:
                break
            batch = reading.pending.pop(0)
            sizes = np.cumsum(batch.lengths, dtype=np.int64)
            fits = int(np.searchsorted(sizes, POLL_BYTES - size, side="right"))
            count = min(len(sizes), most - len(envelopes), fits if envelopes else max(1, fits))
            if count < len(sizes):
                reading.pending.insert(0, batch.cut(batch.first + count, batch.end))
            if not count:
                break
            envelopes += _envelopes(partition, batch.cut(batch.first, batch.first + count))
            size += int(sizes[count - 1])
            reading.offset = batch.first + count
        return envelopes


def _envelopes(partition: int, batch: Batch) -> list[Envelope]:
    """The events of a batch as messages."""
    attributes, names = batch.attributes, range(batch.first, batch.end)
    return [
        Envelope(f"{partition}:{position}", attributes, body, published)
        for position, body, published in zip(names, batch.bodies(), batch.published.tolist(), strict=True)
    ]
