"""Measure point-in-time training sets over the 1.47 million purchases of the sample data; prints JSON.

    python -m bench.training_set [--rows 100000]

training_set_s   CPU seconds of 6,589 rows (the mailings of the study) x 7 windows x every aggregation, events unsorted
count_sum_s      the same rows and windows, count and sum alone
duckdb_s         CPU seconds of the same count and sum by DuckDB: prefix sums and an ASOF join a window, one thread
compared         values of count, sum, min and max (exact windows) that were compared with DuckDB's RANGE windows over
                 `--rows` rows; mismatches: how many were not equal
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from examples.journey.purchases import read_tables
from schemas.features.declarations import Aggregation, FeatureGroup, Where
from schemas.features.windows import window_ms
from transforms.features.event_columns import EventColumns
from transforms.features.layout import Layout
from transforms.features.point_in_time import Rows, values_as_of

WINDOWS = ("1h", "1d", "3d", "7d", "30d", "60d", "90d")
TYPES = {"household_id": "long", "product_id": "string", "cents": "long", "price": "double", "occurred_at": "long"}


def every(operation: str, column: str = "", **more: Any) -> Aggregation:
    """The aggregation over the seven windows."""
    return Aggregation(operation, column, WINDOWS, **more)


EVERY = (
    every("count"),
    every("count", name="dear", where=(Where("cents", ">", 500),)),
    every("sum", "cents"),
    every("mean", "cents"),
    every("variance", "cents"),
    every("min", "cents"),
    every("max", "cents"),
    every("first", "cents"),
    every("last", "product_id"),
    every("last_k", "product_id", k=3),
    every("count_by", "cents", values=(100, 200)),
    every("distinct", "product_id"),
    every("quantiles", "cents", quantiles=(0.5, 0.9)),
    every("decayed_sum", "price", half_life="7d"),
    every("ratio", name="share", of=("dear", "count")),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000)
    args = parser.parse_args()
    tables = read_tables()
    events, rows = purchases(tables["transactions"]), mailings(tables)
    both = tuple(one for one in EVERY if one.title in ("count", "cents_sum"))
    result: dict[str, Any] = {"events": len(events), "rows": len(rows.times), "features": len(EVERY) * len(WINDOWS)}
    result["training_set_s"] = cpu_s(lambda: values_as_of(layout(EVERY), events, rows))
    result["count_sum_s"] = cpu_s(lambda: values_as_of(layout(both), events, rows))
    connection = duckdb.connect(config={"threads": 1})
    register(connection, events, rows)
    result["duckdb_s"] = cpu_s(lambda: asof_joins(connection))
    result |= compare(connection, events, any_rows(events, args.rows))
    print(json.dumps(result, indent=2))


def layout(aggregations: tuple[Aggregation, ...]) -> Layout:
    """A group of the household's purchases."""
    return Layout(FeatureGroup("spend", 1, "order_line", ("household_id",), aggregations, "bench"), TYPES)


def cpu_s(run: Callable[[], Any], times: int = 3) -> float:
    """The least CPU seconds of the process of so many runs."""
    took = []
    for _ in range(times):
        start = time.process_time()
        run()
        took.append(time.process_time() - start)
    return round(min(took), 3)


def purchases(table: pa.Table) -> EventColumns:
    """The purchases as events, in a random order."""
    table = table.take(pa.array(np.random.default_rng(1).permutation(len(table)))).combine_chunks()
    price = table["sales_value"].to_numpy()
    texts = table["product_id"].cast(pa.string()).combine_chunks()
    columns = {
        "household_id": table["household_id"].cast(pa.int64()).to_numpy(),
        "product_id": texts.chunk(0) if isinstance(texts, pa.ChunkedArray) else texts,
        "cents": np.round(price * 100).astype(np.int64),
        "price": price,
        "occurred_at": epoch_ms(table["transaction_timestamp"]),
    }
    ties = np.random.default_rng(2).integers(0, 1 << 62, len(table))
    return EventColumns(np.arange(len(table)), ties, columns, {})


def epoch_ms(column: Any) -> Any:
    """The milliseconds since 1970 of an Arrow column of times."""
    return pc.cast(column, pa.timestamp("ms"), safe=False).cast(pa.int64()).to_numpy()


def mailings(tables: dict[str, pa.Table]) -> Rows:
    """A row of each household and campaign, at the campaign's start."""
    joined = tables["campaigns"].join(tables["campaign_descriptions"], "campaign_id")
    times = epoch_ms(pc.cast(joined["start_date"], pa.timestamp("ms")))
    return Rows(joined["household_id"].cast(pa.int64()).cast(pa.string()).to_pylist(), times)


def any_rows(events: EventColumns, count: int) -> Rows:
    """Rows at, before and after random events."""
    random = np.random.default_rng(3)
    at = random.integers(0, len(events), count)
    times = events.columns["occurred_at"][at] + random.choice([0, 1, -1, 3_600_000, 86_400_000], count)
    return Rows([str(one) for one in events.columns["household_id"][at].tolist()], times)


def register(connection: Any, events: EventColumns, rows: Rows) -> None:
    """Gives DuckDB the events and the rows."""
    names = ("household_id", "cents", "occurred_at")
    connection.register("arrow_events", pa.table({name: events.columns[name] for name in names}))
    connection.register("arrow_rows", pa.table({"household_id": list(map(int, rows.entities)), "as_of": rows.times}))
    connection.execute("CREATE OR REPLACE TABLE events AS SELECT * FROM arrow_events")
    connection.execute("CREATE OR REPLACE TABLE rows AS SELECT row_number() OVER () AS row, * FROM arrow_rows")


def asof_joins(connection: Any) -> Any:
    """Count and sum of each row and exact window, as the difference of two running sums."""
    edges = " UNION ALL ".join(
        f"SELECT row, household_id, as_of - {window} AS edge, {number} AS number FROM rows"  # noqa: S608
        for number, window in enumerate([0, *map(window_ms, WINDOWS)])
    )
    return connection.sql(f"""
        WITH running AS (
            SELECT household_id, occurred_at, max(n) AS n, max(total) AS total FROM (
                SELECT household_id, occurred_at, row_number() OVER own AS n, sum(cents) OVER own AS total
                FROM events WINDOW own AS (PARTITION BY household_id ORDER BY occurred_at ROWS UNBOUNDED PRECEDING))
            GROUP BY ALL),
        edges AS ({edges}),
        found AS (
            SELECT e.row, e.number, coalesce(r.n, 0) AS n, coalesce(r.total, 0) AS total
            FROM edges e ASOF LEFT JOIN running r ON e.household_id = r.household_id AND e.edge > r.occurred_at)
        SELECT b.row, b.number, a.n - b.n, a.total - b.total
        FROM found b JOIN found a ON a.row = b.row AND a.number = 0 WHERE b.number > 0
        """).to_arrow_table()  # noqa: S608


def range_windows(connection: Any) -> dict[str, Any]:
    """Count, sum, least and greatest of each row and window by RANGE windows over events and rows together."""
    parts = ", ".join(
        f"count(cents) OVER w{text} AS count_{text}, sum(cents) OVER w{text} AS cents_sum_{text}, "
        f"min(cents) OVER w{text} AS cents_min_{text}, max(cents) OVER w{text} AS cents_max_{text}"
        for text in WINDOWS
    )
    windows = ", ".join(
        f"w{text} AS (PARTITION BY household_id ORDER BY instant RANGE BETWEEN {window_ms(text)} PRECEDING AND 1 PRECEDING)"
        for text in WINDOWS
    )
    return connection.sql(f"""
        SELECT * FROM (SELECT row, {parts} FROM (
            SELECT household_id, occurred_at AS instant, cents, NULL AS row FROM events
            UNION ALL SELECT household_id, as_of, NULL, row FROM rows) WINDOW {windows})
        WHERE row IS NOT NULL ORDER BY row
        """).to_arrow_table()  # noqa: S608


def compare(connection: Any, events: EventColumns, rows: Rows) -> dict[str, int]:
    """How many values were compared with RANGE windows, and how many differ."""
    register(connection, events, rows)
    wanted = range_windows(connection)
    exact = tuple(Aggregation(one.operation, one.column, WINDOWS, exact=True) for one in EVERY if one.title in SAME)
    ours = values_as_of(layout(exact), events, rows)
    differ = 0
    for name, column in ours.items():
        theirs = wanted[name].cast(pa.int64()).combine_chunks()
        equal = pc.equal(pc.fill_null(column, 0), pc.fill_null(theirs, 0))
        differ += len(equal) - int(pc.sum(equal).as_py())
    return {"compared_rows": len(rows.times), "compared": len(ours) * len(rows.times), "mismatches": differ}


SAME = ("count", "cents_sum", "cents_min", "cents_max")

if __name__ == "__main__":
    main()
