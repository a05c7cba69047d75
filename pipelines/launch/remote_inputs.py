"""What a launch reads and writes when its workers share no disk with the machine that started it.

Folders in Cloud Storage have copies under the same path on every machine (connectors/gcs.py), so the plan of a
launch means the same on a worker: before a step reads, it brings what it needs; what it writes, it puts there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple, TypeVar

import pyarrow as pa

from connectors.gcs import RemoteFolder
from stores.launches.launch_folder import LaunchFolder
from stores.launches.snapshot import Part, read_part

T = TypeVar("T")
SHARED = ("campaigns", "survey")
"""What every worker reads of the launch's folder."""
_LOCK = Lock()


class RemoteInputs(NamedTuple):
    """The launch's folder, the folders whose copies its inputs are, and the files of those that every step may read."""

    output: str
    mirrors: tuple[str, ...]
    files: tuple[str, ...]


@cache
def _bring(afar: RemoteInputs) -> None:
    for below in SHARED:
        RemoteFolder(afar.output).pull(below)
    for name in afar.files:
        _fetch(afar, name)


def _fetch(afar: RemoteInputs, name: str) -> None:
    path = Path(name)
    for folder in map(RemoteFolder, (afar.output, *afar.mirrors)):
        if path.is_relative_to(folder.path):
            folder.fetch(path)


def after_download(afar: RemoteInputs, make: Callable[..., T], *args: Any) -> T:
    """What `make` makes of its arguments, once the files it reads are here."""
    with _LOCK:
        _bring(afar)
    return make(*args)


def read_downloaded_part(afar: RemoteInputs, part: Part, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """The batches of a part, once its file is here."""
    _fetch(afar, part.path)
    return read_part(part, columns)


def upload_exposures(output: str, name: str, table: pa.Table, counts: dict[str, Any]) -> None:
    """Writes a batch's exposures into the launch's folder: the batch is done."""
    folder = LaunchFolder(output)
    assert folder.remote is not None
    folder.exposures.mkdir(parents=True, exist_ok=True)
    folder.write_exposures(name, table, counts)
    folder.remote.put(folder.exposures / f"{name}.parquet")
