"""LogWriter: appends batches of events to the partitions of a log."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import NamedTuple

from connectors.files.whole_file import cannot_write
from connectors.log.batch import HEADER_BYTES, encode_batch, read_header
from connectors.log.recent_ids import RecentIds, read_ids, split_ids
from connectors.log.segments import (
    LogSettings,
    Segment,
    list_segments,
    read_settings,
    segment_path,
    whole_end,
)
from schemas.problems import JobError

SEGMENT_BYTES = 64 << 20
REMEMBER = 200_000  # ids of a partition
_PARTS_OF_RETENTION = 8  # segments in the time of a type's retention, at least: an active one is never deleted
_LOCK_S, _AGAIN_S = 30.0, 0.002
_TODO = "Put back the store as it was, then run the same command again"


class Appended(NamedTuple):
    """The position of the first event that was appended, and how many were. The others were there already."""

    first: int
    events: int


@dataclass
class _Tail:
    """The end of a partition as this process knows it: the active segment, where the next batch begins, by position and
    by place in the file, and when its first event was published. `known` are the ids of events before `known_to`."""

    lock: Lock = field(default_factory=Lock)
    lock_handle: int = -1
    handle: int = -1
    segment: Segment | None = None
    position: int = 0
    place: int = 0
    began: int | None = None
    dirty: bool = False
    known: RecentIds | None = None
    known_to: int = 0


class LogWriter:
    """Appends to the log in a folder. Any number of threads and processes may: one at a time has a partition, under a
    lock that ends with its process. Each append looks where the partition ends now, and first cuts what a killed
    process left there unfinished."""

    def __init__(self, folder: Path, *, segment_bytes: int = SEGMENT_BYTES, remember: int = REMEMBER) -> None:
        self._folder, self._segment_bytes, self._remember = folder, segment_bytes, remember
        self._lock, self._tails = Lock(), dict[int, _Tail]()
        self._settings: LogSettings | None = None

    def open(self) -> LogWriter:
        """Reads the log's settings. Raises InputError for a folder that is no log."""
        self._settings = read_settings(self._folder)
        return self

    @property
    def settings(self) -> LogSettings:
        """The settings of the open log."""
        if self._settings is None:
            self.open()
        assert self._settings is not None
        return self._settings

    def close(self) -> None:
        """Writes everything to the disk, and closes the files."""
        self.sync()
        with self._lock:
            tails, self._tails = self._tails, {}
        for tail in tails.values():
            for handle in (tail.handle, tail.lock_handle):
                if handle >= 0:
                    os.close(handle)

    def __enter__(self) -> LogWriter:
        return self.open()

    def __exit__(self, *_: object) -> None:
        self.close()

    def append(
        self,
        partition: int,
        bodies: Sequence[bytes],
        published_at: Sequence[int],
        attributes: Mapping[str, str] | None = None,
        ids: bytes = b"",
    ) -> Appended:
        """Appends events as one batch: readers see all of them now, and they survive the end of this process; `sync`
        makes them survive the machine's. `published_at` are epoch ms, `attributes` are of all of them.

        With `ids`, 16 bytes an event, events with an id among the last of the partition are left out, whoever appended
        them. Raises JobError when nothing could be appended.
        """
        with self._locked(partition) as tail:
            try:
                self._catch_up(partition, tail)
                if ids:
                    bodies, published_at, ids = self._without_known(partition, tail, bodies, published_at, ids)
                if not bodies:
                    return Appended(tail.position, 0)
                first = tail.position
                self._roll(partition, tail, max(published_at))
                self._write(tail, encode_batch(first, bodies, published_at, attributes or {}, ids))
            except OSError as error:
                raise cannot_write(self._folder / str(partition), error) from error
            tail.position += len(bodies)
            tail.known_to = tail.position if ids else tail.known_to
            if ids and tail.known is not None:
                tail.known.add(split_ids(ids))
            return Appended(first, len(bodies))

    def next_position(self, partition: int) -> int:
        """The position that the next event will have."""
        with self._locked(partition) as tail:
            self._catch_up(partition, tail)
            return tail.position

    def sync(self) -> None:
        """Returns when all that was appended here is on the disk. Raises JobError."""
        with self._lock:
            tails = list(self._tails.items())
        for partition, tail in tails:
            with tail.lock:
                try:
                    if tail.dirty:
                        os.fdatasync(tail.handle)
                        tail.dirty = False
                except OSError as error:
                    raise cannot_write(self._folder / str(partition), error) from error

    @contextmanager
    def _locked(self, partition: int) -> Iterator[_Tail]:
        if not 0 <= partition < self.settings.partitions:
            raise ValueError(f"{self._folder} has no partition {partition}")
        with self._lock:
            tail = self._tails.setdefault(partition, _Tail())
        with tail.lock:
            self._acquire(partition, tail)
            try:
                yield tail
            finally:
                fcntl.flock(tail.lock_handle, fcntl.LOCK_UN)

    def _acquire(self, partition: int, tail: _Tail) -> None:
        """Takes the lock of a partition. The lock file is never deleted, or two processes could lock two of them."""
        if tail.lock_handle < 0:
            path = self._folder / str(partition) / "lock"
            try:
                path.parent.mkdir(exist_ok=True)
                tail.lock_handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            except OSError as error:
                raise cannot_write(path, error) from error
        until = time.monotonic() + _LOCK_S
        while True:
            try:
                return fcntl.flock(tail.lock_handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                if time.monotonic() > until:
                    happened = f"Another process holds the lock of {self._folder}/{partition} for {_LOCK_S:.0f} s now"
                    raise JobError(happened, "See which process holds it (lsof), and whether it hangs") from error
                time.sleep(_AGAIN_S)

    def _catch_up(self, partition: int, tail: _Tail) -> None:
        """Makes the tail the end of the partition as it is now."""
        if tail.segment is not None:
            status = os.fstat(tail.handle)
            following = segment_path(self._folder, partition, tail.position)
            same = not tail.place or not os.path.exists(following)
            if status.st_size == tail.place and status.st_nlink and same:
                return
        segments = list_segments(self._folder, partition)
        last = segments[-1] if segments else Segment(0, segment_path(self._folder, partition, 0))
        if tail.segment != last or not os.fstat(tail.handle).st_nlink:
            self._open(tail, last)
            tail.segment = None  # until its end is known
            position, place = whole_end(tail.handle, last.path, last.first)
        else:
            place = tail.place if os.fstat(tail.handle).st_size >= tail.place else 0
            position, place = whole_end(tail.handle, last.path, tail.position if place else last.first, place)
        if position < tail.position:
            happened = f"{last.path} ends at position {position:,}, and there were events up to {tail.position:,}"
            raise JobError(happened, _TODO, damaged=True)
        tail.segment, tail.position, tail.place = last, position, place
        if os.fstat(tail.handle).st_size > tail.place:
            os.ftruncate(tail.handle, tail.place)
        header = read_header(os.pread(tail.handle, HEADER_BYTES, 0)) if tail.place else None
        tail.began = header.oldest if header else None

    def _open(self, tail: _Tail, segment: Segment) -> None:
        """Makes a segment the active one; creates it unless it is there."""
        if tail.handle >= 0:
            if tail.dirty:
                os.fdatasync(tail.handle)
            os.close(tail.handle)
            tail.handle, tail.segment = -1, None
        tail.handle = os.open(segment.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        folder = os.open(segment.path.parent, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
        tail.segment = segment

    def _roll(self, partition: int, tail: _Tail, newest: int) -> None:
        """Begins a new segment when the active one is large, or would span much of the retention."""
        keep = self.settings.retention_ms
        old = keep is not None and tail.began is not None and newest - tail.began > keep // _PARTS_OF_RETENTION
        if tail.place and (tail.place >= self._segment_bytes or old):
            self._open(tail, Segment(tail.position, segment_path(self._folder, partition, tail.position)))
            tail.place, tail.began = 0, None

    def _write(self, tail: _Tail, data: bytes) -> None:
        """Writes a batch behind the others, all of it or nothing."""
        left, place = memoryview(data), tail.place
        try:
            while left:
                written = os.pwrite(tail.handle, left, place)
                left, place = left[written:], place + written
        except OSError:
            with suppress(OSError):
                os.ftruncate(tail.handle, tail.place)
            raise
        if tail.began is None:
            header = read_header(data)
            tail.began = header.oldest if header else None
        tail.place, tail.dirty = place, True

    def _without_known(
        self, partition: int, tail: _Tail, bodies: Sequence[bytes], published_at: Sequence[int], ids: bytes
    ) -> tuple[Sequence[bytes], Sequence[int], bytes]:
        """The events without those that are there already."""
        if tail.known is None:
            tail.known, tail.known_to = RecentIds(self._remember), 0
        if tail.known_to < tail.position:
            tail.known.add(split_ids(read_ids(self._folder, partition, tail.known_to, self._remember)))
            tail.known_to = tail.position
        split = split_ids(ids)
        if len(split) != len(bodies):
            raise ValueError(f"{len(bodies)} events have {len(split)} ids")
        places = tail.known.unseen(split)
        if len(places) == len(split):
            return bodies, published_at, ids
        kept = b"".join([split[place] for place in places])
        return [bodies[place] for place in places], [published_at[place] for place in places], kept
