"""A folder in Cloud Storage and its copy on this machine, which has the same path on every machine."""

from __future__ import annotations

import hashlib
import os
import shutil
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from apache_beam.io.filesystems import FileSystems

from schemas.problems import JobError

REMOTE = "gs://"
_ROOT = Path("/tmp")
_BINARY = "application/octet-stream"
T = TypeVar("T")


def is_remote(path: str | Path) -> bool:
    """Whether a path names something in Cloud Storage."""
    return str(path).startswith(REMOTE)


def absolute_path(path: str) -> str:
    """A path that means the same in every folder: absolute, unless it is remote."""
    return path.rstrip("/") if is_remote(path) else str(Path(path).absolute())


def download_copy(path: str) -> tuple[str, str]:
    """Download a remote file, folder or glob; the path of the copy, and the address of the folder that was copied."""
    path = path.rstrip("/")
    folder, _, name = path.rpartition("/")
    remote = RemoteFolder(folder)
    if "*" in name:
        return str(remote.pull() / name), folder
    if len(folder) > len(REMOTE) and remote.has_file(name):
        return str(remote.download_file(remote.path / name, refresh=True)), folder
    return str(RemoteFolder(path).pull()), path


class RemoteFolder:
    """gs://BUCKET/FOLDER and its copy on this machine. `pull` downloads what has changed, `push` uploads what has
    changed. Two files are the same if their sizes and modification times are.

    Every failure of the storage is a JobError that names the address.
    """

    def __init__(self, uri: str) -> None:
        self.uri = uri.rstrip("/")
        self.path = _ROOT / f"campaigns-{hashlib.sha256(self.uri.encode()).hexdigest()[:20]}"

    def pull(self, below: str = "") -> Path:
        """Make the copy of the folder, or of its part `below`, the same as the original; its path."""
        self.make_folder()
        remote = self._list(below)
        for name, entry in remote.items():
            if not _is_same(self.path / name, entry):
                self._download(name, entry)
        for path in self._list_copy(below):
            if path.relative_to(self.path).as_posix() not in remote:
                path.unlink(missing_ok=True)
        return self.path / below

    def has_file(self, name: str) -> bool:
        """Whether the folder has a file of this name."""
        return name in self._list(name, "")

    def download_file(self, path: Path, *, refresh: bool = False) -> Path:
        """Download one file unless the copy has it; with `refresh` also if it has changed. Its path."""
        if refresh or not path.is_file():
            self.make_folder()
            name = path.relative_to(self.path).as_posix()
            entry = self._list(name, "").get(name)
            if entry is None:
                raise JobError(f"there is no {self.uri}/{name}", "Check the address")
            if not _is_same(path, entry):
                self._download(name, entry)
        return path

    def push(self, below: str = "") -> None:
        """Upload every file of the copy that is missing in the folder, or that has changed."""
        remote = self._list(below)
        for path in self._list_copy(below):
            entry = remote.get(path.relative_to(self.path).as_posix())
            if entry is None or not _is_same(path, entry):
                self.upload_file(path)

    def upload_file(self, path: Path) -> None:
        """Upload one file of the copy."""
        name = path.relative_to(self.path).as_posix()
        uri = f"{self.uri}/{name}"

        def write() -> None:
            with path.open("rb") as source, FileSystems.create(uri, _BINARY) as target:
                shutil.copyfileobj(source, target, 1 << 20)

        _call(uri, "written", write)
        _set_time(path, self._list(name, "")[name])

    def make_folder(self) -> None:
        """Make the folder of the copy. Raises when another user of the machine has made it."""
        self.path.mkdir(mode=0o700, exist_ok=True)
        if self.path.is_symlink() or self.path.stat().st_uid != os.getuid():
            raise JobError(f"{self.path} belongs to another user", "Remove it: the copy of a folder is kept there")

    def _list(self, below: str, inside: str = "/**") -> dict[str, Any]:
        """The metadata of the files in the folder, by their names."""
        pattern = f"{self.uri}/{below}{inside}" if below else f"{self.uri}{inside}"
        (match,) = _call(self.uri, "listed", lambda: FileSystems.match([pattern]))
        return {entry.path[len(self.uri) + 1 :]: entry for entry in match.metadata_list if not entry.path.endswith("/")}

    def _list_copy(self, below: str) -> list[Path]:
        return sorted(path for path in (self.path / below).rglob("*") if path.is_file() and not _is_temporary(path))

    def _download(self, name: str, entry: Any) -> None:
        target = self.path / name
        if not target.resolve().is_relative_to(self.path.resolve()):
            raise JobError(f"{self.uri}/{name} would be written outside of {self.path}", "Rename it there")
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex}.tmp")

        def read() -> None:
            with FileSystems.open(f"{self.uri}/{name}", _BINARY) as source, temporary.open("wb") as copy:
                shutil.copyfileobj(source, copy, 1 << 20)

        try:
            _call(f"{self.uri}/{name}", "read", read)
            _set_time(temporary, entry)
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)


def _is_same(path: Path, entry: Any) -> bool:
    try:
        status = path.stat()
    except FileNotFoundError:
        return False
    return status.st_size == entry.size_in_bytes and abs(status.st_mtime - entry.last_updated_in_seconds) < 0.001


def _set_time(path: Path, entry: Any) -> None:
    os.utime(path, (entry.last_updated_in_seconds, entry.last_updated_in_seconds))


def _is_temporary(path: Path) -> bool:
    """Whether a file is half-written or a lock, which no other machine needs."""
    return path.name.startswith(".") or path.suffix == ".tmp" or path.name == "lock"


def _call(uri: str, what: str, function: Callable[[], T]) -> T:
    try:
        return function()
    except JobError:
        raise
    except Exception as error:  # the storage's client has no common base
        todo = "Check the address, and that this account has the role Storage Object User on the bucket"
        raise JobError(f"{uri} could not be {what} ({type(error).__name__}: {str(error)[:200]})", todo) from error
