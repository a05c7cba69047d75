"""How long a read of features takes in process, from the embedded store: 1 entity with 60 tiles, 12 features.

    python -m bench.feature_reads [--reads 20000] [--entities 2000]

Prints JSON with `read_ms` {p50, p99, p999} of one entity, and `read_100_ms` of 100 entities in one call; `…cpu_ms` is
the processor time of the same reads, which other processes on the machine disturb less.
"""

from __future__ import annotations

import argparse
import gc
import json
import random
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from schemas.features.declarations import Aggregation, FeatureGroup
from schemas.features.stamps import Stamp
from serving.features.reader import FeatureReader, Wanted
from stores.features.lmdb_store import LmdbStore
from transforms.features.layout import Layout, tile_code
from transforms.features.rows import encode_rows
from transforms.features.tiles import empty_parts

NOW = 1_800_000_000_000
WINDOWS = ("1h", "1d", "7d")
GROUP = FeatureGroup(
    "spend", 1, "order_line", ("household",),
    (
        Aggregation("count", windows=WINDOWS, default=0), Aggregation("sum", "amount", WINDOWS, default=0),
        Aggregation("mean", "amount", WINDOWS), Aggregation("max", "amount", WINDOWS),
    ),
    "bench",
)  # fmt: skip
LAYOUT = Layout(GROUP, {"household": "string", "amount": "long", "occurred_at": "long"})


def row_of(tiles: int, random_numbers: random.Random) -> bytes:
    """A row with so many tiles, spread over the hops of the group and its windows."""
    codes = list[int]()
    for hop, span in ((1, 3_600_000), (3, 7 * 86_400_000)):
        times = {NOW - random_numbers.randrange(span) for _ in range(10 * tiles)}
        codes += sorted({int(code) for code in tile_code(np.array(sorted(times)), hop)}, key=lambda _: random_numbers.random())[: tiles // 2]  # fmt: skip
    records = np.zeros(len(codes), LAYOUT.tile)
    records["tile"] = sorted(codes)
    for name in (LAYOUT.tile.names or ())[1:]:
        records[name] = [random_numbers.randrange(1, 500) for _ in codes]
    parts = empty_parts(LAYOUT)._replace(tile_entities=np.zeros(len(codes), np.int64), tiles=records)
    return encode_rows(LAYOUT, parts, [Stamp(0, 1)])[0]


def fill(folder: Path, entities: int, tiles: int = 60) -> None:
    """Writes the rows of entities `h0`, `h1`, …"""
    random_numbers, store = random.Random(7), LmdbStore(folder)
    store.write(GROUP.id, 0, {f"h{number}": row_of(tiles, random_numbers) for number in range(entities)})
    store.close()


def timed(reader: FeatureReader, entities: int, size: int, reads: int) -> dict[str, dict[str, float]]:
    """The quantiles (ms) of reads of `size` entities in one call, by the clock and of the processor's time."""
    random_numbers, taken, used = random.Random(1), list[int](), list[int]()
    calls = [
        [Wanted(GROUP.id, (), [f"h{random_numbers.randrange(entities)}" for _ in range(size)])] for _ in range(reads)
    ]
    for wanted in calls:
        cpu, begun = time.thread_time_ns(), time.perf_counter_ns()
        reader.read(wanted)
        taken.append(time.perf_counter_ns() - begun)
        used.append(time.thread_time_ns() - cpu)
    return {"": quantiles(taken), "cpu_": quantiles(used)}


def quantiles(taken: Sequence[int]) -> dict[str, float]:
    """p50, p99 and p999 (ms) of durations in ns."""
    ordered = sorted(taken)
    return {
        name: ordered[int(len(ordered) * part)] / 1e6 for name, part in (("p50", 0.5), ("p99", 0.99), ("p999", 0.999))
    }


def main() -> None:
    """Prints the quantiles as JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--reads", type=int, default=20_000)
    parser.add_argument("--entities", type=int, default=2_000)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        fill(Path(folder), given.entities)
        store = LmdbStore(Path(folder), read_only=True)
        reader = FeatureReader(store, {GROUP.id: LAYOUT}, lambda: NOW)
        timed(reader, given.entities, 1, given.reads // 10)
        measured = dict[str, object]()
        for name, size, reads in (("read", 1, given.reads), ("read_100", 100, given.reads // 20)):
            for kind, numbers in timed(reader, given.entities, size, reads).items():
                measured[f"{name}_{kind}ms"] = numbers
        store.close()
    print(json.dumps({"tiles": 60, "features": len(GROUP.features), **measured}))


if __name__ == "__main__":
    gc.collect()
    gc.freeze()  # as the feature server does
    main()
