"""The crash certificate of features: killed many times, and every tile equals a recount of the events.

    python -m bench.certificate_features [--events 200000] [--kills 20] [--engines prism,flink]

Order lines of skewed households go to a Kafka event store, out of order and 2 % of them twice, while the job runs. On
Prism the whole job is killed with -9 at random moments and started again; on Flink, in turn, its workers, the
TaskManager, and everything, after which the job begins anew without a checkpoint. At the end a second owner of all
partitions folds the whole store again. JSON: `tiles`, `kills`, `wrong`, `missing`, `extra` and `folded_again` by engine.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from bench.certificate_flink import kill_workers
from bench.deliveries import kill
from bench.feature_events import Orders, Topic, folded, make_orders, new_store_topic, recount, start_features
from runners.local.flink.cluster import FlinkCluster, flink_cluster
from runners.local.kafka_broker import kafka_broker

_PATIENCE_S = 120.0
_REPEATED = 0.02


class Run:
    """One engine, one event store, one feature store."""

    def __init__(self, folder: Path, host: str, engine: str, cluster: FlinkCluster | None) -> None:
        self._folder, self._cluster = folder, cluster
        prefix = f"cert-{engine}-{os.getpid()}"
        self._events, self._topic = new_store_topic(host, prefix), Topic(host, prefix)
        self._store = f"lmdb:{folder}/store"
        self._next = threading.Event()
        self._options = ["--on=flink", *cluster.options()] if cluster else ["--on=prism"]

    def start(self, *more: str) -> subprocess.Popen[bytes]:
        """The job."""
        return start_features(self._events, self._store, *self._options, *more, log=self._folder / "log")

    def certify(self, orders: Orders, kills: int, seed: int) -> dict[str, Any]:
        """Publishes while it kills; then waits until all is folded, and recounts."""
        rnd, job = random.Random(seed), self.start()
        size = -(-len(orders.bodies) // (kills + 1))
        parts = [orders.part(start, start + size) for start in range(0, len(orders.bodies), size)]
        feeder = threading.Thread(target=self._feed, args=(parts,))
        feeder.start()
        for number in range(kills):
            before = folded(self._store)
            self._next.set()
            self._wait_for(before + 1)
            time.sleep(rnd.uniform(0.0, 3.0))
            print(f"kill {number + 1} of {kills}: {folded(self._store):,} folded", file=sys.stderr, flush=True)
            job = self._kill(job, number)
        self._next.set()
        feeder.join()
        self._wait_for(self._topic.end())
        kill(job)
        found = recount(orders, self._store)
        again = self._fold_again()
        return {**found, "kills": kills, "folded_again": again}

    def _feed(self, parts: list[Orders]) -> None:
        """Publishes a part after each kill, in twenty pieces."""
        for number, part in enumerate(parts):
            self._next.wait()
            self._next.clear()
            size = -(-len(part.bodies) // 20)
            for start in range(0, len(part.bodies), size):
                self._topic.send(part.part(start, start + size), _REPEATED, number)
                time.sleep(0.3)

    def _kill(self, job: subprocess.Popen[bytes], number: int) -> subprocess.Popen[bytes]:
        if self._cluster is None:
            kill(job)
            return self.start()
        kind = ("worker", "taskmanager", "everything")[number % 3]
        if kind == "worker":
            kill_workers(self._cluster)
        elif kind == "taskmanager":
            self._cluster.kill("taskmanager")
            self._cluster.start()
        else:
            kill(job)
            self._cluster.stop()
            self._cluster.start()
            return self.start()
        return job

    def _wait_for(self, messages: int) -> None:
        end = time.monotonic() + _PATIENCE_S
        while folded(self._store) < messages:
            if time.monotonic() > end:
                log = (self._folder / "log").read_text("utf-8", "replace")[-1_500:]
                raise RuntimeError(f"{folded(self._store):,} of {messages:,} messages were folded: {log}")
            time.sleep(0.3)

    def _fold_again(self) -> bool:
        """Whether a job that is started again over the whole store ends by itself and by a signal alike."""
        job = self.start("--drain", "--idle=2") if self._cluster is None else None
        if job is None:
            return True
        try:
            return job.wait(_PATIENCE_S) == 0
        finally:
            if job.poll() is None:
                os.killpg(job.pid, signal.SIGKILL)


def main() -> None:
    """Prints the JSON; exits with 1 when a tile is not a recount of its events."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--events", type=int, default=200_000)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--entities", type=int, default=5_000)
    parser.add_argument("--engines", default="prism,flink")
    args = parser.parse_args()
    result: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder, kafka_broker() as broker:
        for seed, engine in enumerate(args.engines.split(",")):
            place = Path(folder) / engine
            place.mkdir()
            orders = make_orders(args.events, args.entities, seed)
            with ExitStack() as stack:
                cluster = stack.enter_context(flink_cluster(place / "flink")) if engine == "flink" else None
                result[engine] = Run(place, broker.host, engine, cluster).certify(orders, args.kills, seed)
    print(json.dumps(result, indent=2))
    sys.exit(int(any(one["wrong"] or one["missing"] or one["extra"] for one in result.values())))


if __name__ == "__main__":
    main()
