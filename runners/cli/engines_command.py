"""The command `campaigns engines`: what is installed, where, how to get what is missing, and whether each works."""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.table import Table

from pipelines.command_line.exit_codes import EXIT_CODES, Ending
from pipelines.engines.presets import PRESETS
from pipelines.engines.prism import find_prism
from runners.local.emulators import PUBSUB, EmulatorError
from runners.local.firestore_emulator import FIRESTORE
from runners.local.flink.cluster import find_flink
from runners.local.gcs_server import find_gcs_server
from runners.local.install import PARTS
from runners.local.kafka_broker import kafka_jars
from runners.sandbox.command import Argument
from schemas.problems import InputError, Problem

PROBE_S = 10.0
_END_S = 3.0  # for a probe to end what it started
_ROOT = Path(__file__).parents[2]


class Found(NamedTuple):
    """Where something is and its version, which is empty where nothing tells it."""

    where: str
    version: str


class Part(NamedTuple):
    """An engine, a broker or an emulator: what for, and what finds it, which raises EmulatorError with what to do."""

    what: str
    find: Callable[[], Found]


class Result(NamedTuple):
    """What is known of a part: where it is or how to get it, and whether its probe went well (None: not probed)."""

    found: Found | None
    told: str
    works: bool | None


def _beam() -> Found:
    return Found("apache-beam in this environment", version("apache-beam"))


def _prism() -> Found:
    where = find_prism()
    if where is None:
        raise EmulatorError("run `make engines` (it needs Go), or set CAMPAIGNS_PRISM; else Beam downloads it itself")
    return Found(where, PARTS["prism"].version.removeprefix("v") if ".engines" in where else "")


def _java(jars: Path, pattern: str) -> Found:
    if shutil.which("java") is None:
        raise EmulatorError("no java found; install Java 17")
    newest = max(jars.glob(pattern))
    return Found(str(jars), newest.stem.rpartition("-")[2])


def _jar(jar: Path) -> Found:
    number = jar.stem.rpartition("-")[2]
    return Found(str(jar), number if number[:1].isdigit() else "")


def _gcs() -> Found:
    where = str(find_gcs_server())
    return Found(where, PARTS["gcs"].version.removeprefix("v") if ".engines" in where else "")


INVENTORY = {
    "direct": Part("engine, for tests and launches on one machine", _beam),
    "prism": Part("engine, a service on one machine", _prism),
    "flink": Part("engine, several machines", lambda: _java(find_flink(), "flink-runtime-1*.jar")),
    "dataflow": Part("engine, Google Cloud", _beam),
    "kafka": Part("broker", lambda: _java(kafka_jars(), "kafka_2.13-*.jar")),
    "pubsub": Part("stand-in for Pub/Sub", lambda: _jar(PUBSUB.find_jar())),
    "firestore": Part("stand-in for Firestore", lambda: _jar(FIRESTORE.find_jar())),
    "gcs": Part("stand-in for Cloud Storage", _gcs),
}
ENGINES = (
    Argument(("names",), {"nargs": "*", "metavar": "NAME", "help": f"{', '.join(INVENTORY)} (all of them)"}),
    Argument(("--no-probe",), {"action": "store_true", "help": "only look whether it is there"}),
    Argument(
        ("--seconds",), {"type": float, "default": PROBE_S, "help": f"a probe takes at most so long ({PROBE_S:g})"}
    ),
    Argument(("--explain",), {"action": "store_true", "help": "the options of --on NAME, each with its reason"}),
)


def engines(args: argparse.Namespace) -> int:
    """Tell what is here; 1 when one that was named is missing or does not work. Raises InputError."""
    known = PRESETS if args.explain else INVENTORY
    problems = [
        Problem("command line", "NAME", name, f"must be one of {', '.join(known)}")
        for name in args.names
        if name not in known
    ]
    if not args.seconds > 0:
        problems.append(Problem("command line", "--seconds", str(args.seconds), "must be more than 0"))
    if problems:
        raise InputError(problems)
    names = list(dict.fromkeys(args.names or known))
    if args.explain:
        print("\n\n".join(map(explain, names)))
        return 0
    with ThreadPoolExecutor(2) as pool:
        found = pool.map(lambda name: look(name, None if args.no_probe else args.seconds), names)
        results = dict(zip(names, found, strict=True))
    show(results)
    failed = bool(args.names) and any(one.found is None or one.works is False for one in results.values())
    return EXIT_CODES[Ending.CHECK_FAILED if failed else Ending.DONE]


def explain(name: str) -> str:
    """The options of a preset, each with its reason."""
    preset = PRESETS[name]
    lines = [f"--on {name}: {preset.what}"]
    for title, flags in (("", preset.flags), ("rebatch, too:", preset.streaming)):
        lines += [f"  {title}"] if title and flags else []
        lines += [f"  {flag.option}\n      {flag.why}" for flag in flags]
    return "\n".join(lines)


def look(name: str, seconds: float | None) -> Result:
    """What is known of a part, after a probe of so many seconds at most."""
    try:
        found = INVENTORY[name].find()
    except EmulatorError as error:
        return Result(None, str(error), None)
    if seconds is None:
        return Result(found, "", None)
    works, told = probe(name, seconds)
    return Result(found, told, works)


def probe(name: str, seconds: float) -> tuple[bool, str]:
    """Whether a part works, and what its probe told; the probe and all it started end in time."""
    process = subprocess.Popen(
        [sys.executable, "-m", "runners.cli.probes", name],
        cwd=_ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, start_new_session=True,
    )  # fmt: skip
    try:
        out, _ = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.terminate()  # what it started in sessions of their own, only it can end
        with suppress(subprocess.TimeoutExpired):
            process.communicate(timeout=_END_S)
        return False, f"does not answer within {seconds:g} s; give it longer with --seconds"
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    said = out.strip().splitlines() or [f"ended with {process.returncode}"]
    return process.returncode == 0, said[-1]


def show(results: dict[str, Result]) -> None:
    """The table."""
    table = Table(box=None, pad_edge=False)
    for title in ("name", "what", "version", "state", "where, or what to do"):
        table.add_column(title, overflow="fold")
    for name, one in results.items():
        state = "missing" if one.found is None else {None: "here", True: "works", False: "fails"}[one.works]
        told = one.told if one.found is None else f"{one.found.where}\n{one.told}".strip()
        table.add_row(name, INVENTORY[name].what, one.found.version if one.found else "", state, told)
    Console(highlight=False, markup=False).print(table)
