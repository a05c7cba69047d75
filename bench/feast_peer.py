"""Feast itself, in an environment of its own: its Python server with the same values, and its SDK as our client.

    python -m runners.local.install feast     (once: Feast 0.67.0 from PyPI, into .engines/feast)

Feast needs a protobuf that Beam does not take, so it never shares our environment: its folder is only on the path of
the processes that are started here.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from runners.local.emulators import EmulatorError, free_port, run_server
from runners.local.install import ENGINES, PARTS, installed

# A repository with the values of a group: FOLDER VALUES.json, and the URL of a server that its client reads from
# instead of its own SQLite. It prints what Feast's SDK reads of the first two entities and of one that is unknown.
_REPOSITORY = """
import datetime, json, sys
from pathlib import Path
import pandas as pd
from feast import Entity, FeatureStore, FeatureView, Field, FileSource, ValueType
from feast.types import Float64, Int64

folder, given, remote = Path(sys.argv[1]), json.load(open(sys.argv[2])), sys.argv[3:]
folder.mkdir(parents=True)
online = {"type": "remote", "path": remote[0]} if remote else {"type": "sqlite", "path": f"{folder}/online.db"}
settings = {
    "project": "bench", "registry": f"{folder}/registry.db", "provider": "local", "online_store": online,
    "offline_store": {"type": "file"}, "entity_key_serialization_version": 3,
}
(folder / "feature_store.yaml").write_text(json.dumps(settings))
key, names, values = given["key"], given["names"], given["values"]
columns = {name: [row[place] for row in values.values()] for place, name in enumerate(names)}
frame = pd.DataFrame({key: list(values), "event_timestamp": datetime.datetime.now(datetime.timezone.utc), **columns})
frame.to_parquet(folder / "values.parquet")
entity = Entity(name=key, join_keys=[key], value_type=ValueType.STRING)
source = FileSource(path=str(folder / "values.parquet"), timestamp_field="event_timestamp")
kinds = [Float64 if any(isinstance(one, float) for one in columns[name]) else Int64 for name in names]
schema = [Field(name=name, dtype=kind) for name, kind in zip(names, kinds)]
store = FeatureStore(repo_path=str(folder))
store.apply([entity, FeatureView(name=given["view"], entities=[entity], schema=schema, source=source)])
if not remote:
    store.write_to_online_store(given["view"], frame)
rows = [{key: name} for name in [*list(values)[:2], "nobody"]]
features = [f"{given['view']}:{name}" for name in names]
print(json.dumps(store.get_online_features(features=features, entity_rows=rows).to_dict()))
"""


class Values(dict[str, Any]):
    """What a repository holds: `view`, `key`, `names` of features and `values` by entity."""

    @classmethod
    def of(cls, view: str, key: str, names: Sequence[str], values: Mapping[str, Sequence[Any]]) -> Values:
        """The values of a view with one key."""
        return cls(view=view, key=key, names=list(names), values=dict(values))


def read_by_sdk(folder: Path, values: Values, url: str | None = None) -> dict[str, list[Any]]:
    """What Feast's SDK reads, by column, of the first two entities and of `nobody`: from its own store, or from the
    server at a URL. Makes the repository. Raises EmulatorError where Feast is missing or fails."""
    file = folder.parent / f"{folder.name}.json"
    file.write_text(json.dumps(values))
    words = ["-c", _REPOSITORY, str(folder), str(file), *([url] if url else [])]
    done = subprocess.run([*_python(), *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise EmulatorError(f"Feast ended with {done.returncode}: {done.stderr.strip()[-1500:]}")
    found: dict[str, list[Any]] = json.loads(done.stdout.splitlines()[-1])
    return found


@contextmanager
def feast_server(folder: Path) -> Iterator[tuple[str, int]]:
    """The host and port of Feast's Python server of a repository."""
    port = free_port()
    command = [*_python(), "-m", "feast.cli.cli", "-c", str(folder), "serve", "-p", str(port)]
    with run_server(command, "Feast's server", f"127.0.0.1:{port}", lambda: _listens(port)) as process:
        yield "127.0.0.1", port
        process.terminate()  # it ends its workers
        process.wait()


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        time.sleep(0.1)
        return False
    return True


def _python() -> list[str]:
    """The interpreter without our environment, with Feast's folder on its path."""
    if not installed(PARTS["feast"]):
        raise EmulatorError("needs Feast, run `python -m runners.local.install feast`")
    folder = str(ENGINES / "feast")
    program = Path(sys.base_prefix) / "bin" / Path(os.path.realpath(sys.executable)).name
    return ["env", f"PYTHONPATH={folder}", str(program), "-s"]
