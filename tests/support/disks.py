"""Small file systems that really become full; the tests that need one are skipped where none can be mounted."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from support.servers import missing


@contextmanager
def small_disk(folder: Path, size_mb: int) -> Iterator[Path]:
    """The folder, with a file system of so many MB mounted on it. Skips the test where that is not allowed."""
    command = ["mount", "-t", "tmpfs", "-o", f"size={size_mb}m", "tmpfs", str(folder)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        missing(f"needs `mount` ({error})")
    if done.returncode:
        missing(f"needs the right to mount a tmpfs, as root has it ({done.stderr.strip()})")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(folder: Path, leave: int) -> Path:
    """Fill the disk with a file, except so many bytes; an existing file grows."""
    path = folder / "filling"
    with path.open("ab") as file:
        while (free := os.statvfs(folder).f_bavail * os.statvfs(folder).f_frsize - leave) > 0:
            with suppress(OSError):
                file.write(bytes(min(free, 1 << 20)))
                file.flush()
                continue
            break
    return path
