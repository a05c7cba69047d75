"""Training sets, batch features and the check of served values, over a log of events and tables."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.operations.features.batch import read_batches, run_batch
from pipelines.operations.features.consistency import Consistency, check, stability
from pipelines.operations.features.recompute import LogPart, Recomputation
from pipelines.operations.features.training_set import read_lineage, training_set
from schemas.features.declarations import Aggregation, FeatureGroup
from schemas.features.tables import TableColumn, TableGroup
from schemas.features.windows import DAY, HOUR
from schemas.problems import InputError
from transforms.features.event_columns import EventColumns

NOW = 1_800_000_000_000
TYPES = {
    "order_line": {"household": "long", "amount": "long", "occurred_at": "long"},
    "coupon_redeemed": {"household": "long", "redeemed": "long", "occurred_at": "long", "known_at": "long"},
}
SPEND = FeatureGroup(
    "spend", 1, "order_line", ("household",),
    (Aggregation("count", "", ("7d",), default=0), Aggregation("sum", "amount", ("7d", "1d")), Aggregation("last_k", "amount", ("7d",), k=2)),
    "team",
)  # fmt: skip
PEAKS = FeatureGroup("peaks", 1, "spend@1", ("household",), (Aggregation("max", "count", ("7d",)),), "team", every="1h")
REDEEMED = FeatureGroup(
    "redeemed", 1, "coupon_redeemed", ("household",), (Aggregation("sum", "redeemed", ("7d",), exact=True),), "team",
    time="known_at",
)  # fmt: skip
HOME = TableGroup("home", 1, ("household",), (TableColumn("city", "string", "?"), TableColumn("size", "long")), "team")
TOTAL = TableGroup(
    "total", 1, ("household",), (TableColumn("lifetime", "long", 0),), "team",
    sql="SELECT household, sum(amount) AS lifetime FROM orders WHERE bought_at < $as_of GROUP BY household",
)  # fmt: skip
CATALOGUE = {one.id: one for one in (SPEND, PEAKS, REDEEMED, HOME, TOTAL)}
ORDERS = [
    (1, 5, 3 * DAY),
    (1, 7, 3 * DAY - 1),
    (1, 11, HOUR),
    (2, 13, HOUR),
    (1, 17, 0),
]  # household, amount, ms before NOW
LABELS = pa.table({"household": [1, 2, 1, 3], "at": [NOW, NOW, NOW - 2 * DAY, NOW], "clicked": [1, 0, 0, 1]})


def read_events(event_type: str, columns: Collection[str]) -> Iterator[LogPart]:
    """The log in two partitions, one of which has no event of redemptions."""
    if event_type == "order_line":
        for partition in (0, 1):
            yield LogPart(partition, 10 + partition, events_of(ORDERS[partition::2], "amount", 0))
    else:
        yield LogPart(0, 3, events_of([(1, 1, 8 * DAY), (1, 1, 2 * DAY)], "redeemed", DAY))
    assert {"household", "occurred_at"} & set(columns)


def events_of(rows: list[tuple[int, int, int]], column: str, delay: int) -> EventColumns:
    """Events of (household, value, ms before NOW); `known_at` is `delay` later."""
    times = np.array([NOW - row[2] for row in rows], np.int64)
    numbers = {"household": np.array([row[0] for row in rows]), column: np.array([row[1] for row in rows])}
    order = np.arange(len(rows))
    return EventColumns(order, order, {**numbers, "occurred_at": times, "known_at": times + delay}, {})


def read_table(name: str) -> pa.Table:
    """The cities: household 1 moved a day ago."""
    assert name == "home@1"
    rows = {
        "household": [1, 1, 2],
        "city": ["Kiel", "Bonn", None],
        "size": [4, 4, 1],
        "valid_from": [0, NOW - DAY, NOW],
    }
    return pa.table(rows)


def recomputation(**more: Any) -> Recomputation:
    """Over the log and the tables above."""
    return Recomputation(CATALOGUE, TYPES, **{"read_events": read_events, "read_table": read_table, **more})


def test_a_training_set_has_the_features_of_each_row_as_they_were(tmp_path: Path) -> None:
    path = tmp_path / "set.parquet"
    features = ["spend@1", "peaks@1:count_max_7d", "redeemed@1", "home@1"]
    lineage = training_set(LABELS, features, "at", recomputation(), path)
    assert pq.read_table(path).drop_columns(LABELS.column_names).to_pydict() == {
        "spend__count_7d": [3, 1, 2, 0],  # the event at the instant itself does not count
        "spend__amount_sum_7d": [23, 13, 12, None],
        "spend__amount_sum_1d": [11, 13, 12, None],
        "spend__amount_last_k_7d": [[11, 7], [13], [7, 5], None],
        "peaks__count_max_7d": [2, 1, 2, None],
        "redeemed__redeemed_sum_7d": [2, None, 1, None],  # known 7 and 1 days before NOW: the first just counts
        "home__city": ["Bonn", "?", "Kiel", "?"],
        "home__size": [4, None, 4, None],
    }  # fmt: skip
    assert pq.read_table(path).select(LABELS.column_names).equals(LABELS)
    assert lineage.positions == {"coupon_redeemed": {"0": 3}, "order_line": {"0": 10, "1": 11}}
    assert list(lineage.groups) == ["home@1", "peaks@1", "redeemed@1", "spend@1"]
    assert read_lineage(path) == lineage


def test_the_lineage_hash_says_whether_two_sets_are_equal(tmp_path: Path) -> None:
    path = tmp_path / "set.parquet"
    first = training_set(LABELS, ["spend@1"], "at", recomputation(), path)
    content = path.read_bytes()
    chunked = pa.concat_tables([LABELS.slice(0, 1), LABELS.slice(1)])
    again = training_set(chunked, ["spend@1"], "at", recomputation(), path)
    assert again.hash == first.hash
    assert pq.read_table(path).equals(pq.read_table(pa.BufferReader(content)))
    other = training_set(LABELS.slice(1), ["spend@1"], "at", recomputation(), path)
    assert other.hash != first.hash


def test_instants_may_be_timestamps_of_any_unit(tmp_path: Path) -> None:
    values = []
    for kind in (pa.timestamp("us"), pa.timestamp("ms", "Europe/Berlin"), pa.timestamp("ns", "UTC")):
        at = (
            LABELS["at"]
            .cast(pa.timestamp("ms"))
            .cast(pa.timestamp("ms", "UTC"))
            .cast(kind if kind.tz else pa.timestamp("us"))
        )
        training_set(LABELS.set_column(1, "at", at), ["spend@1:count_7d"], "at", recomputation(), tmp_path / "a")
        values.append(pq.read_table(tmp_path / "a")["spend__count_7d"].to_pylist())
    assert values == [[3, 1, 2, 0]] * 3


def test_every_mistake_of_the_question_is_said_at_once_and_nothing_is_written(tmp_path: Path) -> None:
    labels = pa.table({"household": [1, None], "when": ["x", "y"], "home__city": [1, 2]})
    with pytest.raises(InputError) as error:
        training_set(labels, ["spend@2", "spend@1:mode", "home@1"], "when", recomputation(), tmp_path / "set.parquet")
    assert {(one.field, one.value) for one in error.value.problems} == {
        ("features", "spend@2"), ("features", "spend@1:mode"), ("household", "null in 1 rows"), ("when", "string"),
        ("home__city", "home__city"),
    }  # fmt: skip
    assert not list(tmp_path.iterdir())


def test_an_empty_log_gives_defaults(tmp_path: Path) -> None:
    empty = recomputation(read_events=lambda name, columns: [])
    training_set(LABELS, ["spend@1", "peaks@1"], "at", empty, tmp_path / "set.parquet")
    table = pq.read_table(tmp_path / "set.parquet")
    assert table["spend__count_7d"].to_pylist() == [0] * 4
    assert table["spend__amount_last_k_7d"].to_pylist() == table["peaks__count_max_7d"].to_pylist() == [None] * 4


def test_batch_features_are_read_as_of_their_last_run(tmp_path: Path) -> None:
    at = pa.array([NOW - row[2] for row in ORDERS]).cast(pa.timestamp("ms"))
    orders = pa.table({"household": [row[0] for row in ORDERS], "amount": [row[1] for row in ORDERS], "bought_at": at})
    for instant in (NOW - 2 * DAY, NOW - 1, NOW - 1):
        run_batch(TOTAL, instant, {"orders": orders}, tmp_path)
    batches = recomputation(read_table=lambda name: read_batches(TOTAL, tmp_path))
    labels = pa.table({"household": [1, 2, 1, 1], "at": [NOW, NOW, NOW - DAY, NOW - 3 * DAY]})
    lineage = training_set(labels, ["total@1"], "at", batches, tmp_path / "set.parquet")
    assert pq.read_table(tmp_path / "set.parquet")["total__lifetime"].to_pylist() == [23, 13, 12, 0]
    assert list(lineage.tables) == ["total@1"]
    assert read_batches(HOME, tmp_path).num_rows == 0


@pytest.mark.parametrize(
    ("sql", "field"),
    [
        ("SELECT household FROM orders", "sql"),
        ("SELECT household, 'x' AS lifetime FROM orders", "sql: lifetime"),
        ("SELECT household, amount AS lifetime FROM orders", "sql"),
        ("SELECT * FROM 'secret.csv'", "sql"),
        ("SELECT * FROM tables", "sql"),
        ("CREATE TABLE x (y INT)", "sql"),
    ],
)
def test_a_query_that_gives_something_else_is_refused(sql: str, field: str, tmp_path: Path) -> None:
    orders = pa.table({"household": [1, 1], "amount": [2, 3]})
    with pytest.raises(InputError) as error:
        run_batch(replace(TOTAL, sql=sql), NOW, {"orders": orders}, tmp_path)
    assert {one.field for one in error.value.problems} == {field}
    assert not list(tmp_path.iterdir())


def served_log(**changes: Any) -> pa.Table:
    """What was served of two features at the labels, right but for the changes (value by `feature@place`)."""
    values: dict[str, list[Any]] = {
        "spend@1:count_7d": [3, 1, 2, None],
        "spend@1:amount_last_k_7d": [[11, 7], [13], [7, 5], None],
    }
    rows = [
        {"entity": str(household), "as_of": at, "feature": name, "value": None if value is None else json.dumps(value)}
        for name, column in values.items()
        for household, at, value in zip(LABELS["household"].to_pylist(), LABELS["at"].to_pylist(), column, strict=True)
    ]
    for place, value in changes.items():
        rows[int(place[1:])]["value"] = value
    return pa.Table.from_pylist(
        rows,
        pa.schema([("entity", pa.string()), ("as_of", pa.int64()), ("feature", pa.string()), ("value", pa.string())]),
    )


def test_right_values_are_consistent() -> None:
    last, count = check(served_log(), recomputation())
    assert last == Consistency("spend@1:amount_last_k_7d", 4, 0, 0, 0, None, [])
    assert count == Consistency("spend@1:count_7d", 4, 0, 0, 0, 0.0, [])


def test_a_wrong_a_missing_and_an_extra_value_are_told_apart() -> None:
    last, count = check(served_log(_0="4", _1=None, _3="0", _4="[11, 8]"), recomputation())
    assert (count.mismatched, count.missing, count.extra) == (1, 1, 1)
    assert [(one.served, one.computed) for one in count.examples] == [(4, 3), (None, 1), (0, None)]
    assert (last.mismatched, last.missing, last.extra) == (1, 0, 0)


def test_a_log_with_unknown_features_or_columns_is_refused() -> None:
    log = pa.table({"entity": ["1"], "as_of": [NOW], "feature": ["spend@1"], "value": ["1"]})
    with pytest.raises(InputError, match="GROUP@VERSION:FEATURE"):
        check(log, recomputation())
    with pytest.raises(InputError, match="as_of"):
        check(log.drop_columns(["as_of"]), recomputation())


def test_the_stability_index_is_that_of_its_definition() -> None:
    assert stability([1, 2, 3, 4], [4, 3, 2, 1]) == 0.0
    assert stability([], [1]) is None
    assert (stability(range(100, 200), range(100)) or 0) > 1
    assert stability([0, 0, 0, 1], [0, 1, 1, 1]) == pytest.approx(0.5 * np.log(3) - -0.5 * np.log(3), abs=1e-12)
