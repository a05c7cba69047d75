"""The class path, flags and configuration of Flink's Java processes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

_OPENED = (
    "java.util", "java.lang", "java.nio", "java.io", "java.time", "java.net", "java.util.concurrent",
    "java.util.concurrent.atomic", "java.util.concurrent.locks", "java.text", "java.lang.reflect",
    "java.lang.invoke", "sun.nio.ch",
)  # fmt: skip
_EXPORTED = ("java.base/sun.net.util", "java.security.jgss/sun.security.krb5")
_NOT_TO_SUBMIT = (
    "frocksdbjni", "flink-rpc-akka-loader", "flink-runtime-web", "flink-shaded-zookeeper", "grpc-", "google-cloud",
    "proto-google-cloud", "conscrypt", "commons-math3",
)  # fmt: skip
JOB_MANAGER = "org.apache.flink.runtime.entrypoint.StandaloneSessionClusterEntrypoint"
TASK_MANAGER = "org.apache.flink.runtime.taskexecutor.TaskManagerRunner"
JOB_SERVER = "org.apache.beam.runners.flink.FlinkJobServerDriver"


def command(java: str, jars: Path, main: str, heap: str, *arguments: str) -> list[str]:
    """The command line of a class of Flink or of Beam's job server. Java 17 hides what both reach into. The job
    server does no work that pays for the second compiler."""
    opened = [f"--add-opens=java.base/{name}=ALL-UNNAMED" for name in _OPENED]
    exported = [f"--add-exports={name}=ALL-UNNAMED" for name in _EXPORTED]
    level = 1 if main == JOB_SERVER else 4
    sizes = [f"-Xmx{heap}", "-XX:MaxDirectMemorySize=384m", "-XX:+UseSerialGC", f"-XX:TieredStopAtLevel={level}"]
    quiet = ["-Dorg.slf4j.simpleLogger.defaultLogLevel=warn"]
    paths = f"{jars}/*" if main != JOB_SERVER else ":".join(map(str, _job_server_jars(jars)))
    return [java, *sizes, *opened, *exported, *quiet, "-cp", paths, main, *arguments]


def _job_server_jars(jars: Path) -> list[Path]:
    """The jars that the job server needs: it uploads all of them with each job, though the cluster has them."""
    return [jar for jar in sorted(jars.glob("*.jar")) if not jar.name.startswith(_NOT_TO_SUBMIT)]


def configuration(folder: Path, rpc: int, rest: int, slots: int, backend: str) -> dict[str, Any]:
    """config.yaml: the values that Flink's own scripts derive, and those that let a job outlive its processes."""
    return {
        "jobmanager.rpc.address": "localhost",
        "jobmanager.rpc.port": rpc,
        "rest.address": "localhost",
        "rest.port": rest,
        "rest.bind-address": "localhost",
        "taskmanager.host": "localhost",
        "taskmanager.cpu.cores": 2,
        "taskmanager.numberOfTaskSlots": slots,
        "taskmanager.memory.framework.heap.size": "128m",
        "taskmanager.memory.framework.off-heap.size": "128m",
        "taskmanager.memory.task.heap.size": "1g",
        "taskmanager.memory.task.off-heap.size": "128m",
        "taskmanager.memory.network.min": "128m",
        "taskmanager.memory.network.max": "128m",
        "taskmanager.memory.managed.size": "256m",
        "taskmanager.memory.jvm-metaspace.size": "512m",
        "taskmanager.memory.jvm-overhead.min": "192m",
        "taskmanager.memory.jvm-overhead.max": "192m",
        "state.backend.type": backend,
        "state.checkpoint-storage": "filesystem",
        "state.checkpoints.dir": f"file://{folder}/checkpoints",
        "state.savepoints.dir": f"file://{folder}/savepoints",
        "state.checkpoints.num-retained": 2,
        "execution.checkpointing.externalized-checkpoint-retention": "RETAIN_ON_CANCELLATION",
        "restart-strategy.type": "fixed-delay",
        "restart-strategy.fixed-delay.attempts": 1000,
        "restart-strategy.fixed-delay.delay": "1 s",
        "classloader.resolve-order": "parent-first",
        "heartbeat.interval": 2000,
        "heartbeat.timeout": 10000,
        "io.tmp.dirs": f"{folder}/tmp",
        "web.upload.dir": f"{folder}/upload",
    }


def write_configuration(folder: Path, settings: dict[str, Any]) -> Path:
    """The folder that holds config.yaml."""
    conf = folder / "conf"
    for path in (conf, folder / "tmp", folder / "upload", folder / "checkpoints", folder / "savepoints"):
        path.mkdir(parents=True, exist_ok=True)
    (conf / "config.yaml").write_text(yaml.safe_dump(settings))
    return conf
