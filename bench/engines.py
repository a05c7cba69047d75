"""Measure rebatch on Prism and on Flink, in one run; prints JSON.

    python -m bench.engines [--events 100000]

events_per_s          rebatch from Kafka and from the Pub/Sub emulator to accepted at the sandbox, between the first and the
                      last tenth, on Prism and on Flink (a local cluster, exactly-once checkpoints every 5 s)
checkpoints_cost      Flink from Kafka without checkpoints, by the same with one every 5 s
recovery_s            on Flink, from a kill -9 of the Python worker, of the TaskManager, of everything, to the next accepted
                      event, at 300 events/s (after everything: with the cluster's start and the job's submission)
kafka_source          messages/s of our two readers alone, by those of a plain consumer
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

from confluent_kafka import Consumer

from bench.deliveries import (
    fresh_topic,
    kafka_topic,
    kill,
    make_event,
    on_the_wire,
    publish_to,
    start_rebatch,
    write_campaigns,
)
from bench.flink_faults import cancel_all, kill_workers, latest_checkpoint
from bench.rebatch import DELIVERY, events, rate, watch
from connectors.kafka.client import KafkaClient
from connectors.kafka.partition_reader import KafkaPartitionReader
from connectors.kafka.reader import KafkaReader
from connectors.uri import KafkaUri, parse_uri
from pipelines.engines.memory import collect_rarely
from runners.local.emulators import pubsub_emulator
from runners.local.flink.cluster import FlinkCluster, flink_cluster
from runners.local.kafka_broker import kafka_broker
from runners.sandbox.process import Sandbox, running_sandbox

_POLL = 5_000
_MOST_S = 240.0
_RATE = 300  # events/s while something is killed
Say = Callable[[str], None]


class Bench:
    """The measurements, with a broker and an emulator, in a folder."""

    def __init__(self, folder: Path, broker: str, say: Say) -> None:
        self._folder, self._broker, self._say = folder, broker, say

    @contextmanager
    def _place(self) -> Iterator[tuple[Path, Sandbox, Path]]:
        place = Path(tempfile.mkdtemp(dir=self._folder))
        with running_sandbox(keep=1) as sandbox:
            yield place, sandbox, write_campaigns(place / "campaigns", sandbox.url, DELIVERY)

    def throughput(self, source: str, count: int, *options: str) -> float:
        """Events a second of a service: on Flink a drain would run without checkpoints."""
        self._say(f"{source} {' '.join(options)[:40]}")
        some = events(count, 350, 3)
        to, uri = fresh_topic(source, "rate", self._broker)
        publish_to(to, some)
        with self._place() as (place, sandbox, campaigns):
            job = start_rebatch(campaigns, uri, place / "out", *options, log=place / "log")
            try:
                seen = watch(sandbox, count, job, _MOST_S)
                if seen[-1][1] < count:
                    self._say(f"only {seen[-1][1]} of {count} in {_MOST_S:.0f} s")
                return rate(seen)
            finally:
                kill(job)

    def recovery(self, cluster: FlinkCluster) -> dict[str, float | None]:
        """Seconds from a kill to the next accepted event."""
        uri, over = kafka_topic(self._broker, "recovery"), threading.Event()

        def feed() -> None:
            rnd, number = random.Random(1), 0
            while not over.wait(0.5):
                now = int(time.time() * 1000)
                some = [make_event(rnd, number + n, f"store-{n % 35}", now) for n in range(_RATE // 2)]
                publish_to(uri, on_the_wire(some))
                number += len(some)

        with self._place() as (place, sandbox, campaigns):
            submit = lambda *more: start_rebatch(  # noqa: E731
                campaigns, uri, place / "out", "--on=flink", *cluster.options(), *more, log=place / "log"
            )
            job, feeder = submit(), threading.Thread(target=feed, daemon=True)
            feeder.start()
            found: dict[str, float | None] = {}
            try:
                self._next(sandbox, time.monotonic())
                for kind in ("worker", "taskmanager", "everything"):
                    time.sleep(12)  # two checkpoints
                    self._say(f"kill {kind}")
                    killed = time.monotonic()
                    if kind == "worker":
                        kill_workers(cluster)
                    elif kind == "taskmanager":
                        cluster.kill("taskmanager")
                        cluster.start()
                    else:
                        kill(job)
                        cluster.stop()
                        cluster.start()
                        job = submit(f"--savepoint_path={latest_checkpoint(cluster)}")
                    found[kind] = self._next(sandbox, killed)
            finally:
                over.set()
                kill(job)
            return found

    def _next(self, sandbox: Sandbox, since: float) -> float | None:
        """Seconds from a moment until something more is accepted than was on its way then; None if nothing came."""
        time.sleep(1.0)  # calls that were out when it died
        before = int(sandbox.summary()["accepted"])
        while time.monotonic() - since < _MOST_S:
            if int(sandbox.summary()["accepted"]) > before:
                return round(time.monotonic() - since, 1)
            time.sleep(0.2)
        return None

    def source(self, count: int) -> dict[str, float]:
        """Messages a second of the readers alone and of a plain consumer."""
        self._say("Kafka's readers alone")
        name = kafka_topic(self._broker, "source")
        for start in range(0, count, 50_000):
            publish_to(name, events(min(50_000, count - start), 350, start))
        uri = cast(KafkaUri, parse_uri(name))
        collect_rarely()  # as the workers do
        plain, reader = _plain(uri, count), _read_all(uri, count)
        return {
            "plain_per_s": round(plain),
            "reader_per_s": round(reader),
            "log_per_s": round(log := _log(uri, count)),
            "reader_by_plain": round(reader / plain, 2),
            "log_by_plain": round(log / plain, 2),
        }


def _plain(uri: KafkaUri, count: int) -> float:
    settings = {"bootstrap.servers": uri.brokers[0], "group.id": "plain", "auto.offset.reset": "earliest"}
    consumer, got, started = Consumer(settings), 0, 0.0
    consumer.subscribe([uri.topic])
    while got < count:
        some = consumer.consume(_POLL, 1.0)
        started = started or (time.perf_counter() if some else 0.0)
        got += len([one.value() for one in some if one.error() is None])
    consumer.close()
    return count / (time.perf_counter() - started)


def _read_all(uri: KafkaUri, count: int) -> float:
    reader, got, started = KafkaReader(uri, KafkaClient(), "reader"), 0, 0.0
    reader.open()
    while got < count:
        poll = reader.poll(_POLL)
        started = started or (time.perf_counter() if poll.envelopes else 0.0)
        got += len(poll.envelopes)
        reader.commit(poll.handle)
    reader.close()
    return count / (time.perf_counter() - started)


def _log(uri: KafkaUri, count: int) -> float:
    log, got = KafkaPartitionReader(uri, KafkaClient(), "log"), 0
    log.open()
    offsets, started = log.starts(0), 0.0
    while got < count:
        for partition, offset in enumerate(offsets):
            poll = log.poll(partition, offset, _POLL)
            started = started or (time.perf_counter() if poll.envelopes else 0.0)
            got, offsets[partition] = got + len(poll.envelopes), poll.handle
    log.close()
    return count / (time.perf_counter() - started)


def main() -> None:
    """Prints the JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--events", type=int, default=100_000)
    parser.add_argument("--only-kafka", action="store_true", help="measure Kafka's readers alone, nothing else")
    args = parser.parse_args()
    say: Say = lambda text: print(text, file=sys.stderr, flush=True)  # noqa: E731
    os.environ["SANDBOX_KEY"] = "key"
    rates: dict[str, dict[str, int]] = {"prism": {}, "flink": {}}
    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder,
        kafka_broker() as broker,
        pubsub_emulator() as host,
    ):
        os.environ["PUBSUB_EMULATOR_HOST"] = host
        bench = Bench(Path(folder), broker.host, say)
        source = bench.source(200_000)
        if args.only_kafka:
            print(json.dumps({"kafka_source": source}, indent=2))
            return
        for name in ("kafka", "pubsub"):
            rates["prism"][name] = round(bench.throughput(name, args.events, "--on=prism"))
        with flink_cluster(Path(folder) / "flink") as cluster:
            on = ("--on=flink", *cluster.options())
            for name in ("kafka", "pubsub"):
                rates["flink"][name] = round(bench.throughput(name, args.events, *on))
                cancel_all(cluster)
            without = bench.throughput("kafka", args.events, *on, "--checkpointing_interval=3600000")
            cancel_all(cluster)
            recovery = bench.recovery(cluster)
    result: dict[str, Any] = {
        "events_per_s": rates,
        "checkpoints_cost": round(without / max(1, rates["flink"]["kafka"]), 2),
        "recovery_s": recovery,
        "kafka_source": source,
    }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
