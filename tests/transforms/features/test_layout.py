"""Merging of tiles and items: associative, commutative, without a change of what is merged; and its limits."""

from __future__ import annotations

import statistics
from typing import Any

import datasketches
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.features.declarations import Aggregation, FeatureGroup
from transforms.features.event_columns import EventColumns
from transforms.features.layout import MOST_SQUARED, MOST_SUMMED, Layout, merge_items, merge_tiles
from transforms.features.rows import decode_rows, merge_parts, update_rows
from transforms.features.tiles import Parts, parts_of, select
from transforms.features.values import values_at

NOW = 1_800_000_000_000
TYPES = {"who": "long", "amount": "long", "price": "double", "kind": "string", "occurred_at": "long"}
SPANS = ("1m", "1h", "7d")
NUMERIC = ("sum", "mean", "variance", "min", "max", "first", "last", "distinct")
GROUP = FeatureGroup(
    "every", 1, "events", ("who",),
    (
        Aggregation("count", "", SPANS),
        *(Aggregation(name, column, SPANS) for name in NUMERIC for column in ("amount", "price")),
        *(Aggregation(name, "kind", SPANS) for name in ("first", "last", "distinct")),
        *(Aggregation("last_k", column, SPANS, k=2) for column in ("amount", "price", "kind")),
        Aggregation("count_by", "kind", SPANS, values=("a", "b")),
        Aggregation("quantiles", "price", SPANS, quantiles=(0.5,)),
        Aggregation("decayed_sum", "price", SPANS, half_life="1h"),
    ),
    "team",
)  # fmt: skip
LAYOUT = Layout(GROUP, TYPES)
EVENTS = st.lists(
    st.tuples(
        st.integers(1, 2), st.integers(-100, 100) | st.sampled_from([MOST_SQUARED, -MOST_SQUARED, MOST_SQUARED + 1]),
        st.floats(-1e3, 1e3, width=32), st.sampled_from(["a", "b", "c", None]), st.integers(0, 7_200_000),
    ),
    max_size=12,
)  # fmt: skip
Event = tuple[int, int, float, str | None, int]


def columns(events: list[Event], first: int = 0) -> EventColumns:
    """Events with ties from `first` on."""
    return EventColumns(
        np.arange(first, first + len(events)),
        np.arange(first, first + len(events)) * 7919 % 10_007,
        {
            "who": np.array([one[0] for one in events], np.int64),
            "amount": np.array([one[1] for one in events], np.int64),
            "price": np.array([one[2] for one in events], np.float64),
            "kind": pa.array([one[3] for one in events], pa.string()),
            "occurred_at": np.array([NOW - 1 - one[4] for one in events], np.int64),
        },
        {},
    )


def parts_by_number(events: list[Event], first: int) -> Parts:
    """The parts of the events, with each entity at the place of its number."""
    selected = select(LAYOUT, columns(events, first), NOW)
    parts = parts_of(LAYOUT, selected, NOW)
    numbers = np.array([int(name) for name in selected.entities], np.int64)
    places = {name: numbers[getattr(parts, name)] for name in ("tile_entities", "item_entities", "raw_entities")}
    return parts._replace(**places)


def all_bytes(parts: Parts) -> list[bytes]:
    """Every record, and whose it is."""
    return [parts.tiles.tobytes(), parts.items.tobytes(), parts.tile_entities.tobytes(), parts.item_entities.tobytes()]


def alike(left: Parts, right: Parts) -> bool:
    """Equal bit for bit; sums of floating point, whose rounding depends on the order, within 1e-9."""
    rounded = [
        one.field for one in LAYOUT.parts if one.merge in ("add", "spread") and LAYOUT.tile[one.field].kind == "f"
    ]
    exact = [name for name in LAYOUT.tile.names or () if name not in rounded]
    return (
        all_bytes(left)[1:] == all_bytes(right)[1:]
        and all(left.tiles[name].tobytes() == right.tiles[name].tobytes() for name in exact)
        and all(np.allclose(left.tiles[name], right.tiles[name], rtol=1e-9, atol=1e-8) for name in rounded)
    )


@settings(max_examples=80, deadline=None)
@given(EVENTS, EVENTS, EVENTS)
def test_merging_is_associative_and_commutative_and_changes_nothing_that_is_merged(
    a: list[Event], b: list[Event], c: list[Event]
) -> None:
    x, y, z = parts_by_number(a, 0), parts_by_number(b, 100), parts_by_number(c, 200)
    before = [all_bytes(one) for one in (x, y, z)]

    def merged(*some: Parts) -> Parts:
        return merge_parts(LAYOUT, some, NOW)

    left = merged(merged(x, y), z)
    assert alike(left, merged(x, merged(y, z)))
    assert alike(left, merged(z, x, y))
    assert all_bytes(merged(left)) == all_bytes(left)
    assert [all_bytes(one) for one in (x, y, z)] == before


@given(EVENTS)
def test_cached_tiles_of_a_read_stay_as_they_are(events: list[Event]) -> None:
    """Rows come as read-only memory; a read of several windows that share a tail merges copies."""
    selected = select(LAYOUT, columns(events), NOW)
    rows = update_rows(LAYOUT, selected, [None] * len(selected.entities), len(events), NOW)
    parts = decode_rows(LAYOUT, list(rows.values()))
    kept = [parts.tiles.tobytes(), parts.items.tobytes()]
    first, second = (values_at(LAYOUT, parts, len(rows), NOW) for _ in range(2))
    assert first == second
    assert [parts.tiles.tobytes(), parts.items.tobytes()] == kept
    if rows:
        assert not parts.tiles.flags.writeable
    for merge, records in ((merge_tiles, parts.tiles), (merge_items, parts.items)):
        copy = records.copy()
        merge(LAYOUT, np.zeros(len(records), np.int64), records)
        assert records.tobytes() == copy.tobytes()


def one_value(one: Aggregation, column: str, values: list[Any]) -> Any:
    """The value of an aggregation over the values, each in a minute of its own."""
    group = FeatureGroup("one", 1, "events", ("who",), (one,), "team")
    layout = Layout(group, TYPES)
    size = len(values)
    given_column = pa.array(values) if isinstance(values[0], str) else np.array(values)
    events = EventColumns(
        np.arange(size), np.arange(size),
        {"who": np.ones(size, np.int64), column: given_column, "occurred_at": NOW - 1 - np.arange(size) * 60_000 % 3_000_000},
        {},
    )  # fmt: skip
    selected = select(layout, events, NOW)
    rows = update_rows(layout, selected, [None] * len(selected.entities), size, NOW)
    (values_of_feature,) = values_at(layout, decode_rows(layout, list(rows.values()) or [None]), 1, NOW).values()
    return values_of_feature[0]


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize(
    ("column", "values"),
    [
        ("price", [1e9, 1e9 + 1, 1e9 + 2]),
        ("price", [1e15, 1e15 + 2, 1e15 + 4]),
        ("amount", [MOST_SQUARED, -MOST_SQUARED] * 500),
        ("amount", [MOST_SQUARED, MOST_SQUARED - 1]),
    ],
)
def test_the_variance_of_large_numbers_is_exact(column: str, values: list[Any], exact: bool) -> None:
    found = one_value(Aggregation("variance", column, ("1h",), exact=exact), column, values)
    assert found == pytest.approx(float(statistics.pvariance(values)), rel=1e-9)


def test_values_that_are_no_finite_numbers_do_not_count() -> None:
    values = [np.nan, 1.0, np.inf, 3.0, -np.inf]
    for operation, wanted in (
        ("sum", 4.0),
        ("mean", 2.0),
        ("min", 1.0),
        ("max", 3.0),
        ("variance", 1.0),
        ("distinct", 2),
    ):
        assert one_value(Aggregation(operation, "price", ("1h",)), "price", values) == wanted
    assert one_value(Aggregation("sum", "price", ("1h",), default=-1.0), "price", [np.nan]) == -1.0


def test_an_event_with_a_number_too_large_for_a_sum_is_refused_with_its_place() -> None:
    events = columns([(1, 1, 1.0, "a", 0), (1, MOST_SQUARED + 1, 1.0, "a", 0), (1, 2, 1e300, "a", 0)])
    selected = select(LAYOUT, events, NOW)
    assert selected.oversized.tolist() == [1, 2]
    assert selected.events.positions.tolist() == [0]
    assert LAYOUT.limits["amount"] == MOST_SQUARED


def test_a_sum_that_leaves_64_bits_is_an_error_and_no_wrapped_number() -> None:
    layout = Layout(FeatureGroup("one", 1, "events", ("who",), (Aggregation("sum", "amount", ("1h",)),), "team"), TYPES)
    tiles = np.zeros(3, layout.tile)
    tiles["0.n"], tiles["0.sum"] = 1 << 20, 1 << 62
    with pytest.raises(OverflowError, match="64 bits"):
        merge_tiles(layout, np.zeros(3, np.int64), tiles)
    tiles["0.sum"][0] = -(1 << 62)
    assert merge_tiles(layout, np.zeros(3, np.int64), tiles)[1]["0.sum"].tolist() == [1 << 62]
    assert MOST_SUMMED * (1 << 20) < 1 << 63


@pytest.mark.parametrize("count", [10, 1_023, 1_024, 20_000, 200_000])
def test_the_distinct_count_is_exact_below_1024_and_then_as_close_as_the_sketch_of_datasketches(count: int) -> None:
    values = [f"v{number}" for number in range(count)]
    found = one_value(Aggregation("distinct", "kind", ("1h",)), "kind", values)
    sketch = datasketches.update_theta_sketch(lg_k=10)
    for value in values:
        sketch.update(value)
    if count < 1_024:
        assert found == count
    else:
        assert abs(found - count) <= 3.5 * count / 1_022**0.5  # 3.5 standard errors of a KMV sketch of this size
        assert sketch.get_lower_bound(3) * 0.9 <= found <= sketch.get_upper_bound(3) * 1.1
    assert one_value(Aggregation("distinct", "kind", ("1h",), exact=True), "kind", values) == count


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(1e-3, 1e12) | st.floats(-1e12, -1e-3), min_size=1, max_size=200), st.booleans())
def test_quantiles_are_within_one_percent_of_those_of_numpy(values: list[float], exact: bool) -> None:
    parts = (0.0, 0.25, 0.5, 0.9, 1.0)
    found = one_value(Aggregation("quantiles", "price", ("1h",), quantiles=parts, exact=exact), "price", values)
    assert found == pytest.approx(np.quantile(values, parts, method="lower").tolist(), rel=0.0101)


def test_long_text_and_large_whole_numbers_are_told_apart() -> None:
    same = "x" * 64
    assert one_value(Aggregation("distinct", "kind", ("1h",), exact=True), "kind", [same + "a", same + "b"]) == 2
    by = Aggregation("count_by", "kind", ("1h",), values=(same + "a",), exact=True)
    assert one_value(by, "kind", [same + "a", same + "b"]) == [1, 1]
    large = (1 << 62) + 1
    assert one_value(Aggregation("last_k", "amount", ("1h",), k=1), "amount", [large]) == [large]
    assert one_value(Aggregation("last_k", "kind", ("1h",), k=2), "kind", ["", ""]) == ["", ""]
