"""Launch and rebatch on a real Flink cluster: the answers of other engines, kills, a savepoint and an upgrade."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from delivering import KEY, Delivery, any_events, eventually
from factories import SECRET
from matrix import TRANSPORTS, Answer, answer
from servers import needed

from bench.deliveries import ROOT, Wire, kill, publish_to
from runners.flink.cluster import OVER, FlinkCluster, flink_cluster
from runners.sandbox.process import Sandbox
from stores.transports.uri import KafkaUri

pytestmark = [pytest.mark.engine, pytest.mark.timeout(600)]
ENVIRONMENT = {**KEY, "CAMPAIGNS_CODE_SECRET": SECRET}
PATIENCE_S = 240.0  # a job is submitted in half a minute, and restarted in as long
NEWER = """
import sys
import apache_beam as beam
from pipelines import rebatch
from transforms.rebatch.elements import Envelopes

read = rebatch._read
rebatch._read = lambda *given: read(*given) | "Newer" >> beam.Map(lambda one: one).with_output_types(Envelopes)
sys.exit(rebatch.run())
"""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory, pubsub_host: str) -> Iterator[FlinkCluster]:
    """A cluster whose workers have our keys; skipped without Flink's jars, and a failure in CI."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {**ENVIRONMENT, "PUBSUB_EMULATOR_HOST": pubsub_host}.items():
            patch.setenv(name, value)
        with needed(flink_cluster(tmp_path_factory.mktemp("flink"))) as made:
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
    before = cluster.latest_checkpoint()
    eventually(lambda: cluster.latest_checkpoint() != before, "a checkpoint", PATIENCE_S)


def test_kills_a_savepoint_and_an_upgrade_lose_nothing_and_send_nothing_twice(
    cluster: FlinkCluster, sandbox: Sandbox, tmp_path: Path, uri: KafkaUri
) -> None:
    everyone: dict[str, Wire] = {}
    delivery, paused = Delivery(tmp_path, sandbox.url, str(uri)), {"aldi": {"paused": True}}
    delivery.configure(paused, on_unknown="hold", lease="PT2S", timeout="PT1S")

    def sent(name: str, *retailers: str) -> None:
        """Sends more events; those of `retailers` must all have an end."""
        more = any_events(40, name)
        publish_to(str(uri), list(more.values()))
        everyone.update(more)
        due = [key for key, wire in everyone.items() if wire[1]["retailer_id"] in retailers]
        eventually(lambda: len(delivery.settled(*due)) == len(due), f"the end of all up to {name}", PATIENCE_S)

    with delivery.started(*on(cluster)) as job:
        first = running(cluster)
        sent("first", "kroger")
        checkpointed(cluster)
        assert cluster.kill_workers() > 0
        sent("after the worker", "kroger")
        checkpointed(cluster)
        cluster.kill("taskmanager")
        cluster.start()
        sent("after the task manager", "kroger")
        savepoint = cluster.stop_with_savepoint(first)
        job.wait(timeout=60)
    delivery.configure(on_unknown="hold", lease="PT2S", timeout="PT1S")
    argv = [sys.executable, "-c", NEWER, *delivery.argv(*on(cluster, f"--savepoint_path={savepoint}"))]
    upgraded = subprocess.Popen(argv, cwd=ROOT, env={**os.environ, **KEY}, start_new_session=True)
    try:
        sent("after the upgrade", "kroger", "aldi")
        checkpointed(cluster)
    finally:
        kill(upgraded)
    cluster.stop()
    cluster.start()
    with delivery.started(*on(cluster, f"--savepoint_path={cluster.latest_checkpoint()}")) as job:
        sent("after everything", "kroger", "aldi")
        job.send_signal(signal.SIGTERM)
        _, told = job.communicate(timeout=120)
        assert job.returncode == 0, told
    assert set(sandbox.accepted().values()) == {1}
    settled = delivery.settled(*everyone)
    assert {name for name, end in settled.items() if end == "accepted"} <= sandbox.accepted().keys()
    assert set(settled.values()) <= {"accepted", "unknown"}
