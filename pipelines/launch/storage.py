"""The storage of a launch: the disk of this machine, or a folder in Cloud Storage with a copy on each machine.

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
from connectors.inputs.histories import history_files
from pipelines.launch.options import LaunchConfig
from stores.launches.launch_folder import LaunchFolder
from stores.launches.snapshot import Part, read_part

T = TypeVar("T")
_SHARED = ("campaigns", "survey")
"""The folders of a launch that every worker reads."""
_LOCK = Lock()


class RemoteInputs(NamedTuple):
    """The address of the launch's folder, the addresses of the folders that hold its inputs, and the paths of the
    inputs that every worker reads."""

    output: str
    mirrors: tuple[str, ...]
    files: tuple[str, ...]


class LaunchStorage:
    """Downloads and uploads of the machine that starts a launch; nothing is done for a launch on this machine.

    Every method raises TransportError when Cloud Storage refuses.
    """

    def __init__(self, config: LaunchConfig, folder: LaunchFolder) -> None:
        self._config, self._folder, self._remote = config, folder, folder.remote

    @property
    def remote_inputs(self) -> RemoteInputs | None:
        """What a worker downloads before it reads; None for workers that share this machine's disk."""
        if self._remote is None:
            return None
        config = self._config
        files = (*map(str, history_files(config.history)), *([config.sticky] if config.sticky else ()))
        return RemoteInputs(self._remote.uri, config.mirrors, files)

    def download(self) -> None:
        """Makes the copy of the launch the same as its folder."""
        if self._remote is not None:
            self._remote.pull()

    def upload_inputs(self) -> None:
        """Uploads the snapshot, the campaigns and the survey's results; the manifest last."""
        if self._remote is not None:
            for below in ("snapshot", *_SHARED):
                self._remote.push(below)
            self._remote.upload_file(self._folder.manifest)

    def upload_results(self) -> None:
        """Uploads the snapshot's dead letters, the sticky assignments and the report; the summary last."""
        if self._remote is not None:
            self._remote.push("dead_letters")
            for path in (self._folder.sticky, self._folder.report, self._folder.summary):
                if path.is_file():
                    self._remote.upload_file(path)


@cache
def _download_shared(remote: RemoteInputs) -> None:
    for below in _SHARED:
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
