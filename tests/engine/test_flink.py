"""Launch and rebatch on a real Flink cluster: the answers of other engines, kills, a savepoint and an upgrade."""

from __future__ import annotations

import io
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from typing import Any

import fastavro
import pytest
from support.delivering import KEY, Delivery, any_events, eventually
from support.factories import SECRET
from support.matrix import TRANSPORTS, Answer, answer
from support.servers import needed

from bench.deliveries import ROOT, Wire, kill, plain_topic, publish_to
from bench.flink_faults import kill_workers, latest_checkpoint
from connectors.pubsub.reader import PubsubReader
from connectors.uri import KafkaUri
from runners.cli.main import main
from runners.local.flink.cluster import FlinkCluster, flink_cluster
from runners.local.flink.jobs import OVER
from runners.sandbox.process import Sandbox
from schemas.contracts import EVENT, decode, fingerprint, parsed, schema

pytestmark = [pytest.mark.engine, pytest.mark.timeout(600)]
ENVIRONMENT = {**KEY, "CAMPAIGNS_CODE_SECRET": SECRET}
PATIENCE_S = 240.0  # a job is submitted in half a minute, and restarted in as long
ELEMENTS = "from transforms.streaming.elements import Envelopes"
TERMS: dict[str, Any] = {"on_unknown": "hold", "lease": "PT2S", "timeout": "PT1S"}
LEASE_S = 20  # of a subscription: what its reader takes with it to the grave comes again after so long
EXTENDED_S = 60 + LEASE_S  # a living reader had extended them to so long
PACKAGES = ("connectors", "pipelines", "runners", "schemas", "stores", "transforms")
DECODE = 'envelopes | "Decode"'
NEWER = 'envelopes | "Newer" >> beam.Map(lambda one: one).with_output_types(Envelopes) | "Decode"'


def newer_version(folder: Path) -> Path:
    """A copy of the code whose pipeline has a step more and whose event has an optional field more."""
    for name in PACKAGES:
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    pipeline = folder / "pipelines/rebatch/pipeline.py"
    text = pipeline.read_text().replace(DECODE, NEWER)
    pipeline.write_text(text.replace("import BatchByRetailer\n", f"import BatchByRetailer\n{ELEMENTS}\n"))
    assert "Newer" in pipeline.read_text()
    (folder / "schemas/avro/campaign_event.avsc").write_text(json.dumps(newer_schema()))
    return folder


def newer_schema() -> dict[str, Any]:
    """The event with one more field, which older events do not have."""
    field = {"name": "headline", "type": ["null", "string"], "default": None}
    return {**schema(EVENT), "fields": [*schema(EVENT)["fields"], field]}


def newer(wire: Wire) -> Wire:
    """An event as the newer version writes it."""
    body, attributes = wire
    out = io.BytesIO()
    event = {**decode(attributes["schema"], body), "headline": "spring is here"}
    fastavro.schemaless_writer(out, parsed(newer_schema()), event)
    return out.getvalue(), {**attributes, "schema": fingerprint(newer_schema())}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory, pubsub_host: str) -> Iterator[FlinkCluster]:
    """A cluster whose workers have our keys, with its state on disk; skipped without Flink's jars, and a failure in CI."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {**ENVIRONMENT, "PUBSUB_EMULATOR_HOST": pubsub_host}.items():
            patch.setenv(name, value)
        with needed(flink_cluster(tmp_path_factory.mktemp("flink"), backend="rocksdb")) as made:
            yield made


def on(cluster: FlinkCluster, *more: str) -> list[str]:
    return ["--on=flink", *cluster.options(), *more]


@pytest.mark.usefixtures("everywhere")
@pytest.mark.parametrize("transport", TRANSPORTS)
def test_it_gives_the_same_answer_as_the_other_engines(
    transport: str, cluster: FlinkCluster, sample: Path, expected: Answer, tmp_path: Path, kafka_host: str
) -> None:
    assert answer(sample, tmp_path, transport, on(cluster), kafka_host) == expected
    assert set(cluster.jobs().values()) <= OVER


def running(cluster: FlinkCluster) -> str:
    """The job that runs, once there is one."""
    jobs = eventually(lambda: [job for job, state in cluster.jobs().items() if state == "RUNNING"], "a job", PATIENCE_S)
    return str(jobs[0])


def checkpointed(cluster: FlinkCluster) -> None:
    """Waits for a whole checkpoint that is newer than now."""
    before = latest_checkpoint(cluster)
    eventually(lambda: latest_checkpoint(cluster) != before, "a checkpoint", PATIENCE_S)


def ended(delivery: Delivery, events: dict[str, Wire], *retailers: str) -> None:
    """Waits until all events of these retailers have an end."""
    due = [key for key, wire in events.items() if wire[1]["retailer_id"] in retailers]
    eventually(lambda: len(delivery.settled(*due)) == len(due), f"the end of {len(due)} events", PATIENCE_S)


def test_nothing_stays_behind_in_a_checkpoint(
    cluster: FlinkCluster, sandbox: Sandbox, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    topic, subscription = plain_topic("start")
    delivery, events = Delivery(tmp_path, sandbox.url, f"pubsub:{subscription}"), any_events(40)
    delivery.configure(**TERMS)

    # One checkpoint after the other, so that bundles are open when it comes: also the only one that a source begins with.
    with delivery.started(*on(cluster, "--checkpointing_interval=50", "--min_pause_between_checkpoints=0")):
        running(cluster)
        publish_to(f"pubsub:{topic}", list(events.values()))
        ended(delivery, events, "kroger", "aldi")
        assert main(["flink", "stop", "--address", cluster.address]) == 0
        capsys.readouterr()
    assert set(sandbox.accepted().values()) == {1}


def test_pubsub_messages_are_acknowledged_when_a_checkpoint_holds_them(
    cluster: FlinkCluster, sandbox: Sandbox, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    topic, subscription = plain_topic("acks", ack_s=LEASE_S)
    delivery, events = Delivery(tmp_path, sandbox.url, f"pubsub:{subscription}"), any_events(40, "held")
    delivery.configure({"aldi": {"paused": True}}, **TERMS)

    # Bundles shorter than a checkpoint: then some end after its barrier and before it is whole.
    with delivery.started(*on(cluster, "--max_bundle_time_mills=5")):
        running(cluster)
        publish_to(f"pubsub:{topic}", list(events.values()))
        ended(delivery, events, "kroger")
        for _ in range(3):  # the first may have begun before the last were read, and each is waited for by the next
            checkpointed(cluster)
        assert waiting(subscription) == []  # aldi's are in the checkpoint now, and nowhere else
        with published_all_the_time(topic, events):
            for _ in range(2):
                checkpointed(cluster)
            time.sleep(0.3)  # until its end has been told
            assert kill_workers(cluster) > 0
            leases_end = time.monotonic() + EXTENDED_S
        ended(delivery, events, "kroger")
        delivery.configure(**TERMS)
        ended(delivery, events, "kroger", "aldi")
        time.sleep(max(0.0, leases_end - time.monotonic()))  # until what the killed workers had leased came again
        for _ in range(3):
            checkpointed(cluster)
        assert main(["flink", "stop", "--address", cluster.address]) == 0
        capsys.readouterr()
    assert set(sandbox.accepted().values()) == {1}
    assert set(delivery.settled(*events).values()) <= {"accepted", "unknown"}
    assert waiting(subscription) == []


@contextmanager
def published_all_the_time(topic: str, events: dict[str, Wire]) -> Iterator[None]:
    """Publishes more and more events while the block runs, which are then in `events` too."""
    over = Event()

    def publish() -> None:
        for number in itertools.count():
            more = any_events(4, f"one of many, {number}")
            publish_to(f"pubsub:{topic}", list(more.values()))
            events.update(more)
            if over.wait(0.01):
                return

    with ThreadPoolExecutor(1) as pool:
        published = pool.submit(publish)
        try:
            yield
        finally:
            over.set()
            published.result()


def waiting(subscription: str) -> list[str]:
    """The messages that come again once the leases of all that was read and not acknowledged have ended."""
    reader, found, end = PubsubReader(subscription), list[str](), time.monotonic() + LEASE_S + 5
    reader.open()
    while time.monotonic() < end:
        found += [one.attributes["event_id"] for one in reader.poll(1_000).envelopes]
    reader.close()
    return found


def test_kills_a_savepoint_and_an_upgrade_lose_nothing_and_send_nothing_twice(
    cluster: FlinkCluster, sandbox: Sandbox, tmp_path: Path, uri: KafkaUri, capsys: pytest.CaptureFixture[str]
) -> None:
    everyone: dict[str, Wire] = {}
    delivery, paused = Delivery(tmp_path, sandbox.url, str(uri)), {"aldi": {"paused": True}}
    delivery.configure(paused, **TERMS)

    def sent(name: str, *retailers: str, change: Callable[[Wire], Wire] = lambda wire: wire) -> None:
        """Sends more events; those of `retailers` must all have an end."""
        more = {key: change(wire) for key, wire in any_events(40, name).items()}
        publish_to(str(uri), list(more.values()))
        everyone.update(more)
        ended(delivery, everyone, *retailers)

    with delivery.started(*on(cluster)) as job:
        first = running(cluster)
        sent("first", "kroger")
        checkpointed(cluster)
        assert kill_workers(cluster) > 0
        sent("after the worker", "kroger")
        checkpointed(cluster)
        cluster.kill("taskmanager")
        cluster.start()
        sent("after the task manager", "kroger")
        assert main(["flink", "stop", "--address", cluster.address]) == 0
        told = capsys.readouterr().out
        savepoint = told.partition("--savepoint_path=")[2].strip()
        assert first in told
        job.wait(timeout=60)
    assert main(["flink", "stop", first, "--address", cluster.address]) == 1
    assert f"{first} does not run there (running: none)" in capsys.readouterr().err
    delivery.configure(**TERMS)
    cluster.kill("pool")
    cluster.code = newer_version(tmp_path / "newer")
    cluster.start()
    argv = [sys.executable, "-m", "pipelines.rebatch", *delivery.argv(*on(cluster, f"--savepoint_path={savepoint}"))]
    upgraded = subprocess.Popen(argv, cwd=cluster.code, env={**os.environ, **KEY}, start_new_session=True)
    try:
        sent("after the upgrade", "kroger", "aldi")
        sent("after the upgrade, with the new field", "kroger", "aldi", change=newer)
        checkpointed(cluster)
    finally:
        kill(upgraded)
    cluster.stop()
    cluster.start()
    with delivery.started(*on(cluster, f"--savepoint_path={latest_checkpoint(cluster)}"), code=cluster.code) as job:
        sent("after everything", "kroger", "aldi", change=newer)
        job.send_signal(signal.SIGTERM)
        _, told = job.communicate(timeout=120)
        assert job.returncode == 0, told
    assert set(sandbox.accepted().values()) == {1}
    settled = delivery.settled(*everyone)
    assert {name for name, end in settled.items() if end == "accepted"} <= sandbox.accepted().keys()
    assert set(settled.values()) <= {"accepted", "unknown"}
