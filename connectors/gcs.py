"""A folder in Cloud Storage, with a copy of it on this machine: under the same path on every machine."""

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


def placed(path: str) -> str:
    """A path that means the same in every folder: absolute, unless it is remote."""
    return path.rstrip("/") if is_remote(path) else str(Path(path).absolute())


def local_copy(path: str) -> tuple[str, str]:
    """Where the copy of a remote file, folder or glob is now, and the address of the folder that it is a copy of."""
    path = path.rstrip("/")
    folder, _, name = path.rpartition("/")
    remote = RemoteFolder(folder)
    if "*" in name:
        return str(remote.pull() / name), folder
    if len(folder) > len(REMOTE) and remote.holds(name):
        return str(remote.fetch(remote.path / name, again=True)), folder
    return str(RemoteFolder(path).pull()), path


class RemoteFolder:
    """gs://BUCKET/FOLDER and its copy. `pull` brings what has changed there, `push` puts there what has changed here.
    A file is the same in both when its size is and the copy's time is the time of the original.

    Every failure of the storage is a JobError that names the address.
    """

    def __init__(self, uri: str) -> None:
        self.uri = uri.rstrip("/")
        self.path = _ROOT / f"campaigns-{hashlib.sha256(self.uri.encode()).hexdigest()[:20]}"

    def pull(self, below: str = "") -> Path:
        """The copy of the folder, or of what is `below` it, as it is there now; what is gone there goes here too."""
        self.own()
        found = self._listed(below)
        for name, one in found.items():
            if not _same(self.path / name, one):
                self._fetch(name, one)
        for path in self._here(below):
            if path.relative_to(self.path).as_posix() not in found:
                path.unlink(missing_ok=True)
        return self.path / below

    def holds(self, name: str) -> bool:
        """Whether there is a file of this name there."""
        return name in self._listed(name, "")

    def fetch(self, path: Path, *, again: bool = False) -> Path:
        """One file of the copy, brought if it is not here yet, or `again` when it has changed there."""
        if again or not path.is_file():
            self.own()
            name = path.relative_to(self.path).as_posix()
            one = self._listed(name, "").get(name)
            if one is None:
                raise JobError(f"there is no {self.uri}/{name}", "Check the address")
            if not _same(path, one):
                self._fetch(name, one)
        return path

    def push(self, below: str = "") -> None:
        """Puts every file of the copy there that is not there yet, or is another one."""
        there = self._listed(below)
        for path in self._here(below):
            one = there.get(path.relative_to(self.path).as_posix())
            if one is None or not _same(path, one):
                self.put(path)

    def put(self, path: Path) -> None:
        """Puts one file of the copy there."""
        name = path.relative_to(self.path).as_posix()
        uri = f"{self.uri}/{name}"

        def write() -> None:
            with path.open("rb") as source, FileSystems.create(uri, _BINARY) as target:
                shutil.copyfileobj(source, target, 1 << 20)

        _tried(uri, "written", write)
        _stamp(path, self._listed(name, "")[name])

    def own(self) -> None:
        """Makes the copy's folder, which no other user of the machine may have made."""
        self.path.mkdir(mode=0o700, exist_ok=True)
        if self.path.is_symlink() or self.path.stat().st_uid != os.getuid():
            raise JobError(f"{self.path} belongs to another user", "Remove it: the copy of a folder is kept there")

    def _listed(self, below: str, inside: str = "/**") -> dict[str, Any]:
        """What is there, by its name in the folder."""
        pattern = f"{self.uri}/{below}{inside}" if below else f"{self.uri}{inside}"
        (found,) = _tried(self.uri, "listed", lambda: FileSystems.match([pattern]))
        return {one.path[len(self.uri) + 1 :]: one for one in found.metadata_list if not one.path.endswith("/")}

    def _here(self, below: str) -> list[Path]:
        return sorted(path for path in (self.path / below).rglob("*") if path.is_file() and not _passing(path))

    def _fetch(self, name: str, one: Any) -> None:
        target = self.path / name
        if not target.resolve().is_relative_to(self.path.resolve()):
            raise JobError(f"{self.uri}/{name} would be written outside of {self.path}", "Rename it there")
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex}.tmp")

        def read() -> None:
            with FileSystems.open(f"{self.uri}/{name}", _BINARY) as source, temporary.open("wb") as copy:
                shutil.copyfileobj(source, copy, 1 << 20)

        try:
            _tried(f"{self.uri}/{name}", "read", read)
            _stamp(temporary, one)
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)


def _same(path: Path, one: Any) -> bool:
    try:
        found = path.stat()
    except FileNotFoundError:
        return False
    return found.st_size == one.size_in_bytes and abs(found.st_mtime - one.last_updated_in_seconds) < 0.001


def _stamp(path: Path, one: Any) -> None:
    os.utime(path, (one.last_updated_in_seconds, one.last_updated_in_seconds))


def _passing(path: Path) -> bool:
    """Files that mean nothing elsewhere: half-written ones and locks."""
    return path.name.startswith(".") or path.suffix == ".tmp" or path.name == "lock"


def _tried(uri: str, what: str, do: Callable[[], T]) -> T:
    try:
        return do()
    except JobError:
        raise
    except Exception as error:  # the storage's client has no common base
        todo = "Check the address, and that this account has the role Storage Object User on the bucket"
        raise JobError(f"{uri} could not be {what} ({type(error).__name__}: {str(error)[:200]})", todo) from error
