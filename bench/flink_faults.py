"""What tests and benchmarks do to a Flink cluster: kill its workers, find its last checkpoint, cancel its jobs."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from pathlib import Path

from runners.local.flink.cluster import FlinkCluster
from runners.local.flink.jobs import OVER


def kill_workers(cluster: FlinkCluster) -> int:
    """kill -9 of every Python worker; how many there were."""
    killed = 0
    for worker in cluster.workers():
        with suppress(ProcessLookupError):
            os.kill(worker, signal.SIGKILL)
            killed += 1
    return killed


def latest_checkpoint(cluster: FlinkCluster) -> str | None:
    """The newest complete checkpoint of any job."""
    complete = list[tuple[float, Path]]()
    for path in cluster.folder.glob("checkpoints/*/chk-*/_metadata"):
        with suppress(FileNotFoundError):  # Flink removes the older ones meanwhile
            complete.append((path.stat().st_mtime, path.parent))
    return f"file://{max(complete)[1]}" if complete else None


def cancel_all(cluster: FlinkCluster) -> None:
    """Cancel every job that has not ended."""
    for job, state in cluster.jobs().items():
        if state not in OVER:
            cluster.cancel(job)
