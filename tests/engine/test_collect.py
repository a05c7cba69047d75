"""Collect on engines, killed and started again: every event in the store, once."""

from __future__ import annotations

import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import Topic
from support.collecting import Collection, any_rows, write_rows
from support.delivering import eventually
from support.raw_events import TYPES, message_of
from support.servers import needed

from bench.deliveries import publish
from bench.flink_faults import kill_workers
from connectors.kafka.client import KafkaClient
from connectors.kafka.sink import KafkaPublisher
from connectors.open import open_partitions
from connectors.uri import KafkaUri
from runners.cli.main import main
from runners.local.flink.cluster import FlinkCluster, flink_cluster
from schemas.transport import Envelope
from transforms.features.scan_events import scan

pytestmark = pytest.mark.engine


@pytest.fixture(autouse=True)
def _prism(prism_engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAMPAIGNS_PRISM", prism_engine)


@pytest.fixture
def collection(tmp_path: Path) -> Collection:
    return Collection(tmp_path)


def ids(count: int, start: int = 0) -> Counter[str]:
    return Counter(f"order_line-{number}" for number in range(start, start + count))


def wait(job: subprocess.Popen[str], collection: Collection, events: int) -> None:
    """Waits until so many events are in the store, or the job has ended."""
    eventually(lambda: job.poll() is not None or collection.count("order_line") >= events, "the events")


def send(uri: KafkaUri, start: int, count: int) -> None:
    """Publishes events to Kafka, each twice."""
    rows = [message_of(row) for row in any_rows("order_line", count, start)] * 2
    with KafkaPublisher(uri, KafkaClient()) as publisher:
        publisher.submit([(number, one.body, str(number), []) for number, one in enumerate(rows)])
        assert publisher.settle() == []


def test_files_that_come_while_it_runs_are_stored_once_over_kills(collection: Collection) -> None:
    for kill in range(3):
        with collection.started() as job:
            for part in range(3 * kill, 3 * kill + 3):
                write_rows(collection.raw, f"part-{part}", any_rows("order_line", 500, 500 * part))
                wait(job, collection, 500 * part)
            job.kill()
            job.communicate()
    with collection.started() as job:
        wait(job, collection, 4_500)
        job.terminate()
        out, err = job.communicate(timeout=60)
    assert job.returncode == 0, err
    assert "stopping: what was read is stored first" in err
    assert "4,500" in out
    assert collection.stored("order_line") == ids(4_500)


def test_kafka_is_read_into_files_once_over_kills(collection: Collection, uri: KafkaUri) -> None:
    options = (f"--source={uri}", "--kafka_group=collect")
    for kill in range(3):
        with collection.started(*options) as job:
            for part in range(3 * kill, 3 * kill + 3):
                send(uri, 400 * part, 400)
                wait(job, collection, 400 * part)
            job.kill()
            job.communicate()
    with collection.started(*options, "--drain", "--idle=3") as job:
        _, err = job.communicate(timeout=120)
    assert job.returncode == 0, err
    assert collection.stored("order_line") == ids(3_600)


def test_pubsub_and_files_are_read_into_kafka(collection: Collection, topic: Topic, kafka_host: str) -> None:
    store = KafkaUri((kafka_host,), f"events-{time.time_ns()}")
    messages = [message_of(row) for row in any_rows("order_line", 300)]
    publish(topic.path, [(one.body, {}) for one in messages])
    write_rows(collection.raw, "a", any_rows("order_line", 200, start=250) + any_rows("order_line", 1, quantity=-5))
    write_rows(collection.raw, "b", any_rows("item_scan", 10))
    options = [f"--source=pubsub:{topic.subscription}", f"--source=file:{collection.raw}", f"--store={store}"]
    options += [f"--output={collection.store}", "--drain", "--idle=2", "--partitions=3"]
    with collection.started(*options) as job:
        _, err = job.communicate(timeout=120)
    assert job.returncode == 0, err
    assert collection.quarantined() == {"order_line": 1}
    stored: list[Envelope] = []
    reader = open_partitions(store.of_type("order_line"), KafkaClient(), "test", idle_s=1.0)
    reader.open()
    starts = reader.starts(0)
    assert len(starts) == 3
    keys: dict[bytes, set[int]] = {}
    for partition, offset in enumerate(starts):
        while not (poll := reader.poll(partition, offset, 1_000)).done:
            stored += poll.envelopes
            offset = poll.handle
            for one in poll.envelopes:
                keys.setdefault(one.body.split(b"k-")[1][:2], set()).add(partition)
    reader.close()
    scanned = scan(TYPES["order_line"], stored, time.time_ns() // 1_000_000)
    assert Counter(scanned.event_ids) == ids(450)
    assert all(len(partitions) == 1 for partitions in keys.values())


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[FlinkCluster]:
    """A cluster of its own; skipped without Flink's jars, and a failure in CI."""
    with needed(flink_cluster(tmp_path / "flink", backend="rocksdb")) as made:
        yield made


@pytest.mark.timeout(600)
def test_kafka_is_read_on_flink_once_over_kills_of_the_workers_and_of_the_job(
    collection: Collection, uri: KafkaUri, cluster: FlinkCluster, capsys: pytest.CaptureFixture[str]
) -> None:
    options = (f"--source={uri}", "--kafka_group=collect", "--on=flink", *cluster.options(), "--partitions=3")
    with collection.started(*options):
        for part in range(3):
            send(uri, 400 * part, 400)
            eventually(lambda: collection.count("order_line") > 0, "events", 240.0)
            kill_workers(cluster)
        eventually(lambda: collection.count("order_line") >= 1_200, "all events", 240.0)
    assert main(["flink", "stop", "--address", cluster.address]) == 0
    capsys.readouterr()
    with collection.started(*options):  # not from the savepoint: the group's offsets, and no state
        send(uri, 1_000, 400)
        eventually(lambda: collection.count("order_line") >= 1_400, "the last events", 240.0)
    assert collection.stored("order_line") == ids(1_400)
