"""Events for the features' certificate and benchmarks, the job over them, and a recount of its tiles by DuckDB."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import duckdb
import numpy as np
import pyarrow as pa
from confluent_kafka import Consumer, Producer, TopicPartition

from bench.deliveries import ROOT
from connectors.kafka.client import KafkaClient, create_topic
from connectors.uri import KafkaUri
from schemas.codec.avro_columns import encode_records
from schemas.events.event_types import load_event_types
from schemas.events.framing import frame
from schemas.features.catalogue import load_groups
from schemas.features.declarations import FeatureGroup
from schemas.features.windows import HOPS
from schemas.problems import JobError
from stores.features.open import open_store
from transforms.features.layout import Layout
from transforms.features.rows import decode_rows

TYPE = "order_line"
PARTITIONS = 4
DECLARED = ROOT / "examples/features"
_TYPES = load_event_types()
ORDER_LINE = _TYPES[TYPE]


class Orders(NamedTuple):
    """Order lines: a table with a column a field, the partition of each, and its framed body."""

    table: pa.Table
    partitions: np.ndarray[Any, Any]
    bodies: list[bytes]

    def part(self, first: int, end: int) -> Orders:
        """The lines from one place on and before another."""
        return Orders(self.table.slice(first, end - first), self.partitions[first:end], self.bodies[first:end])


@cache
def groups() -> list[FeatureGroup]:
    """The declared groups over order lines: by household, and by store and product."""
    loaded = load_groups(DECLARED, {name: one.columns for name, one in _TYPES.items()})
    return [group for group in loaded.values() if group.source == TYPE]


def make_orders(count: int, entities: int, seed: int, spread_ms: int = 1_800_000, skew: float = 1.3) -> Orders:
    """Order lines of households that are skewed (Zipf), around now, and out of order."""
    random, now = np.random.default_rng(seed), int(time.time() * 1000)
    households = random.zipf(skew, count) % entities if skew else random.integers(0, entities, count)
    occurred = now - np.abs(random.normal(0, spread_ms, count)).astype(np.int64)
    text = lambda prefix, numbers: pa.array([f"{prefix}{number}" for number in numbers.tolist()])  # noqa: E731
    ids = random.bytes(16 * count).hex()
    columns = {
        "event_id": pa.array([ids[at : at + 32] for at in range(0, 32 * count, 32)]),
        "type": pa.array([TYPE] * count),
        "version": pa.array(np.full(count, ORDER_LINE.newest)),
        "occurred_at": pa.array(occurred),
        "published_at": pa.array(np.full(count, now)),
        "producer": pa.array(["bench"] * count),
        "household_id": text("h", households),
        "basket_id": text("b", random.integers(0, 1 << 40, count)),
        "store_id": text("s", households % 97),
        "product_id": text("p", random.integers(0, max(2, entities // 97), count)),
        "quantity": pa.array(random.integers(1, 9, count)),
        "sales_cents": pa.array(random.integers(1, 5_000, count)),
        "discount_cents": pa.array(random.integers(0, 100, count)),
    }
    bodies = encode_records(ORDER_LINE.versions[ORDER_LINE.newest], columns, count)
    head = frame(ORDER_LINE, ORDER_LINE.newest)
    return Orders(pa.table(columns), households % PARTITIONS, [head + body for body in bodies.to_pylist()])


def new_store_topic(host: str, prefix: str) -> str:
    """The URI of an event store of its own in Kafka, with a topic for order lines."""
    create_topic(KafkaUri((host,), f"{prefix}.{TYPE}"), KafkaClient(), partitions=PARTITIONS, replicas=1)
    return f"kafka:{host}/{prefix}"


class Topic:
    """The topic of order lines in an event store."""

    def __init__(self, host: str, prefix: str) -> None:
        self._host, self._name = host, f"{prefix}.{TYPE}"
        self._producer = Producer(
            {"bootstrap.servers": host, "linger.ms": 5, "queue.buffering.max.messages": 2_000_000}
        )

    def send(self, orders: Orders, repeated: float = 0.0, seed: int = 0) -> None:
        """Publishes order lines, and a share of them once more a little later."""
        again = np.random.default_rng(seed).random(len(orders.bodies)) < repeated
        places = zip(orders.bodies, orders.partitions.tolist(), again.tolist(), strict=True)
        for number, (body, partition, twice) in enumerate(places):
            for _ in range(1 + twice):
                self._producer.produce(self._name, body, partition=partition)
            if number % 1_000 == 0:
                self._producer.poll(0)
        self._producer.flush()

    def end(self) -> int:
        """The messages of all partitions."""
        consumer = Consumer({"bootstrap.servers": self._host, "group.id": "count"})
        ends = [consumer.get_watermark_offsets(TopicPartition(self._name, number))[1] for number in range(PARTITIONS)]
        consumer.close()
        return sum(ends)


def start_features(events: str, store: str, *more: str, log: Path) -> subprocess.Popen[bytes]:
    """The job features, in a process group of its own; it writes to a log."""
    command = [sys.executable, "-m", "pipelines.features", f"--events={events}", f"--features={DECLARED}"]
    with log.open("ab") as out:
        return subprocess.Popen(
            [*command, f"--feature_store={store}", *more],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def folded(store: str) -> int:
    """The messages that every group has folded in; 0 while there is no store."""
    try:
        reader = open_store(store, read_only=True)
        positions = [reader.positions(group.id).values() for group in groups()]
    except JobError:
        return 0
    reader.close()
    return min(sum(stamp.position for stamp in one) for one in positions)


def recount(orders: Orders, store: str) -> dict[str, int]:
    """How many tiles of the store are `wrong`, `missing` or `extra`, by DuckDB's count over the order lines: count and
    sum, and what there is of maximum and last."""
    result = {"tiles": 0, "wrong": 0, "missing": 0, "extra": 0}
    lines = orders.table.append_column("partition", pa.array(orders.partitions))  # noqa: F841 DuckDB reads it by name
    reader = open_store(store, read_only=True)
    for group in groups():
        layout = Layout(group, ORDER_LINE.columns)
        kept = pa.Table.from_pylist(list(_tiles(reader, layout)))  # noqa: F841 DuckDB reads it by name
        key = " || chr(31) || ".join(group.key)
        summed = group.aggregations[1].column
        selects = [
            f"""SELECT {key} AS entity, partition, (occurred_at // {HOPS[hop]}) * 8 + {hop} AS tile, count(*) AS n,
                sum({summed})::BIGINT AS total FROM lines GROUP BY ALL"""  # noqa: S608
            for hop in layout.hops
        ]
        found = duckdb.sql(
            f"""SELECT count(*), count(*) FILTER (WHERE k.tile IS NULL), count(*) FILTER (WHERE c.tile IS NULL),
                count(*) FILTER (WHERE k.n != c.n OR k.total != c.total)
                FROM ({" UNION ALL ".join(selects)}) c FULL JOIN kept k USING (entity, partition, tile)"""  # noqa: S608
        ).fetchall()[0]
        for name, number in zip(("tiles", "missing", "extra", "wrong"), found, strict=True):
            result[name] += int(number)
    reader.close()
    return result


def _tiles(reader: Any, layout: Layout) -> Iterator[dict[str, Any]]:
    for key, row in reader.scan(layout.group.id):
        for tile in decode_rows(layout, [row]).tiles:
            yield {
                "entity": key.entity,
                "partition": key.partition,
                "tile": int(tile["tile"]),
                "n": int(tile["0.n"]),
                "total": int(tile["1.sum"]),
            }
