"""Values as of an instant equal those of rows into which the events before it were folded."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.features.declarations import Aggregation, FeatureGroup, Where
from transforms.features.event_columns import EventColumns
from transforms.features.layout import Layout
from transforms.features.point_in_time import Rows, last_as_of, values_as_of
from transforms.features.rows import decode_rows, update_rows
from transforms.features.tiles import select
from transforms.features.values import values_at

NOW = 1_800_000_000_000
TYPES = {
    "household": "long", "store": "string", "amount": "long", "price": "double", "kind": "string",
    "occurred_at": "long", "known_at": "long",
}  # fmt: skip
SPANS = ("1m", "1h", "7d")


def every(operation: str, column: str = "", **more: Any) -> Aggregation:
    """The aggregation over three windows."""
    return Aggregation(operation, column, SPANS, **more)


AGGREGATIONS = (
    every("count"),
    every("count", "price", name="priced", default=0),
    every("count", name="dear", where=(Where("amount", ">", 50),), default=7),
    every("count", name="kindless", where=(Where("kind", "is_null"),)),
    *(every(name, column) for column in ("amount", "price") for name in ("sum", "mean", "variance", "min", "max")),
    *(every(name, column) for column in ("amount", "price", "kind") for name in ("first", "last", "distinct")),
    *(every("last_k", column, k=3) for column in ("amount", "price", "kind")),
    every("last", "kind", name="begins", width=1, default="-"),
    every("count_by", "kind", values=("a", "b")),
    every("count_by", "amount", values=(1, 2, 3), where=(Where("kind", "in", ("a", "long ä")),)),
    *(every("quantiles", column, quantiles=(0.0, 0.5, 0.9, 1.0)) for column in ("amount", "price")),
    *(every("decayed_sum", column, half_life="1h") for column in ("amount", "price")),
    every("ratio", name="share", of=("dear", "count"), default=-1.0),
)
SAWTOOTH = FeatureGroup("spend", 1, "order_line", ("household", "store"), AGGREGATIONS, "team")
EXACT = replace(
    SAWTOOTH,
    aggregations=tuple(replace(one, exact=one.operation != "ratio") for one in AGGREGATIONS),
    key=("household",),
)
FILTERED = replace(SAWTOOTH, where=(Where("amount", "<", 90),), key=("store",))
LATER = replace(EXACT, time="known_at")
Event = tuple[int, str | None, int | None, float | None, str | None, int, int]
EVENTS = st.lists(
    st.tuples(
        st.integers(1, 2),
        st.sampled_from(["s1", "s2", None]),
        st.integers(-100, 100) | st.sampled_from([0, 1, 2, 3, None, 1 << 41, -(1 << 43), -(1 << 63)]),
        st.floats(-1e6, 1e6) | st.sampled_from([0.0, -0.0, None, math.nan, math.inf, -math.inf, 1e9, 1e9 + 1, 1e200]),
        st.sampled_from(["a", "b", "", "long ä", "ä" * 40, None]),
        st.integers(0, 8 * 86_400_000) | st.integers(0, 90_000) | st.sampled_from([0, 60_000, 3_600_000]),
        st.integers(0, 1 << 40),
    ),
    max_size=40,
    unique_by=lambda event: event[6],
)


def columns(events: list[Event], delay: int = 0) -> EventColumns:
    """The events in this order; `known_at` is `delay` later."""
    times = np.array([NOW - event[5] for event in events], np.int64)
    present = {
        name: np.array([event[place] is not None for event in events], bool)
        for name, place in (("amount", 2), ("price", 3))
    }
    return EventColumns(
        np.arange(len(events)),
        np.array([event[6] for event in events], np.int64),
        {
            "household": np.array([event[0] for event in events], np.int64),
            "store": pa.array([event[1] for event in events], pa.string()),
            "amount": np.array([event[2] or 0 for event in events], np.int64),
            "price": np.array([event[3] or 0.0 for event in events], np.float64),
            "kind": pa.array([event[4] for event in events], pa.string()),
            "occurred_at": times,
            "known_at": times + delay,
        },
        present,
    )


def folded(layout: Layout, events: EventColumns, entity: str, instant: int) -> dict[str, Any]:
    """The entity's values from the row of the events before the instant."""
    before = events.take(events.columns[layout.group.time] < instant)
    chosen = select(layout, before, instant)
    rows = update_rows(layout, chosen, [None] * len(chosen.entities), len(events), instant)
    values = values_at(layout, decode_rows(layout, [rows.get(entity)]), 1, instant)
    return {name: found[0] for name, found in values.items()}


def alike(left: Any, right: Any) -> bool:
    """Equal, also in type; floating point within 1e-9."""
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(alike, left, right))
    if isinstance(left, float) and isinstance(right, float):
        return math.isclose(left, right, rel_tol=1e-9, abs_tol=1e-9)
    return type(left) is type(right) and left == right


@pytest.mark.parametrize("group", [SAWTOOTH, EXACT, FILTERED, LATER], ids=["sawtooth", "exact", "filtered", "known"])
@settings(max_examples=60, deadline=None)
@given(
    EVENTS,
    st.lists(
        st.tuples(
            st.integers(1, 3), st.sampled_from(["s1", "s2"]), st.integers(-70_000, 9 * 86_400_000) | st.integers(-1, 1)
        ),
        max_size=8,
    ),
)
def test_values_equal_rows_of_the_events_before_the_instant(
    group: FeatureGroup, events: list[Event], asked: list[tuple[int, str, int]]
) -> None:
    layout = Layout(group, TYPES)
    given_events = columns(events, delay=30_000)
    texts = {("household", "store"): lambda row: f"{row[0]}\x1f{row[1]}", ("household",): lambda row: str(row[0])}
    entities = [texts.get(group.key, lambda row: row[1])(row) for row in asked]
    times = np.array([NOW - row[2] for row in asked], np.int64)
    values = values_as_of(layout, given_events, Rows(entities, times))
    assert list(values) == [name for name, _, _ in group.features]
    for place, (entity, instant) in enumerate(zip(entities, times.tolist(), strict=True)):
        for name, wanted in folded(layout, given_events, entity, instant).items():
            assert alike(values[name][place].as_py(), wanted), (name, values[name][place].as_py(), wanted)


def test_ten_thousand_rows_equal_the_range_windows_of_duckdb() -> None:
    """bench/training_set.py compares 100,000 rows of the sample data by the same query."""
    random = np.random.default_rng(7)
    size, asked = 20_000, 10_000
    times = NOW - random.integers(0, 3_000, size) * 100_000 - random.integers(0, 2, size)
    amounts = random.integers(-1_000, 1_000, size)
    events = EventColumns(
        np.arange(size),
        random.permutation(size),
        {"household": random.integers(0, 50, size), "amount": amounts, "occurred_at": times},
        {},
    )
    rows = Rows([str(one) for one in random.integers(0, 52, asked)], times[random.integers(0, size, asked)])
    operations = ("count", "sum", "min", "max")
    group = FeatureGroup(
        "spend", 1, "order_line", ("household",), tuple(Aggregation(name, "amount", SPANS, exact=True) for name in operations), "team"
    )  # fmt: skip
    values = values_as_of(Layout(group, TYPES), events, rows)
    connection = duckdb.connect()
    connection.register("events", pa.table(dict(events.columns)))
    connection.register(
        "asked", pa.table({"n": range(asked), "household": list(map(int, rows.entities)), "t": rows.times})
    )
    parts = ", ".join(f"{name}(amount) OVER w{text} AS amount_{name}_{text}" for name in operations for text in SPANS)
    windows = ", ".join(
        f"w{text} AS (PARTITION BY household ORDER BY t RANGE BETWEEN {span} PRECEDING AND 1 PRECEDING)"
        for text, span in zip(SPANS, (60_000, 3_600_000, 7 * 86_400_000), strict=True)
    )
    wanted = connection.sql(
        f"SELECT * FROM (SELECT n, {parts} FROM (SELECT household, occurred_at AS t, amount, NULL AS n FROM events UNION ALL "  # noqa: S608
        f"SELECT household, t, NULL, n FROM asked) WINDOW {windows}) WHERE n IS NOT NULL ORDER BY n"
    ).to_arrow_table()
    for name, column in values.items():
        theirs = wanted[name].cast(pa.int64()).to_pylist()
        assert column.to_pylist() == [
            value or None if name.startswith("amount_count") else value for value in theirs
        ], name


def test_an_event_at_the_instant_does_not_count_and_one_a_millisecond_before_does() -> None:
    group = FeatureGroup(
        "spend", 1, "order_line", ("household",), (Aggregation("count", "", ("1m",), exact=True),), "team"
    )
    events = columns([(1, None, 1, None, None, 0, 1)])
    rows = Rows(["1"] * 4, NOW + np.array([0, 1, 60_000, 60_001]))
    assert values_as_of(Layout(group, TYPES), events, rows)["count_1m"].to_pylist() == [None, 1, 1, None]


def test_a_label_counts_from_when_it_was_known() -> None:
    """A redemption that was reported an hour later is in a window over `known_at`, not before."""
    events = columns([(1, None, 1, None, None, 0, 1)], delay=3_600_000)
    count = (Aggregation("count", "", ("1m",), exact=True),)
    rows = Rows(["1", "1"], NOW + np.array([1, 3_600_001]))
    for time, wanted in (("occurred_at", [1, None]), ("known_at", [None, 1])):
        group = FeatureGroup("redeemed", 1, "coupon_redeemed", ("household",), count, "team", time=time)
        assert values_as_of(Layout(group, TYPES), events, rows)["count_1m"].to_pylist() == wanted


@given(EVENTS, st.lists(st.tuples(st.integers(1, 3), st.integers(-10, 100_000)), max_size=5))
def test_a_changing_table_is_read_as_it_was_before_the_instant(
    events: list[Event], asked: list[tuple[int, int]]
) -> None:
    changes = columns(events)
    rows = Rows([str(household) for household, _ in asked], np.array([NOW - ago for _, ago in asked], np.int64))
    wanted = []
    for household, ago in asked:
        earlier = [
            (NOW - one[5], one[6], place) for place, one in enumerate(events) if one[0] == household and one[5] > ago
        ]
        wanted.append(max(earlier, default=(0, 0, -1))[2])
    assert last_as_of(changes, ("household",), "occurred_at", rows).tolist() == wanted


def test_no_events_and_no_rows_give_defaults_and_nothing() -> None:
    layout = Layout(SAWTOOTH, TYPES)
    values = values_as_of(layout, columns([]), Rows(["1\x1fs1"], np.array([NOW])))
    assert {column.to_pylist()[0] for column in values.values()} == {None, 0, 7, "-", -1.0}
    empty = values_as_of(layout, columns([(1, "s1", 1, 1.0, "a", 0, 1)]), Rows([], np.zeros(0, np.int64)))
    assert all(len(column) == 0 for column in empty.values())


def test_an_entity_whose_sum_leaves_64_bits_is_an_error() -> None:
    group = FeatureGroup("spend", 1, "order_line", ("household",), (Aggregation("sum", "amount", ("1h",)),), "team")
    size = (1 << 22) + 10
    full = EventColumns(
        np.arange(size),
        np.arange(size),
        {
            "household": np.ones(size, np.int64),
            "amount": np.full(size, 1 << 42),
            "occurred_at": np.full(size, NOW - 1),
        },
        {},
    )
    with pytest.raises(OverflowError, match="64 bits"):
        values_as_of(Layout(group, TYPES), full, Rows(["1"], np.array([NOW])))


@pytest.mark.parametrize("exact", [False, True])
def test_distinct_counts_beyond_the_exact_ones_are_those_of_the_rows(exact: bool) -> None:
    aggregations = tuple(
        Aggregation("distinct", column, ("1h", "7d"), exact=exact) for column in ("kind", "amount", "price")
    )
    layout = Layout(FeatureGroup("many", 1, "events", ("household",), aggregations, "team"), TYPES)
    size = 6_000
    numbers = np.random.default_rng(11).integers(0, 4_000, size)
    events = EventColumns(
        np.arange(size),
        np.arange(size),
        {
            "household": np.ones(size, np.int64),
            "amount": numbers,
            "price": numbers / 7,
            "kind": pa.array([f"k{number}" for number in numbers.tolist()]),
            "occurred_at": NOW - 1 - np.arange(size) * 2_000,
        },
        {},
    )  # fmt: skip
    values = values_as_of(layout, events, Rows(["1"], np.array([NOW])))
    assert {name: column[0].as_py() for name, column in values.items()} == folded(layout, events, "1", NOW)
    assert values["kind_distinct_7d"][0].as_py() == pytest.approx(len(set(numbers.tolist())), rel=0 if exact else 0.1)
