"""Stand-ins for cloud services on this machine: the emulators of the Google Cloud SDK."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import grpc

from schemas.problems import JobError

_START_S = 60.0
_SMALL = ("-XX:+UseSerialGC", "-Xmn64m")  # the default heap grows by gigabytes
_BIGTABLE = "platform/bigtable-emulator/cbtemulator"
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


FIRESTORE = Emulator(
    "Firestore", "platform/cloud-firestore-emulator/cloud-firestore-emulator.jar", "cloud-firestore-emulator",
    "FIRESTORE_EMULATOR_JAR", "com.google.cloud.datastore.emulator.firestore.CloudFirestore",
)  # fmt: skip


def pubsub_emulator(port: int | None = None) -> AbstractContextManager[str]:
    """`host:port` of a running emulator of Pub/Sub, as `run_emulator` gives it."""
    return run_emulator(PUBSUB, port)


def firestore_emulator() -> AbstractContextManager[str]:
    """`host:port` of a running emulator of Firestore, as `run_emulator` gives it."""
    return run_emulator(FIRESTORE)


def find_bigtable() -> Path:
    """The program of Bigtable's emulator in a Cloud SDK. Raises EmulatorError."""
    for root in _sdk_roots():
        if (root / _BIGTABLE).is_file():
            return root / _BIGTABLE
    raise EmulatorError("no Bigtable emulator found; run `gcloud components install bigtable`")


@contextmanager
def bigtable_emulator(port: int | None = None) -> Iterator[str]:
    """`host:port` of a running emulator of Bigtable, which ends with the block. It keeps all data in memory.

    Raises EmulatorError when the emulator is missing or does not answer within a minute.
    """
    host = f"127.0.0.1:{port or free_port()}"
    command = [str(find_bigtable()), "-host=127.0.0.1", f"-port={host.rpartition(':')[2]}"]
    with run_server(command, "the Bigtable emulator", host, partial(_accepts_calls, host)):
        yield host


@contextmanager
def run_emulator(emulator: Emulator, port: int | None = None) -> Iterator[str]:
    """`host:port` of a running emulator, which ends with the block. It keeps all data in memory.

    Raises EmulatorError when Java or the jar is missing or it does not answer within a minute.
    """
    java = shutil.which("java")
    if java is None:
        raise EmulatorError(f"no java found; {emulator.todo}")
    host, jar = f"127.0.0.1:{port or free_port()}", str(emulator.find_jar())
    start = ["-cp", jar, emulator.main] if emulator.main else ["-jar", jar]
    command = [java, *_SMALL, *start, "--host=127.0.0.1", f"--port={host.rpartition(':')[2]}"]
    with run_server(command, f"the {emulator.name} emulator", host, partial(_accepts_calls, host)):
        yield host


@contextmanager
def run_server(
    command: Sequence[str], name: str, address: str, answers: Callable[[], bool], log: str = os.devnull
) -> Iterator[subprocess.Popen[bytes]]:
    """A process that answers, and is killed when the block ends. Its output is appended to `log`. Raises EmulatorError
    when it does not answer within a minute."""
    with open(log, "ab") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
    end = time.monotonic() + _START_S
    try:
        while time.monotonic() < end and process.poll() is None:
            if answers():
                yield process
                return
            time.sleep(0.05)
        last = Path(log).read_text("utf-8", "replace").strip()[-500:]
        raise EmulatorError(f"{name} does not answer on {address} (exit status {process.poll()}). {last}".strip())
    finally:
        process.kill()
        process.wait()


def _accepts_calls(host: str) -> bool:
    with grpc.insecure_channel(host) as channel:
        try:
            grpc.channel_ready_future(channel).result(timeout=1)
        except grpc.FutureTimeoutError:
            return False
    return True


def _sdk_roots() -> list[Path]:
    gcloud = shutil.which("gcloud")
    places = [os.environ.get("CLOUDSDK_ROOT_DIR"), gcloud and str(Path(gcloud).resolve().parents[1]), *_SDK_PLACES]
    return [Path(place).expanduser() for place in places if place]


def free_port() -> int:
    """A free TCP port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
