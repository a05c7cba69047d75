"""Measure the pipeline features on Prism and on Flink, in one run; prints JSON.

    python -m bench.features [--events 300000] [--engines prism,flink]

events_per_s       from a Kafka event store into LMDB rows of two groups (by household; by store and product), each with
                   3 hops and 4 aggregations: decoding, rules, duplicates and the writes included, between the first and
                   the last tenth; 1,000,000 households, skewed; on Flink with a checkpoint every 5 s
cpu_us_per_event   processor time of the job and Prism, start included, by the events
entities_scaling   events_per_s of 5,000,000 uniform entities by that of 1,000, on Prism
readable_ms        from publishing to readable at 5,000 events/s on Prism and on Flink: p50, p99, p999
backfill_s         the 1.47 million purchases of the sample data, from an embedded event store into both groups, on the
                   built-in engine: from the command's start to its end
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import zlib
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from bench.deliveries import kill
from bench.feature_events import (
    ORDER_LINE,
    PARTITIONS,
    TYPE,
    Orders,
    Topic,
    folded,
    make_orders,
    new_store_topic,
    start_features,
)
from bench.flink_faults import cancel_all
from bench.footprint import Footprint
from connectors.open import open_log_writer
from connectors.uri import sink_uri
from examples.events.journey import Journey
from examples.events.tables import encode
from runners.local.flink.cluster import flink_cluster
from runners.local.kafka_broker import kafka_broker
from schemas.events.framing import frame

_MOST_S = 300.0
_LIVE_PER_S, _LIVE_S, _TICK_S = 5_000, 20, 0.05


class Bench:
    """The measurements of one engine."""

    def __init__(self, folder: Path, host: str, options: list[str]) -> None:
        self._folder, self._host, self._options = folder, host, options

    def throughput(self, orders: Orders, name: str) -> tuple[float, float]:
        """(events a second, microseconds of processor time an event)."""
        events, topic, store = self._place(name)
        topic.send(orders)
        count = topic.end()
        job, footprint = self._start(events, store), Footprint()
        try:
            seen = list[tuple[float, int]]()
            started = time.monotonic()
            while (done := folded(store)) < count:
                seen.append((time.monotonic(), done))
                footprint.look(job.pid)
                if time.monotonic() - started > _MOST_S or job.poll() is not None:
                    raise RuntimeError(f"{done:,} of {count:,}: {(self._folder / 'log').read_text()[-800:]}")
                time.sleep(0.1)
            seen.append((time.monotonic(), done))
            footprint.look(job.pid)
        finally:
            kill(job)
        inner = [row for row in seen if count * 0.1 <= row[1] <= count * 0.9] or seen[-2:]
        rate = (inner[-1][1] - inner[0][1]) / max(0.001, inner[-1][0] - inner[0][0])
        return rate, footprint.cpu_s * 1e6 / count

    def readable(self, name: str) -> dict[str, float]:
        """Milliseconds from publishing to readable: of each message, when the noted positions had passed it."""
        events, topic, store = self._place(name)
        orders = make_orders(_LIVE_PER_S * _LIVE_S, 100_000, 7)
        job = self._start(events, store)
        try:
            topic.send(orders.part(0, 10))
            self._until(store, 10, job)
            sent, seen = list[tuple[float, int]](), list[tuple[float, int]]()
            started, size, place = time.monotonic(), int(_LIVE_PER_S * _TICK_S), 10
            due = started
            while place < len(orders.bodies):
                if time.monotonic() >= due:
                    part = orders.part(place, place + size)
                    sent.append((time.monotonic(), place + len(part.bodies)))
                    topic.send(part)
                    place, due = place + size, due + _TICK_S
                seen.append((time.monotonic(), folded(store)))
                time.sleep(0.002)
            self._until(store, len(orders.bodies), job, seen)
        finally:
            kill(job)
        times = np.array([row[0] for row in seen])
        counts = np.maximum.accumulate([row[1] for row in seen])  # 0 where the store could not be opened
        late = sent[len(sent) // 5 :]  # without the first fifth, in which everything starts
        passed = np.minimum(np.searchsorted(counts, [end for _, end in late]), len(times) - 1)
        waits = (times[passed] - np.array([at for at, _ in late])) * 1000
        cuts = statistics.quantiles(waits.tolist(), n=1000)
        return {"p50": round(cuts[499]), "p99": round(cuts[989]), "p999": round(cuts[998])}

    def _place(self, name: str) -> tuple[str, Topic, str]:
        prefix = f"bench-{name}-{os.getpid()}"
        return new_store_topic(self._host, prefix), Topic(self._host, prefix), f"lmdb:{self._folder}/{name}"

    def _start(self, events: str, store: str) -> subprocess.Popen[bytes]:
        return start_features(events, store, *self._options, log=self._folder / "log")

    def _until(
        self, store: str, count: int, job: subprocess.Popen[bytes], seen: list[tuple[float, int]] | None = None
    ) -> None:
        end = time.monotonic() + _MOST_S
        while (done := folded(store)) < count and time.monotonic() < end and job.poll() is None:
            if seen is not None:
                seen.append((time.monotonic(), done))
            time.sleep(0.002)
        if seen is not None:
            seen.append((time.monotonic(), done))


def backfill(folder: Path) -> float:
    """Seconds of a drain over all purchases, as at the end of their year."""
    table = Journey().order_lines()
    head = frame(ORDER_LINE, ORDER_LINE.newest)
    bodies = [head + body for body in encode(ORDER_LINE, table).to_pylist()]
    writer = open_log_writer(sink_uri(f"file:{folder}/events/{TYPE}"), PARTITIONS)
    households, published = table["household_id"].to_pylist(), table["published_at"].to_pylist()
    for partition in range(PARTITIONS):
        own = [place for place, name in enumerate(households) if zlib.crc32(name.encode()) % PARTITIONS == partition]
        for start in range(0, len(own), 2_000):
            part = own[start : start + 2_000]
            writer.append(partition, [bodies[place] for place in part], [published[place] for place in part], {})
    writer.close()
    options = ["--on=direct", "--drain", "--idle=0.5", "--as_of=2018-01-01"]
    started = time.monotonic()
    job = start_features(f"file:{folder}/events", f"lmdb:{folder}/backfill", *options, log=folder / "log")
    if job.wait(_MOST_S * 2):
        raise RuntimeError((folder / "log").read_text("utf-8", "replace")[-1_500:])
    return round(time.monotonic() - started, 1)


def main() -> None:
    """Prints the JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--events", type=int, default=300_000)
    parser.add_argument("--engines", default="prism,flink")
    args = parser.parse_args()
    say = lambda text: print(text, file=sys.stderr, flush=True)  # noqa: E731
    result: dict[str, Any] = {"events_per_s": {}, "readable_ms": {}}
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder, kafka_broker() as broker:
        for engine in args.engines.split(","):
            place = Path(folder) / engine
            place.mkdir()
            with ExitStack() as stack:
                on = ["--on=prism"]
                if engine == "flink":
                    cluster = stack.enter_context(flink_cluster(place / "flink"))
                    on = ["--on=flink", *cluster.options(), "--checkpointing_interval=5000"]
                bench = Bench(place, broker.host, on)
                say(f"{engine}: rate")
                rate, cpu = bench.throughput(make_orders(args.events, 1_000_000, 1), "rate")
                result["events_per_s"][engine] = round(rate)
                if engine == "prism":
                    result["cpu_us_per_event"] = round(cpu, 1)
                    say("prism: few and many entities")
                    few, many = (
                        bench.throughput(make_orders(args.events, entities, 2, skew=0.0), f"of-{entities}")
                        for entities in (1_000, 5_000_000)
                    )
                    result["entities_scaling"] = {
                        "events_per_s": {"1000": round(few[0]), "5000000": round(many[0])},
                        "many_by_few": round(many[0] / few[0], 2),
                        "cpu_us_per_event": {"1000": round(few[1], 1), "5000000": round(many[1], 1)},
                    }
                say(f"{engine}: freshness")
                if engine == "flink":
                    cancel_all(cluster)
                result["readable_ms"][engine] = bench.readable("live")
        say("backfill")
        result["backfill_s"] = backfill(Path(folder))
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
