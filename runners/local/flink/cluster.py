"""A Flink cluster on this machine: JobManager, TaskManager, Beam's job server and a pool of Python workers."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import urllib3

from runners.local.emulators import EmulatorError, free_port
from runners.local.flink import java as flags
from runners.local.flink.jobs import FlinkError, FlinkJobs

ROOT = Path(__file__).resolve().parents[3]
JARS = ROOT / ".engines/flink"
TODO = "install Java 17 and Maven and run `make engines`"
REST, JOBS, POOL = 8081, 8099, 50000  # where `campaigns flink` listens, and the preset `flink` looks
DEFAULT = (REST, JOBS, POOL)


def find_flink() -> Path:
    """The folder with the jars of Flink and of Beam's runner. Raises EmulatorError."""
    find_java()
    if not any(JARS.glob("flink-runtime-*.jar")):
        raise EmulatorError(f"no Flink in .engines/flink; {TODO}")
    return JARS


def find_java() -> str:
    """Java's path. Raises EmulatorError."""
    java = shutil.which("java")
    if java is None:
        raise EmulatorError(f"no java found; {TODO}")
    return java


class FlinkCluster(FlinkJobs):
    """The processes of a cluster, whose checkpoints are kept in a folder. Each can be killed and started again.

    `code` is the folder of the code that workers run: with another one, and the pool started again, they are upgraded.
    """

    def __init__(
        self, folder: Path, *, slots: int = 2, backend: str = "hashmap", ports: tuple[int, int, int] | None = None
    ) -> None:
        self.folder, self._slots, self._backend, self.code = folder.absolute(), slots, backend, ROOT
        self._rest, self._jobs, self._pool = ports or (free_port(), free_port(), free_port())
        self._rpc, self._artifacts, self._expansion = free_port(), free_port(), free_port()
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        super().__init__(f"localhost:{self._rest}", f"; the logs are in {self.folder}")

    def start(self) -> FlinkCluster:
        """Starts everything that does not run. Raises EmulatorError when something is missing or does not come up."""
        for name in self.ended():
            self.kill(name)
        self.start_jobmanager()
        java, conf = find_java(), ("--configDir", self._conf)
        pool = [sys.executable, "-m", "apache_beam.runners.worker.worker_pool_main"]
        self._run("pool", [*pool, f"--service_port={self._pool}", f"--container_executable={self._boot}"])
        self._run("taskmanager", flags.command(java, JARS, flags.TASK_MANAGER, "1152m", *conf))
        self._until("JobManager", lambda: self.rest("GET", "/overview")["slots-total"] >= self._slots)
        ports = [
            f"--job-port={self._jobs}",
            f"--artifact-port={self._artifacts}",
            f"--expansion-port={self._expansion}",
        ]
        master = [f"--flink-master={self.address}", f"--flink-conf-dir={self._conf}"]
        server = ["--job-host=localhost", *ports, *master, f"--artifacts-dir={self.folder}/artifacts"]
        self._run("jobserver", flags.command(java, JARS, flags.JOB_SERVER, "512m", *server))
        self._until("job server", lambda: _listens(self._jobs))
        return self

    def start_jobmanager(self) -> None:
        """Starts the JobManager alone, unless it runs. Raises EmulatorError."""
        find_flink()
        java = find_java()
        settings = flags.configuration(self.folder, self._rpc, self._rest, self._slots, self._backend)
        self._conf = str(flags.write_configuration(self.folder, settings))
        self._boot = self._write_boot()
        self._run("jobmanager", flags.command(java, JARS, flags.JOB_MANAGER, "768m", "--configDir", self._conf))
        self._until("JobManager", lambda: self.rest("GET", "/overview"))

    def ended(self) -> list[str]:
        """The processes that have ended by themselves."""
        return [name for name, process in self._processes.items() if process.poll() is not None]

    def options(self) -> list[str]:
        """The options that name this cluster to a pipeline."""
        return [
            f"--job_endpoint=localhost:{self._jobs}",
            "--environment_type=EXTERNAL",
            f"--environment_config=localhost:{self._pool}",
        ]

    def stop(self) -> None:
        """Ends every process at once."""
        for name in list(self._processes):
            self.kill(name)

    def kill(self, name: str) -> None:
        """kill -9 of `jobmanager`, `taskmanager`, `jobserver` or `pool` with all the workers it started."""
        process = self._processes.pop(name)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def workers(self) -> list[int]:
        """The process ids of the Python workers."""
        found = subprocess.run(["pgrep", "-P", str(self._processes["pool"].pid)], capture_output=True, text=True)
        return [int(one) for one in found.stdout.split()]

    def log(self, name: str) -> str:
        """What a process printed."""
        return (self.folder / f"{name}.log").read_text("utf-8", "replace")

    def _run(self, name: str, command: list[str]) -> None:
        if name in self._processes and self._processes[name].poll() is None:
            return
        with (self.folder / f"{name}.log").open("ab") as out:
            self._processes[name] = subprocess.Popen(
                command,
                cwd=self.code,
                env=self._environment(),
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def _environment(self) -> dict[str, str]:
        """With this interpreter first on PATH: the pool starts `python`, and without Beam tasks would wait for ever."""
        return {
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
            "PYTHONPATH": str(self.code),
        }

    def _write_boot(self) -> Path:
        path = self.folder / "boot"
        path.write_text(f"#!{sys.executable}\nfrom runners.local.flink.boot import main\n\nmain()\n")
        path.chmod(0o755)
        return path

    def _until(self, what: str, ready: Any) -> Any:
        def ready_or_dead() -> Any:
            for name in self.ended():
                code = self._processes[name].returncode
                raise FlinkError(f"Flink's {name} ended with {code}: {self.log(name)[-1500:]}")
            return ready()

        return super()._until(what, ready_or_dead)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def taken(ports: tuple[int, ...]) -> list[int]:
    """Those of the ports that something listens on."""
    return [port for port in ports if _listens(port)]


def default_cluster_answers() -> str | None:
    """What the cluster of `campaigns flink` says of itself; None when it does not run."""
    if not _listens(REST):
        return None
    answer = urllib3.request("GET", f"http://localhost:{REST}/overview", retries=False, timeout=5.0).json()
    server = "its job server listens" if _listens(JOBS) else f"no job server on port {JOBS}"
    return f"{answer['flink-version']} with {answer['slots-total']} slots on localhost:{REST}, {server}"


@contextmanager
def flink_cluster(folder: Path, **settings: Any) -> Iterator[FlinkCluster]:
    """A running cluster, which ends with the block. Raises EmulatorError."""
    folder.mkdir(parents=True, exist_ok=True)
    cluster = FlinkCluster(folder, **settings)
    try:
        yield cluster.start()
    finally:
        cluster.stop()
