"""The files of a launch on workers that share no disk with the machine that started it.

A folder in Cloud Storage has its copy under the same path on every machine (connectors/gcs.py), so the paths in a
launch's plan hold on a worker too. A worker downloads what a step reads before the step reads it, and uploads what
the step writes.
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
"""The folders of a launch that every worker reads."""
_LOCK = Lock()


class RemoteInputs(NamedTuple):
    """The address of the launch's folder, the addresses of the folders that hold its inputs, and the paths of the
    inputs that every worker reads."""

    output: str
    mirrors: tuple[str, ...]
    files: tuple[str, ...]


@cache
def _download_shared(remote: RemoteInputs) -> None:
    for below in SHARED:
        RemoteFolder(remote.output).pull(below)
    for path in remote.files:
        _download(remote, Path(path))


def _download(remote: RemoteInputs, path: Path) -> None:
    for folder in map(RemoteFolder, (remote.output, *remote.mirrors)):
        if path.is_relative_to(folder.path):
            folder.download_file(path)


def after_download(remote: RemoteInputs, read: Callable[..., T], *args: Any) -> T:
    """The result of `read(*args)`, called when the files that every worker reads are on this one."""
    with _LOCK:
        _download_shared(remote)
    return read(*args)


def read_downloaded_part(remote: RemoteInputs, part: Part, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """The batches of a part, whose file is downloaded first."""
    _download(remote, Path(part.path))
    return read_part(part, columns)


def upload_exposures(output: str, name: str, table: pa.Table, counts: dict[str, Any]) -> None:
    """Writes the exposures of a batch into the launch's folder: the batch is done then."""
    folder = LaunchFolder(output)
    assert folder.remote is not None
    folder.exposures.mkdir(parents=True, exist_ok=True)
    folder.write_exposures(name, table, counts)
    folder.remote.upload_file(folder.exposures / f"{name}.parquet")
