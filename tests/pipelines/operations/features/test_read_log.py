"""The stream and the recomputation agree: rows that the pipeline folded give the values of the log, event by event."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from bench.feature_events import DECLARED, ORDER_LINE, PARTITIONS, TYPE, Orders, make_orders
from connectors.kafka.client import KafkaClient
from connectors.open import open_log_writer
from connectors.uri import sink_uri
from pipelines.features.driver import run
from pipelines.operations.features.consistency import check
from pipelines.operations.features.read_log import log_reader
from pipelines.operations.features.recompute import Recomputation
from pipelines.operations.features.training_set import training_set
from schemas.features.catalogue import load_catalogue
from schemas.features.declarations import FeatureGroup
from serving.features.reader import FeatureReader, Quality, Wanted
from stores.features.open import open_store
from transforms.features.layout import Layout

TYPES = {TYPE: ORDER_LINE.columns}


def publish(folder: Path, orders: Orders) -> None:
    """Appends order lines to the event store in a folder, each twice."""
    writer = open_log_writer(sink_uri(f"file:{folder}/{TYPE}"), PARTITIONS)
    for partition in range(PARTITIONS):
        own = [body for body, place in zip(orders.bodies, orders.partitions, strict=True) if place == partition]
        writer.append(partition, own + own, [int(time.time() * 1000)] * 2 * len(own), {})
    writer.close()


def test_served_values_equal_those_of_the_log_and_training_sets_are_made_from_it(tmp_path: Path) -> None:
    orders = make_orders(1_000, 40, seed=5)
    publish(tmp_path / "events", orders)
    store_uri = f"lmdb:{tmp_path}/features"
    options = ("events=file:{}/events", "feature_store=lmdb:{}/features", "idle=0.5", "on=direct")
    assert run(["--drain", f"--features={DECLARED}", *(f"--{one.format(tmp_path)}" for one in options)]) == 0
    catalogue = load_catalogue(DECLARED, TYPES)
    reader = log_reader(f"file:{tmp_path}/events", {TYPE: ORDER_LINE}, KafkaClient())
    recomputation = Recomputation(catalogue, TYPES, reader, lambda name: pa.table({}))
    now = int(time.time() * 1000)
    layouts = {name: Layout(one, TYPES[TYPE]) for name, one in catalogue.items() if isinstance(one, FeatureGroup)}
    store = open_store(store_uri, read_only=True)
    entities = [f"h{number}" for number in range(45)]
    rows = []
    for answer in FeatureReader(store, layouts, lambda: now).read([Wanted("household_spend@1", [], entities)]):
        for name, values, qualities in zip(answer.features, answer.values, answer.qualities, strict=True):
            for entity, value, quality in zip(entities, values, qualities, strict=True):
                served = None if quality == Quality.DEFAULT else json.dumps(value)
                feature = f"{answer.group}:{name}"
                rows.append({"entity": entity, "as_of": now, "feature": feature, "value": served})
    store.close()
    found = check(pa.Table.from_pylist(rows), recomputation)
    assert sum(one.served for one in found) == len(rows) > 500
    assert [one for one in found if one.mismatched or one.missing or one.extra] == []

    labels = pa.table({"household_id": ["h1", "nobody"], "at": [now, now]})
    lineage = training_set(labels, ["household_spend@1:lines_7d"], "at", recomputation, tmp_path / "set.parquet")
    count = sum(one == "h1" for one in orders.table["household_id"].to_pylist())
    assert pq.read_table(tmp_path / "set.parquet")["household_spend__lines_7d"].to_pylist() == [count, 0]
    assert sum(lineage.positions[TYPE].values()) == 2_000
