"""The files of a log: FOLDER/log.json, and FOLDER/PARTITION/FIRSTPOSITION.log, whose names say where they begin."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from connectors.log.batch import HEADER_BYTES, MAGIC, Header, read_batch, read_header
from schemas.problems import InputError, JobError, Problem

NAME = "log.json"
_FORMAT = 1


class LogSettings(NamedTuple):
    """What is fixed when a log is created: its number of partitions; and how long its events are kept (ms), None for
    ever."""

    partitions: int
    retention_ms: int | None = None


class Segment(NamedTuple):
    """A file of a partition, and the position of its first event."""

    first: int
    path: Path


def is_log(folder: Path | str) -> bool:
    """Whether a folder is the log of a type of event."""
    return "://" not in str(folder) and (Path(folder) / NAME).is_file()


def create_log(folder: Path, settings: LogSettings) -> LogSettings:
    """The settings of a log, which is created unless it is there. The retention of one that is there is changed. Raises
    InputError for another number of partitions, JobError when it cannot be written."""
    if settings.partitions < 1:
        raise ValueError(f"partitions {settings.partitions} must be positive")
    if not is_log(folder):
        with suppress(FileExistsError):
            _write_settings(folder, settings, create=True)
            return settings
    found = read_settings(folder)
    if found.partitions != settings.partitions:
        fix = f"the log has {found.partitions} partitions, and an event's partition follows from their number; keep it"
        raise InputError([Problem(str(folder / NAME), "partitions", str(settings.partitions), fix)])
    if found != settings:
        _write_settings(folder, settings, create=False)
    return settings


def read_settings(folder: Path) -> LogSettings:
    """The settings of a log. Raises InputError for a folder that is none."""
    try:
        values = json.loads((folder / NAME).read_bytes())
        if values["format"] != _FORMAT:
            raise ValueError(f"its format is {values['format']}, this program reads {_FORMAT}")
        return LogSettings(int(values["partitions"]), values["retention_ms"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        fix = f"is no log of events ({error}); name the folder of a type in an event store"
        raise InputError([Problem(str(folder), NAME, "", fix)]) from error


def _write_settings(folder: Path, settings: LogSettings, *, create: bool) -> None:
    temporary = folder / f".{NAME}-{uuid.uuid4().hex}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        temporary.write_text(json.dumps({"format": _FORMAT, **settings._asdict()}))
        if create:
            os.link(temporary, folder / NAME)
        else:
            os.replace(temporary, folder / NAME)
    except FileExistsError:
        raise
    except OSError as error:
        raise JobError(f"{folder} cannot be written ({error})", "Choose a folder that can be written") from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def segment_path(folder: Path, partition: int, first: int) -> Path:
    """The file of a partition that begins with a position."""
    return Path(f"{folder}/{partition}/{first:020d}.log")


def list_segments(folder: Path, partition: int) -> list[Segment]:
    """The files of a partition in the order of their positions."""
    try:
        names = os.listdir(folder / str(partition))
    except FileNotFoundError:
        return []
    firsts = sorted(int(name[:-4]) for name in names if name.endswith(".log") and name[:-4].isdigit())
    return [Segment(first, segment_path(folder, partition, first)) for first in firsts]


def segment_of(segments: list[Segment], position: int) -> Segment | None:
    """The last segment that begins at a position or before it; the first where that is gone; None without any."""
    before = [segment for segment in segments if segment.first <= position]
    return before[-1] if before else segments[0] if segments else None


def headers(handle: int, place: int = 0) -> Iterator[tuple[int, Header]]:
    """(place, header) of the batches of an open segment from a place on, up to the first that is not complete. The
    crc is not checked: what a torn tail holds may look complete."""
    size = os.fstat(handle).st_size
    while (header := read_header(os.pread(handle, HEADER_BYTES, place))) and place + header.size <= size:
        yield place, header
        place += header.size


def whole_end(handle: int, path: Path, position: int, place: int = 0) -> tuple[int, int]:
    """(position, place) behind the last whole batch of a segment, looking from a batch's position and place on. What
    stands behind is the torn tail of a killed writer. Raises JobError when a whole batch follows there: then the file
    is damaged, and to cut it would lose events."""
    data = memoryview(os.pread(handle, os.fstat(handle).st_size - place, place))
    at = 0
    while batch := read_batch(data, at):
        position, at = batch.header.end, at + batch.header.size
    if has_batch_after(data, at, position):
        raise damaged(path, place + at)
    return position, place + at


def has_batch_after(data: memoryview, at: int, position: int) -> bool:
    """Whether a whole batch of a later position stands anywhere behind a place."""
    raw = bytes(data[at + 1 :])
    found = raw.find(MAGIC)
    while found >= 0:
        batch = read_batch(memoryview(raw), found)
        if batch is not None and batch.header.first > position:
            return True
        found = raw.find(MAGIC, found + 1)
    return False


def damaged(path: Path, place: int) -> JobError:
    """The error for a file whose bytes at a place are no batch, though whole batches follow."""
    todo = "Copy the file again from where a copy of it is kept, or move the store aside and collect again"
    return JobError(f"{path} is damaged at byte {place:,}: what stands there is no whole batch", todo, damaged=True)
