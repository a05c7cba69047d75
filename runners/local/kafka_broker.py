"""A Kafka broker on this machine, for tests and benchmarks: one node, broker and controller in one, no Docker."""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from runners.local.emulators import EmulatorError, free_port, run_server

_TODO = "run `make engines`, or set CAMPAIGNS_KAFKA to a folder with the jars of Kafka 4"
_INSTALLED = Path(__file__).parents[2] / ".engines/kafka"  # by `make engines`
_SMALL = ("-Xms96m", "-Xmx384m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")
_USER = "campaigns"
_FORMATTED = "meta.properties"


class KafkaBroker(NamedTuple):
    """A running broker: its address, and the address that asks for a user and a password (SASL/PLAIN, no TLS)."""

    host: str
    sasl_host: str
    user: str
    password: str
    pid: int


def kafka_jars() -> Path:
    """The folder with Kafka's jars: CAMPAIGNS_KAFKA, or what `make engines` installed. Raises EmulatorError."""
    named = os.environ.get("CAMPAIGNS_KAFKA")
    folder = Path(named) if named else _INSTALLED
    if not list(folder.glob("kafka_2.13-*.jar")):
        raise EmulatorError(f"no Kafka in {named or '.engines/kafka'}; {_TODO}")
    return folder


@contextmanager
def kafka_broker(data: Path | None = None, port: int | None = None) -> Iterator[KafkaBroker]:
    """A running broker, which ends with the block.

    With `data` its messages stay in that folder, and a broker started there again, on the same `port`, has them;
    otherwise they are deleted. Topics are not created automatically. Raises EmulatorError when Java or Kafka is missing
    or it does not answer within a minute.
    """
    java, jars = shutil.which("java"), kafka_jars()
    if java is None:
        raise EmulatorError(f"no java found; install Java 17, then {_TODO}")
    folder = Path(data or tempfile.mkdtemp(prefix="kafka-"))
    folder.mkdir(parents=True, exist_ok=True)
    password = secrets.token_hex(8)
    hosts = [f"127.0.0.1:{port or free_port()}", f"127.0.0.1:{free_port()}"]
    settings = folder / "server.properties"
    settings.touch(mode=0o600)
    settings.write_text(_properties(folder / "log", hosts, free_port(), password), "utf-8")
    run = [java, *_SMALL, "-cp", f"{jars}/*"]
    try:
        if not (folder / "log" / _FORMATTED).exists():
            cluster_id = "A" + secrets.token_urlsafe(16)[1:]  # 22 characters that do not begin with a hyphen
            format_log = [*run, "kafka.tools.StorageTool", "format", "-t", cluster_id, "-c", str(settings)]
            done = subprocess.run(format_log, capture_output=True, text=True, timeout=60.0, check=False)
            if done.returncode:
                raise EmulatorError(f"Kafka cannot use {folder} ({(done.stderr or done.stdout).strip()[-500:]})")
        command, log = [*run, "kafka.Kafka", str(settings)], str(folder / "output.log")
        with run_server(command, "Kafka", hosts[0], partial(_lists_topics, hosts[0]), log) as process:
            yield KafkaBroker(hosts[0], hosts[1], _USER, password, process.pid)
    finally:
        if data is None:
            shutil.rmtree(folder, ignore_errors=True)


def _properties(log: Path, hosts: list[str], controller: int, password: str) -> str:
    login = "org.apache.kafka.common.security.plain.PlainLoginModule required"
    return f"""\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
controller.listener.names=CONTROLLER
listeners=PLAINTEXT://{hosts[0]},SASL_PLAINTEXT://{hosts[1]},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://{hosts[0]},SASL_PLAINTEXT://{hosts[1]}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,SASL_PLAINTEXT:SASL_PLAINTEXT,CONTROLLER:PLAINTEXT
inter.broker.listener.name=PLAINTEXT
sasl.enabled.mechanisms=PLAIN
listener.name.sasl_plaintext.plain.sasl.jaas.config={login} user_{_USER}="{password}";
log.dirs={log}
auto.create.topics.enable=false
num.partitions=1
offsets.topic.replication.factor=1
offsets.topic.num.partitions=2
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
broker.session.timeout.ms=3000
broker.heartbeat.interval.ms=500
num.network.threads=2
num.io.threads=2
log.cleaner.dedupe.buffer.size=2097152
"""


def _lists_topics(host: str) -> bool:
    try:
        AdminClient({"bootstrap.servers": host, "log_level": 0}).list_topics(timeout=1)
    except KafkaException:
        return False
    return True
