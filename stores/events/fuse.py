"""The fuse of an event type: FOLDER/TYPE/fuse.json while its events are suspect, so that its features are stale."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from connectors.files.whole_file import write_whole

NAME = "fuse.json"


class Fuse(NamedTuple):
    """Since when (epoch ms) a type is suspect, and why."""

    since: int
    reason: str


def fuse_path(folder: str | Path, event_type: str) -> Path:
    """Where the fuse of a type stands. To clear it by hand, delete the file."""
    return Path(folder) / event_type / NAME


def blow_fuse(folder: str | Path, event_type: str, fuse: Fuse) -> bool:
    """Marks a type as suspect unless it is; whether it was not. Raises JobError when it cannot be written."""
    if read_fuse(folder, event_type) is not None:
        return False
    write_whole(fuse_path(folder, event_type), [json.dumps(fuse._asdict()).encode() + b"\n"])
    return True


def has_blown(folder: str | Path, event_type: str) -> bool:
    """Whether a type is suspect now: one look at the disk."""
    return os.path.exists(f"{folder}/{event_type}/{NAME}")


def clear_fuse(folder: str | Path, event_type: str) -> bool:
    """Takes the mark from a type; whether there was one."""
    try:
        fuse_path(folder, event_type).unlink()
    except OSError:
        return False
    return True


def read_fuse(folder: str | Path, event_type: str) -> Fuse | None:
    """The mark of a type, if it has one. A file that cannot be read is one."""
    text = "the file cannot be read"
    with suppress(FileNotFoundError):
        try:
            values = json.loads(fuse_path(folder, event_type).read_bytes())
            return Fuse(int(values["since"]), str(values["reason"]))
        except FileNotFoundError:
            raise
        except (OSError, ValueError, KeyError, TypeError) as error:
            return Fuse(0, f"{text} ({error})")
    return None
