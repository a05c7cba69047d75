"""Feature stores for tests: a table in Bigtable's emulator, rows of bytes, and a writer that is a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import grpc
from google.cloud.bigtable_admin_v2 import BigtableTableAdminClient, ColumnFamily, GcRule, Table
from google.cloud.bigtable_admin_v2.services.bigtable_table_admin.transports import BigtableTableAdminGrpcTransport

from schemas.features.stamps import Stamp, pack_stamp
from stores.features.bigtable_store import FAMILY
from stores.features.open import open_store

ROOT = Path(__file__).parents[2]


def make_bigtable(host: str, name: str = "features") -> str:
    """Makes a table in the emulator, and gives its URI."""
    parent = "projects/project-1/instances/instance-1"
    with grpc.insecure_channel(host) as channel:
        client = BigtableTableAdminClient(transport=BigtableTableAdminGrpcTransport(channel=channel))
        family = ColumnFamily(gc_rule=GcRule(max_num_versions=1))
        client.create_table(parent=parent, table_id=name, table=Table(column_families={FAMILY: family}))
    return f"bigtable:{parent}/tables/{name}"


def any_row(epoch: int, position: int, rest: bytes = b"") -> bytes:
    """A row with this stamp. Rows of equal stamps are equal, as all writers make them, unless `rest` says otherwise."""
    return pack_stamp(Stamp(epoch, position)) + (rest or b"%d.%d" % (epoch, position))


def start_writer(uri: str, group: str, partition: int, entities: int, end: int) -> subprocess.Popen[str]:
    """A process that writes rows of entities `e0`, `e1`, … at positions 1 to `end`, and prints each position that is
    written."""
    command = [sys.executable, "-m", "support.feature_stores", uri, group, *map(str, (partition, entities, end))]
    return subprocess.Popen(command, cwd=ROOT, env=_environment(), stdout=subprocess.PIPE, text=True)


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}", "PYTHONUNBUFFERED": "1", "PYTHONWARNINGS": "ignore"}


def _write(uri: str, group: str, partition: int, entities: int, end: int) -> None:
    store = open_store(uri)
    for position in range(1, end + 1):
        store.write(group, partition, {f"e{number}": any_row(0, position) for number in range(entities)})
        store.advance(group, partition, Stamp(0, position))
        sys.stdout.write(f"{position}\n")
    store.close()


if __name__ == "__main__":
    _write(sys.argv[1], sys.argv[2], *map(int, sys.argv[3:]))
