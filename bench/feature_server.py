"""How long the feature server takes over HTTP, from a client on this machine: the values of bench.feature_reads.

    python -m bench.feature_server [--calls 5000] [--workers 1]

Prints JSON with `server_ms`: {call: {p50_1, p99_1, p50_100, p99_100}} for Feast's call and ours, of 1 and 100 entities
with 60 tiles and 12 features each. One client, one connection, one call after the other.
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

from bench.feature_reads import GROUP, NOW, fill, quantiles

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
    with socket.create_connection(address) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        calls = [
            b"POST %s HTTP/1.1\r\nHost: b\r\nContent-Length: %d\r\n\r\n%s" % (path.encode(), len(body), body)
            for body in bodies
        ]
        for call in calls:
            begun = time.perf_counter_ns()
            connection.sendall(call)
            answer = _receive(connection)
            taken.append(time.perf_counter_ns() - begun)
            assert answer.startswith(b"HTTP/1.1 200"), answer[:500]
    return quantiles(taken)


def _receive(connection: socket.socket) -> bytes:
    received = connection.recv(1 << 20)
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
    given = parser.parse_args()
    random_numbers, measured = random.Random(3), dict[str, dict[str, float]]()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        fill(folder / "store", given.entities)
        with serving(folder, given.workers) as address:
            for call, (path, make) in CALLS.items():
                measured[call] = {}
                for size, count in ((1, given.calls), (100, given.calls // 10)):
                    bodies = [
                        make([f"h{random_numbers.randrange(given.entities)}" for _ in range(size)])
                        for _ in range(count)
                    ]
                    timed(address, path, bodies[: count // 10])
                    found = timed(address, path, bodies)
                    measured[call] |= {f"{part}_{size}": round(found[part], 4) for part in ("p50", "p99")}
    print(json.dumps({"server_ms": measured, "workers": given.workers, "at": NOW}))


if __name__ == "__main__":
    gc.collect()
    gc.freeze()  # as the feature server does
    main()
