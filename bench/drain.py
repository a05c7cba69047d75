"""Measure a drain of files on the built-in engine and on Prism, in one run; prints JSON.

    python -m bench.drain [--events 200000]

events_per_s       from the command's start to its end, 350 retailers: with what an engine needs to begin and to end
direct_by_prism    the built-in engine's by Prism's; 0.5 or more is asked
peak_mb            the job's processes together (resident memory), without the sandbox; below 1,000 is asked on direct
cpu_us_per_event   processor time of the same processes, by the events
big_bodies         20,000 events of 5 kB, 10,000 of 50 kB and 6,000 of 200 kB: peak_mb, below 1,000 is asked
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.deliveries import kill, make_event, on_the_wire, start_rebatch, write_campaigns, write_file
from bench.footprint import observe
from bench.rebatch import DELIVERY
from runners.sandbox.process import running_sandbox

ENGINES = ("direct", "prism")
BIG = {"5_kb": (20_000, 5_000), "50_kb": (10_000, 50_000), "200_kb": (6_000, 200_000)}
_PART_BYTES = 32_000_000  # of events in a file
_MOST_S = 1_800.0
Say = Callable[[str], None]


def write_events(folder: Path, count: int, retailers: int, size: int = 0) -> None:
    """Files of events, retailer by retailer, each with a text of so many bytes."""
    rnd, now = random.Random(1), int(time.time() * 1000)
    part = max(1, min(20_000, _PART_BYTES // (size + 600)))
    properties = {"name": "Ann", **({"text": "x" * size} if size else {})}
    for start in range(0, count, part):
        some = [
            make_event(rnd, n, f"store-{n * retailers // count}", now, properties=properties)
            for n in range(start, min(start + part, count))
        ]
        write_file(folder, f"part-{start:09d}", [body for body, _ in on_the_wire(some)])


def drain(place: Path, events: Path, count: int, engine: str) -> dict[str, Any]:
    """One drain: whether it ended well, its rate, its memory and its processor time."""
    place.mkdir()
    with running_sandbox(keep=1) as sandbox:
        campaigns = write_campaigns(place / "campaigns", sandbox.url, DELIVERY)
        started = time.monotonic()
        log = place / "log"
        job = start_rebatch(campaigns, f"file:{events}", place / "out", "--drain", f"--on={engine}", log=log)
        try:
            seen = observe(job, _MOST_S)
            seconds, code = time.monotonic() - started, job.poll()
        finally:
            kill(job)
        summary = sandbox.summary()
    accepted = int(summary["accepted"])
    return {
        "ended": code == 0,
        "accepted": accepted,
        "missing": count - int(summary["events"]),
        "twice": int(summary["accepted_twice"]),
        "seconds": round(seconds, 1),
        "events_per_s": round(accepted / seconds),
        "peak_mb": seen.peak_mb,
        "cpu_us_per_event": round(seen.cpu_s * 1e6 / count),
    }


def measure(folder: Path, name: str, count: int, retailers: int, size: int, say: Say) -> dict[str, Any]:
    """Each engine over the same files."""
    events = folder / f"events-{name}"
    write_events(events, count, retailers, size)
    found = {}
    for engine in ENGINES:
        found[engine] = drain(folder / f"{name}-{engine}", events, count, engine)
        say(f"{name} {engine}: {found[engine]}")
    return found


def main() -> None:
    """Prints the JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--events", type=int, default=200_000)
    parser.add_argument("--no-big-bodies", action="store_true", help="measure the rate alone")
    args = parser.parse_args()
    say: Say = lambda text: print(text, file=sys.stderr, flush=True)  # noqa: E731
    os.environ["SANDBOX_KEY"] = "key"
    with tempfile.TemporaryDirectory() as folder:
        rates = measure(Path(folder), "small", args.events, 350, 0, say)
        bodies = {} if args.no_big_bodies else BIG
        big = {name: measure(Path(folder), name, count, 35, size, say) for name, (count, size) in bodies.items()}
    per_s = {engine: found["events_per_s"] for engine, found in rates.items()}
    result = {
        "events": args.events,
        "events_per_s": per_s,
        "direct_by_prism": round(per_s["direct"] / max(1, per_s["prism"]), 2),
        "peak_mb": {engine: found["peak_mb"] for engine, found in rates.items()},
        "cpu_us_per_event": {engine: found["cpu_us_per_event"] for engine, found in rates.items()},
        "runs": rates,
        "big_bodies": big,
    }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
