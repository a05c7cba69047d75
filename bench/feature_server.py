"""How long the feature server takes over HTTP, from a client on this machine: the values of bench.feature_reads.

    python -m bench.feature_server [--calls 5000] [--workers 1] [--feast]

Prints JSON with `server_ms`: {call: {p50_1, p99_1, p50_100, p99_100}} for Feast's call and ours, of 1 and 100 entities
with 60 tiles and 12 features each. One client, one connection, one call after the other. With `--feast` also
`feast_ms` of Feast's own Python server (bench/feast_peer.py) with the same values in SQLite, its default.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import random
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import orjson

from bench.feast_peer import Values, feast_server, read_by_sdk
from bench.feature_reads import GROUP, LAYOUT, NOW, fill, quantiles
from serving.features.reader import FeatureReader, Wanted
from stores.features.lmdb_store import LmdbStore

ROOT = Path(__file__).parents[1]
_DECLARATION = "from bench.feature_reads import GROUP\n"
Body = Callable[[list[str]], bytes]


def feast_body(entities: list[str]) -> bytes:
    """Feast's call for all features."""
    features = [f"{GROUP.name}:{name}" for name, _, _ in GROUP.features]
    return orjson.dumps({"features": features, "entities": {GROUP.key[0]: entities}})


def compact_body(entities: list[str]) -> bytes:
    """Our call for all features."""
    return orjson.dumps({"groups": {GROUP.id: {"entities": entities}}})


CALLS: dict[str, tuple[str, Body]] = {
    "feast": ("/get-online-features", feast_body),
    "compact": ("/v1/features", compact_body),
}


@contextmanager
def serving(folder: Path, workers: int) -> Iterator[tuple[str, int]]:
    """The host and port of a server of the folder's store, whose clock stands at the time of the rows."""
    program = (
        "import sys, serving.features.worker as worker, serving.features.server as server\n"
        "from pathlib import Path\n"
        "from bench.feature_reads import GROUP, LAYOUT, NOW\n"
        "server.load_columns = lambda _: {GROUP.source: LAYOUT.types}\n"
        "worker.time.time_ns = lambda: NOW * 1_000_000\n"
        "show = lambda addresses: print(addresses.http, flush=True)\n"
        "server.serve(server.ServerSettings('lmdb:' + sys.argv[1], sys.argv[2], port=0, workers=int(sys.argv[3])), show)\n"
    )
    declared = folder / "declared"
    declared.mkdir()
    (declared / "spend.py").write_text(_DECLARATION)
    command = [sys.executable, "-c", program, str(folder / "store"), str(declared), str(workers)]
    process = subprocess.Popen(
        command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        host, _, port = process.stdout.readline().strip().removeprefix("http://").rpartition(":")
        yield host, int(port)
    finally:
        process.terminate()
        process.wait()


def timed(address: tuple[str, int], path: str, bodies: list[bytes]) -> dict[str, float]:
    """The quantiles (ms) of calls on one connection."""
    taken = list[int]()
    connection = _connect(address)
    with connection:
        calls = [
            b"POST %s HTTP/1.1\r\nHost: b\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s"
            % (path.encode(), len(body), body)
            for body in bodies
        ]
        for call in calls:
            begun = time.perf_counter_ns()
            try:
                connection.sendall(call)
                answer = _receive(connection)
            except ConnectionError:  # Feast's server ends its workers now and then
                connection = _connect(address)
                continue
            taken.append(time.perf_counter_ns() - begun)
            assert answer.startswith(b"HTTP/1.1 200"), answer[:500]
    return quantiles(taken)


def _connect(address: tuple[str, int]) -> socket.socket:
    connection = socket.create_connection(address)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def _receive(connection: socket.socket) -> bytes:
    received = b""
    while b"\r\n\r\n" not in received:
        part = connection.recv(1 << 20)
        if not part:
            raise ConnectionResetError("the server has closed")
        received += part
    head, _, body = received.partition(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
    parts, missing = [received], length - len(body)
    while missing > 0:
        parts.append(connection.recv(1 << 20))
        missing -= len(parts[-1])
    return b"".join(parts)


def main() -> None:
    """Prints the quantiles as JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--calls", type=int, default=5_000)
    parser.add_argument("--entities", type=int, default=2_000)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--feast", action="store_true", help="beside Feast's own server")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder, measured = Path(name), dict[str, object]()
        fill(folder / "store", given.entities)
        with serving(folder, given.workers) as address:
            measured["server_ms"] = {call: measure(address, call, given.entities, given.calls) for call in CALLS}
        if given.feast:
            read_by_sdk(folder / "feast", values_of(folder / "store", given.entities))
            with feast_server(folder / "feast") as address:
                measured["feast_ms"] = measure(address, "feast", given.entities, given.calls // 5)
    print(json.dumps({**measured, "workers": given.workers}))


def measure(address: tuple[str, int], call: str, entities: int, calls: int) -> dict[str, float]:
    """p50 and p99 (ms) of a call of 1 and of 100 entities; a tenth as many of these."""
    random_numbers, found = random.Random(3), dict[str, float]()
    path, make = CALLS[call]
    for size, count in ((1, calls), (100, calls // 10)):
        bodies = [make([f"h{random_numbers.randrange(entities)}" for _ in range(size)]) for _ in range(count)]
        timed(address, path, bodies[: max(1, count // 10)])
        times = timed(address, path, bodies)
        found |= {f"{part}_{size}": round(times[part], 4) for part in ("p50", "p99")}
    return found


def values_of(folder: Path, entities: int) -> Values:
    """The values that the server gives, for Feast's own store."""
    store = LmdbStore(folder, read_only=True)
    names = [f"h{number}" for number in range(entities)]
    (read,) = FeatureReader(store, {GROUP.id: LAYOUT}, lambda: NOW).read([Wanted(GROUP.id, (), names)])
    store.close()
    return Values.of(
        GROUP.name, GROUP.key[0], read.features, dict(zip(names, zip(*read.values, strict=True), strict=True))
    )


if __name__ == "__main__":
    gc.collect()
    gc.freeze()  # as the feature server does
    main()
