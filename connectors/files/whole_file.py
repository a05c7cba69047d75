"""Files that are seen only when they are complete: written under a temporary name, then renamed."""

from __future__ import annotations

import errno
import os
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from apache_beam.io.filesystems import FileSystems
from google.api_core.exceptions import GoogleAPICallError
from google.auth.exceptions import GoogleAuthError

from schemas.problems import JobError

_AGAIN = "then run the same command again: it goes on where it stopped"
_TODO = {
    errno.ENOSPC: "Free some space",
    errno.EDQUOT: "Free some space",
    errno.EFBIG: "Raise the limit on the size of files",
    errno.EACCES: "Give this account the right to write there, or choose another folder",
    errno.EROFS: "Choose a folder that can be written",
}


def write_whole(path: str | Path, chunks: Iterable[bytes | memoryview]) -> None:
    """Writes a local or remote file in place of an earlier one; makes its folder. Raises JobError that names the path
    and what to do."""
    if "://" in str(path):
        try:
            _write_remote(str(path), chunks)
        except (OSError, GoogleAPICallError, GoogleAuthError) as error:
            raise cannot_write(path, error) from error
    else:
        with whole_file(Path(path)) as file:
            file.writelines(chunks)


@contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """An open local file that takes its name at the end of the block, on disk by then; an exception removes it. Raises
    JobError that names the path and what to do."""
    temporary = Path(_temporary(str(path.absolute())))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        raise cannot_write(path, error) from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def cannot_write(path: str | Path, error: Exception) -> JobError:
    """The error that says which file could not be written, why, and what to do."""
    todo = _TODO.get(getattr(error, "errno", None) or 0, "See that the folder is there and can be written")
    return JobError(f"{path} could not be written ({error})", f"{todo}, {_AGAIN}")


def _temporary(path: str) -> str:
    folder, _, name = path.rpartition("/")
    return f"{folder}/.{name}.{uuid.uuid4().hex}.tmp"


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _write_remote(path: str, chunks: Iterable[bytes | memoryview]) -> None:
    at_once = path.startswith("gs://")  # an object of Cloud Storage is seen when its upload is complete, never before
    ready = list(chunks)  # a chunk that raises must not end an upload in the middle, as if it were complete
    temporary = path if at_once else _temporary(path)
    with FileSystems.create(temporary, "application/octet-stream") as file:
        for chunk in ready:
            file.write(bytes(chunk))
    if not at_once:
        FileSystems.rename([temporary], [path])
