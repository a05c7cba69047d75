"""Run every engine with every source, drained and live: does it end, is each event accepted once? Prints JSON.

    python -m bench.drain_matrix [--events 200000] [--only direct/file/drain …]

A cell is engine/source/mode: direct, prism or flink; file, pubsub or kafka; drain (until it ends by itself) or live (until
all is accepted, then SIGTERM). `ended`: with exit code 0 in its time, or, of a live run on the built-in engine, refused
at once. A live command on Flink ends while its job goes on, which is then cancelled.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

from bench.deliveries import fresh_topic, kill, publish_to, start_rebatch, write_campaigns
from bench.drain import write_events
from bench.flink_faults import cancel_all
from bench.footprint import Footprint, observe
from bench.rebatch import DELIVERY, events
from runners.local.emulators import pubsub_emulator
from runners.local.flink.cluster import FlinkCluster, flink_cluster
from runners.local.kafka_broker import kafka_broker
from runners.sandbox.process import running_sandbox

ENGINES, SOURCES, MODES = ("direct", "prism", "flink"), ("file", "pubsub", "kafka"), ("drain", "live")
_BEGIN_S, _LEAST_PER_S, _STOP_S = (
    120.0,
    500.0,
    120.0,
)  # what a cell may take: to begin, at least so many a second, to end
_CHUNK = 50_000


class Servers(NamedTuple):
    """What the cells need, in a folder."""

    folder: Path
    kafka: str
    flink: FlinkCluster | None


def run_cell(servers: Servers, engine: str, source: str, mode: str, count: int) -> dict[str, Any]:
    """One cell of the table."""
    place = Path(tempfile.mkdtemp(dir=servers.folder))
    options = [f"--on={engine}", *(["--drain"] if mode == "drain" else [])]
    if engine == "flink" and servers.flink is not None:
        options += servers.flink.options()
    uri = _publish(servers, source, count, place)
    with running_sandbox(keep=1) as sandbox:
        campaigns = write_campaigns(place / "campaigns", sandbox.url, DELIVERY)
        accepted = lambda: int(sandbox.summary()["accepted"])  # noqa: E731
        started = time.monotonic()
        job = start_rebatch(campaigns, uri, place / "out", *options, log=place / "log")
        try:
            seen = _watch(job, mode, count, accepted)
            seconds, code = time.monotonic() - started, job.poll()
        finally:
            kill(job)
            if engine == "flink" and servers.flink is not None:
                cancel_all(servers.flink)
        summary = sandbox.summary()
    refused = mode == "live" and engine == "direct"
    taken, twice = int(summary["accepted"]), int(summary["accepted_twice"])
    row = {
        "ended": code == (2 if refused else 0),
        "code": code,
        "accepted": taken,
        "twice": twice,
        "missing": 0 if refused else count - int(summary["events"]),
        "seconds": round(seconds, 1),
        "peak_mb": seen.peak_mb,
    }
    return row if row["ended"] else {**row, "log": (place / "log").read_text()[-600:]}


def _watch(job: subprocess.Popen[bytes], mode: str, count: int, accepted: Callable[[], int]) -> Footprint:
    """Waits for the end of a drain; of a live run for its last event, then stops it and waits for its end."""
    most_s = _BEGIN_S + count / _LEAST_PER_S
    if mode == "drain":
        return observe(job, most_s)
    seen = observe(job, most_s, lambda: accepted() >= count)
    if job.poll() is None:
        job.send_signal(signal.SIGTERM)
    return observe(job, _STOP_S, seen=seen)


def _publish(servers: Servers, source: str, count: int, place: Path) -> str:
    """The URI of a source of its own that holds the events."""
    if source == "file":
        write_events(place / "events", count, 350)
        return f"file:{place / 'events'}"
    to, uri = fresh_topic(source, "matrix", servers.kafka)
    for start in range(0, count, _CHUNK):
        publish_to(to, events(min(_CHUNK, count - start), 350, start))
    return uri


def main() -> None:
    """Prints the JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--events", type=int, default=200_000)
    parser.add_argument("--only", nargs="*", default=[], help="cells, or their beginnings: direct/file/drain, prism")
    args = parser.parse_args()
    os.environ["SANDBOX_KEY"] = "key"
    cells = [(engine, source, mode) for engine in ENGINES for source in SOURCES for mode in MODES]
    cells = [one for one in cells if not args.only or "/".join(one).startswith(tuple(args.only))]
    table: dict[str, Any] = {}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True)))
        kafka = stack.enter_context(kafka_broker()).host if any("kafka" in one for one in cells) else ""
        if any("pubsub" in one for one in cells):
            os.environ["PUBSUB_EMULATOR_HOST"] = stack.enter_context(pubsub_emulator())
        flink = None
        if any("flink" in one for one in cells):
            flink = stack.enter_context(flink_cluster(folder / "flink"))
        for cell in cells:
            table["/".join(cell)] = run_cell(Servers(folder, kafka, flink), *cell, args.events)
            print(f"{'/'.join(cell)}: {table['/'.join(cell)]}", file=sys.stderr, flush=True)
    print(json.dumps({"events": args.events, "cells": table}, indent=2))


if __name__ == "__main__":
    main()
