"""The engines, brokers and emulators of this machine: where each is, and whether it works."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Literal, NamedTuple

import msgspec

from pipelines.engines.prism import find_prism
from runners.local.emulators import FIRESTORE, PUBSUB, EmulatorError, find_bigtable
from runners.local.flink.cluster import find_flink
from runners.local.gcs_server import find_gcs_server
from runners.local.install import PARTS
from runners.local.kafka_broker import kafka_jars
from runners.local.redis_server import find_redis

_END_S = 3.0  # for a probe to end what it started
_ROOT = Path(__file__).parents[2]


class Found(NamedTuple):
    """Where a part is, and its version ("" if unknown)."""

    path: str
    version: str


class Part(NamedTuple):
    """An engine, a broker or an emulator: what it is, and how to find it. `find` raises EmulatorError that says how to
    install it."""

    kind: str
    find: Callable[[], Found]


class Status(msgspec.Struct):
    """A part on this machine: its state, where it is and its version ("" if missing or unknown), and what its probe
    said or how to install it."""

    name: str
    kind: str
    state: Literal["missing", "here", "works", "fails"]
    path: str
    version: str
    detail: str


def _beam() -> Found:
    return Found("apache-beam in this environment", version("apache-beam"))


def _prism() -> Found:
    path = find_prism()
    if path is None:
        raise EmulatorError("run `make engines` (it needs Go), or set CAMPAIGNS_PRISM; else Beam downloads it itself")
    return _installed(path, "prism")


def _installed(path: str, name: str) -> Found:
    return Found(path, PARTS[name].version.removeprefix("v") if ".engines" in path else "")


def _java(jars: Path, pattern: str) -> Found:
    if shutil.which("java") is None:
        raise EmulatorError("no java found; install Java 17")
    newest = max(jars.glob(pattern))
    return Found(str(jars), newest.stem.rpartition("-")[2])


def _jar(jar: Path) -> Found:
    number = jar.stem.rpartition("-")[2]
    return Found(str(jar), number if number[:1].isdigit() else "")


INVENTORY = {
    "direct": Part("engine, for tests and launches on one machine", _beam),
    "prism": Part("engine, a service on one machine", _prism),
    "flink": Part("engine, several machines", lambda: _java(find_flink(), "flink-runtime-1*.jar")),
    "dataflow": Part("engine, Google Cloud", _beam),
    "kafka": Part("broker", lambda: _java(kafka_jars(), "kafka_2.13-*.jar")),
    "pubsub": Part("stand-in for Pub/Sub", lambda: _jar(PUBSUB.find_jar())),
    "firestore": Part("stand-in for Firestore", lambda: _jar(FIRESTORE.find_jar())),
    "bigtable": Part("stand-in for Bigtable", lambda: Found(str(find_bigtable()), "")),
    "redis": Part("feature store", lambda: _installed(find_redis(), "redis")),
    "gcs": Part("stand-in for Cloud Storage", lambda: _installed(str(find_gcs_server()), "gcs")),
}


def check_parts(names: Sequence[str], seconds: float | None) -> list[Status]:
    """The status of each named part; `seconds` limits its probe, None probes nothing."""
    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(lambda name: _check_part(name, seconds), names))


def _check_part(name: str, seconds: float | None) -> Status:
    part = INVENTORY[name]
    try:
        found = part.find()
    except EmulatorError as error:
        return Status(name, part.kind, "missing", "", "", str(error))
    if seconds is None:
        return Status(name, part.kind, "here", found.path, found.version, "")
    works, detail = probe(name, seconds)
    return Status(name, part.kind, "works" if works else "fails", found.path, found.version, detail)


def probe(name: str, seconds: float) -> tuple[bool, str]:
    """Whether a part works, and what its probe said; the probe and the processes that it started end in time."""
    process = subprocess.Popen(
        [sys.executable, "-m", "runners.local.probes", name],
        cwd=_ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, start_new_session=True,
    )  # fmt: skip
    try:
        out, _ = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.terminate()  # only the probe can end the sessions that it started
        with suppress(subprocess.TimeoutExpired):
            process.communicate(timeout=_END_S)
        return False, f"does not answer within {seconds:g} s; give it longer with --seconds"
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    lines = out.strip().splitlines() or [f"ended with {process.returncode}"]
    return process.returncode == 0, lines[-1]
