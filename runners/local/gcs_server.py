"""A stand-in for Cloud Storage on this machine: fake-gcs-server."""

from __future__ import annotations

import os
import shutil
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from runners.local.emulators import EmulatorError, free_port, run_server

TODO = "run `make engines` (it needs Go), or set FAKE_GCS_SERVER to the program"
_INSTALLED = Path(__file__).parents[2] / ".engines/fake-gcs-server"


def find_gcs_server() -> Path:
    """The program: FAKE_GCS_SERVER, or the one of `make engines`, or one on the PATH. Raises EmulatorError."""
    named, on_path = os.environ.get("FAKE_GCS_SERVER"), shutil.which("fake-gcs-server")
    path = Path(named) if named else _INSTALLED
    if path.is_file():
        return path
    if named or on_path is None:
        raise EmulatorError(f"no Cloud Storage stand-in at {path}; {TODO}")
    return Path(on_path)


@contextmanager
def gcs_server() -> Iterator[str]:
    """The address of a running server, http://HOST:PORT, for STORAGE_EMULATOR_HOST. It has one bucket, `bucket`; it
    ends with the block and keeps all objects in memory.

    Raises EmulatorError when the program is missing or does not answer within a minute.
    """
    program, port = find_gcs_server(), free_port()
    address = f"http://127.0.0.1:{port}"
    with tempfile.TemporaryDirectory() as seed:
        (Path(seed) / "bucket").mkdir()
        command = [str(program), "-scheme=http", "-host=127.0.0.1", f"-port={port}", "-backend=memory",
                   f"-data={seed}", f"-public-host=127.0.0.1:{port}", f"-external-url={address}"]  # fmt: skip
        with run_server(command, "the Cloud Storage stand-in", address, partial(_has_bucket, address)):
            yield address


def _has_bucket(address: str) -> bool:
    try:
        urllib.request.urlopen(f"{address}/storage/v1/b/bucket", timeout=2).close()
    except (urllib.error.URLError, OSError):
        return False
    return True
