"""Stand-ins for cloud services on this machine: the emulators of the Google Cloud SDK."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc

from schemas.problems import JobError

_SMALL = ("-XX:+UseSerialGC", "-Xmn64m")  # the default heap grows by gigabytes
_SDK_PLACES = ("/usr/lib/google-cloud-sdk", "/usr/share/google-cloud-sdk", "~/google-cloud-sdk")


class EmulatorError(JobError):
    """The emulator cannot run here; the message says what to install."""


@dataclass(frozen=True)
class Emulator:
    """An emulator of the Google Cloud SDK: its jar and component there, the variable that names another jar, and the
    main class if the jar does not name one."""

    name: str
    jar: str
    component: str
    variable: str
    main: str | None = None

    @property
    def todo(self) -> str:
        return f"install Java and run `gcloud components install {self.component}`, or set {self.variable}"

    def find_jar(self) -> Path:
        """The jar that the variable names, or the newest one in a Cloud SDK. Raises EmulatorError."""
        named = os.environ.get(self.variable)
        if named:
            if not Path(named).is_file():
                raise EmulatorError(f"{self.variable}={named} is no file; {self.todo}")
            return Path(named)
        for root in _sdk_roots():
            jars = sorted(root.glob(self.jar))
            if jars:
                return jars[-1]
        raise EmulatorError(f"no {self.name} emulator found; {self.todo}")


PUBSUB = Emulator(
    "Pub/Sub", "platform/pubsub-emulator/lib/cloud-pubsub-emulator-*.jar", "pubsub-emulator", "PUBSUB_EMULATOR_JAR"
)


def pubsub_jar() -> Path:
    """The emulator's jar: PUBSUB_EMULATOR_JAR, or the newest one in a Cloud SDK. Raises EmulatorError."""
    return PUBSUB.find_jar()


@contextmanager
def pubsub_emulator(port: int | None = None, wait_s: float = 60.0) -> Iterator[str]:
    """`host:port` of a running emulator, which ends with the block. It keeps all messages in memory.

    Raises EmulatorError when Java or the jar is missing or it does not answer within `wait_s` seconds.
    """
    with run(PUBSUB, port, wait_s) as host:
        yield host


@contextmanager
def run(emulator: Emulator, port: int | None, wait_s: float) -> Iterator[str]:
    """`host:port` of a running emulator, which ends with the block. Raises EmulatorError when it cannot run."""
    java = shutil.which("java")
    if java is None:
        raise EmulatorError(f"no java found; {emulator.todo}")
    host, jar = f"127.0.0.1:{port or free_port()}", str(emulator.find_jar())
    start = ["-cp", jar, emulator.main] if emulator.main else ["-jar", jar]
    command = [java, *_SMALL, *start, "--host=127.0.0.1", f"--port={host.rpartition(':')[2]}"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        _wait_until_it_answers(emulator.name, host, process, time.monotonic() + wait_s)
        yield host
    finally:
        process.kill()
        process.wait()


def _sdk_roots() -> list[Path]:
    gcloud = shutil.which("gcloud")
    places = [os.environ.get("CLOUDSDK_ROOT_DIR"), gcloud and str(Path(gcloud).resolve().parents[1]), *_SDK_PLACES]
    return [Path(place).expanduser() for place in places if place]


def free_port() -> int:
    """A free TCP port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_until_it_answers(name: str, host: str, process: subprocess.Popen[bytes], end: float) -> None:
    while time.monotonic() < end and process.poll() is None:
        with grpc.insecure_channel(host) as channel:
            try:
                grpc.channel_ready_future(channel).result(timeout=1)
            except grpc.FutureTimeoutError:
                continue
            return
    raise EmulatorError(f"the {name} emulator does not answer on {host} (exit status {process.poll()})")
