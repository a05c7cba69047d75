"""The quarantine of event types: FOLDER/TYPE/quarantine/*.avro, dead letters with the bytes as they came."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path

from connectors.files.reader import list_files
from schemas.contracts import DeadLetter
from stores.dead_letters import read_dead_letters, write_dead_letters

_NAME = "quarantine"


def quarantine_folder(folder: str, event_type: str) -> str:
    """Where the letters of a type stand."""
    return f"{folder.rstrip('/')}/{event_type}/{_NAME}"


def keep_quarantined(folder: str, event_type: str, letters: Iterable[DeadLetter], now_ms: int) -> str:
    """Writes letters as one new file, whose name begins with the time; its path. Raises JobError."""
    part = f"{now_ms:013d}-{uuid.uuid4().hex[:12]}"
    return write_dead_letters(quarantine_folder(folder, event_type), part, letters)


def quarantined_types(folder: str) -> list[str]:
    """The types with a quarantine."""
    return sorted(path.parent.name for path in Path(folder).glob(f"*/{_NAME}") if path.is_dir())


def quarantine_files(folder: str, event_type: str) -> Iterator[tuple[str, list[DeadLetter]]]:
    """(path, letters) of the quarantine of a type, the oldest first. Raises InputError for a damaged file."""
    for path in list_files(quarantine_folder(folder, event_type)):
        yield path, read_dead_letters(path)


def replace_quarantined(path: str, letters: list[DeadLetter]) -> None:
    """Leaves only these letters in a file, which is deleted when there are none."""
    if letters:
        folder, _, name = path.rpartition("/")
        write_dead_letters(folder, name.removesuffix(".avro"), letters)
    else:
        Path(path).unlink(missing_ok=True)
