"""Stand-ins for cloud services on this machine: the Pub/Sub emulator of the Google Cloud SDK."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc

_JAR = "platform/pubsub-emulator/lib/cloud-pubsub-emulator-*.jar"
_SDK_PLACES = ("/usr/lib/google-cloud-sdk", "/usr/share/google-cloud-sdk", "~/google-cloud-sdk")
TODO = "install Java and run `gcloud components install pubsub-emulator`, or set PUBSUB_EMULATOR_JAR"


class EmulatorError(RuntimeError):
    """The emulator cannot run here; the message says what to install."""


def pubsub_jar() -> Path:
    """The emulator's jar: PUBSUB_EMULATOR_JAR, or the newest one in a Cloud SDK. Raises EmulatorError."""
    named = os.environ.get("PUBSUB_EMULATOR_JAR")
    if named:
        if not Path(named).is_file():
            raise EmulatorError(f"PUBSUB_EMULATOR_JAR={named} is no file; {TODO}")
        return Path(named)
    for root in _sdk_roots():
        jars = sorted(root.glob(_JAR))
        if jars:
            return jars[-1]
    raise EmulatorError(f"no Pub/Sub emulator found; {TODO}")


def _sdk_roots() -> list[Path]:
    gcloud = shutil.which("gcloud")
    places = [os.environ.get("CLOUDSDK_ROOT_DIR"), gcloud and str(Path(gcloud).resolve().parents[1]), *_SDK_PLACES]
    return [Path(place).expanduser() for place in places if place]


@contextmanager
def pubsub_emulator(port: int | None = None, wait_s: float = 60.0) -> Iterator[str]:
    """`host:port` of a running emulator, which ends with the block. It keeps all messages in memory.

    Raises EmulatorError when Java or the jar is missing or it does not answer within `wait_s` seconds.
    """
    java = shutil.which("java")
    if java is None:
        raise EmulatorError(f"no java found; {TODO}")
    host = f"127.0.0.1:{port or free_port()}"
    command = [java, "-jar", str(pubsub_jar()), "--host=127.0.0.1", f"--port={host.rpartition(':')[2]}"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        _wait_until_it_answers(host, process, time.monotonic() + wait_s)
        yield host
    finally:
        process.kill()
        process.wait()


def free_port() -> int:
    """A TCP port nobody listens on at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_until_it_answers(host: str, process: subprocess.Popen[bytes], end: float) -> None:
    while time.monotonic() < end and process.poll() is None:
        with grpc.insecure_channel(host) as channel:
            try:
                grpc.channel_ready_future(channel).result(timeout=1)
            except grpc.FutureTimeoutError:
                continue
            return
    raise EmulatorError(f"the Pub/Sub emulator does not answer on {host} (exit status {process.poll()})")
