"""Rows of features: however the events are cut, repeated and merged, a row is a recount of them."""

from __future__ import annotations

import math
from collections import Counter
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.features.declarations import Aggregation, FeatureGroup, Where
from schemas.features.stamps import Stamp, stamp_of
from schemas.features.windows import HOPS, hop_of
from transforms.features.event_columns import EventColumns
from transforms.features.layout import Layout
from transforms.features.rows import decode_rows, empty_row, update_rows
from transforms.features.tiles import bin_middle, bin_of, select
from transforms.features.values import values_at

NOW = 1_800_000_000_000
TYPES = {"household": "string", "amount": "long", "price": "double", "kind": "string", "occurred_at": "long"}
_SPANS = ("1m", "1h", "7d")


def every(operation: str, column: str = "", **more: Any) -> Aggregation:
    """The aggregation over three windows."""
    return Aggregation(operation, column, _SPANS, **more)


AGGREGATIONS = (
    every("count"),
    every("count", name="dear", where=(Where("amount", ">", 50),)),
    every("sum", "amount"),
    every("mean", "amount"),
    every("variance", "amount"),
    every("min", "amount"),
    every("max", "amount"),
    every("first", "kind"),
    every("last", "amount"),
    every("last_k", "kind", k=3),
    every("count_by", "kind", values=("a", "b")),
    every("distinct", "kind"),
    every("quantiles", "amount", quantiles=(0.0, 0.5, 1.0)),
    every("decayed_sum", "amount", half_life="1h"),
    every("ratio", name="share", of=("dear", "count")),
)
SAWTOOTH = FeatureGroup("spend", 1, "order_line", ("household",), AGGREGATIONS, "team")
EXACT = FeatureGroup(
    "exact_spend",
    1,
    "order_line",
    ("household",),
    tuple(Aggregation(**{**one.__dict__, "exact": one.operation != "ratio"}) for one in AGGREGATIONS),
    "team",
)
EVENTS = st.lists(
    st.tuples(
        st.sampled_from(["h1", "h2", "h3"]),
        st.integers(-100, 100),
        st.sampled_from(["a", "b", "c", None]),
        st.integers(0, 8 * 86_400_000) | st.integers(0, 90_000),  # ms before NOW
    ),
    max_size=30,
)
Event = tuple[str, int, str | None, int]


def columns(events: list[Event], first: int = 0) -> EventColumns:
    """The events, at positions from `first` on."""
    return EventColumns(
        np.arange(first, first + len(events)),
        np.arange(first, first + len(events)) * 7919 % 1009,
        {
            "household": pa.array([one[0] for one in events], pa.string()),
            "amount": np.array([one[1] for one in events], np.int64),
            "kind": pa.array([one[2] for one in events], pa.string()),
            "occurred_at": np.array([NOW - 1 - one[3] for one in events], np.int64),
        },
        {},
    )


def folded(layout: Layout, store: dict[str, bytes], events: EventColumns) -> None:
    """Folds the events into the rows."""
    if len(events):
        chosen = select(layout, events, NOW)
        rows = [store.get(name) for name in chosen.entities]
        store.update(update_rows(layout, chosen, rows, int(events.positions[-1]) + 1, NOW))


def recount(group: FeatureGroup, events: list[Event], household: str) -> dict[str, Any]:
    """The features of a household by plain Python."""
    result: dict[str, Any] = {}
    ties = {number: number * 7919 % 1009 for number in range(len(events))}
    for name, one, window in group.features:
        hop = HOPS[hop_of(window)]
        start = NOW - window if one.exact else (NOW - window) // hop * hop
        own = [
            (NOW - 1 - event[3], ties[number], event) for number, event in enumerate(events) if event[0] == household
        ]
        own = sorted(row for row in own if row[0] >= start)
        own = [row for row in own if not one.where or row[2][1] > 50]
        values = [row[2][1] if one.column == "amount" else row[2][2] for row in own]
        timed = [(row[0], value) for row, value in zip(own, values, strict=True)]
        if one.column:
            values = [value for value in values if value is not None]
            timed = [row for row in timed if row[1] is not None]
        result[name] = plain(one, values, timed)
    for name, one, _ in group.features:
        if one.operation == "ratio":
            text = name.rsplit("_", 1)[1]
            upper, lower = (result[f"{title}_{text}"] for title in one.of)
            result[name] = (upper or 0) / lower if lower else None
    return result


def plain(one: Aggregation, values: list[Any], timed: list[tuple[int, Any]]) -> Any:
    """The value of an aggregation over the values, which are in order of time."""
    if one.operation == "ratio" or not values:
        return None
    count = len(values)
    by_operation = {
        "count": lambda: count,
        "sum": lambda: sum(values),
        "mean": lambda: sum(values) / count,
        "variance": lambda: (count * sum(v * v for v in values) - sum(values) ** 2) / count**2,
        "min": lambda: min(values),
        "max": lambda: max(values),
        "first": lambda: values[0],
        "last": lambda: values[-1],
        "last_k": lambda: values[::-1][: one.k],
        "distinct": lambda: len(set(values)),
        "count_by": lambda: [Counter(values)[v] for v in one.values] + [sum(v not in one.values for v in values)],
        "quantiles": lambda: [
            float(bin_middle(bin_of(np.array([sorted(values)[math.floor(q * (count - 1))]])))[0]) for q in one.quantiles
        ],
        "decayed_sum": lambda: sum(value * 2 ** ((time - NOW) / 3_600_000) for time, value in timed),
    }
    return by_operation[one.operation]()


def alike(left: Any, right: Any) -> bool:
    """Equal; floating point within 1e-9."""
    if isinstance(left, float) or isinstance(right, float):
        return left is not None and right is not None and math.isclose(left, right, rel_tol=1e-9, abs_tol=1e-9)
    return bool(left == right)


@pytest.mark.parametrize("group", [SAWTOOTH, EXACT], ids=["sawtooth", "exact"])
@settings(max_examples=60, deadline=None)
@given(EVENTS, st.lists(st.integers(0, 30), max_size=4), st.randoms(use_true_random=False))
def test_features_equal_a_recount_however_the_events_are_cut_and_repeated(
    group: FeatureGroup, events: list[Event], cuts: list[int], random: Any
) -> None:
    layout = Layout(group, TYPES)
    store: dict[str, bytes] = {}
    edges = sorted({0, *(cut for cut in cuts if cut < len(events)), len(events)})
    for start, end in pairwise(edges):
        again = random.randint(0, start)  # a poll that begins before what is folded in already
        folded(layout, store, columns(events[again:end], again))
    names = sorted(store)
    values = values_at(layout, decode_rows(layout, [store[name] for name in names]), len(names), NOW)
    assert names == sorted({event[0] for event in events})
    for place, household in enumerate(names):
        expected = recount(group, events, household)
        for name, wanted in expected.items():
            assert alike(values[name][place], wanted), (name, values[name][place], wanted)


@settings(max_examples=40, deadline=None)
@given(EVENTS, st.integers(0, 30))
def test_rows_are_the_same_bytes_however_the_events_are_cut(events: list[Event], cut: int) -> None:
    layout = Layout(SAWTOOTH, TYPES)
    whole: dict[str, bytes] = {}
    folded(layout, whole, columns(events))
    parts: dict[str, bytes] = {}
    folded(layout, parts, columns(events[:cut]))
    folded(layout, parts, columns(events[cut:], min(cut, len(events))))
    for name, row in whole.items():
        ours, theirs = (decode_rows(layout, [one]) for one in (row, parts[name]))
        for field in layout.tile.names or ():
            if not (field.endswith(".sum") and layout.tile[field].kind == "f"):
                assert ours.tiles[field].tobytes() == theirs.tiles[field].tobytes(), field
        assert ours.items.tobytes() == theirs.items.tobytes()
        assert ours.raw.tobytes() == theirs.raw.tobytes()


def test_an_empty_row_of_a_later_epoch_holds_nothing() -> None:
    layout = Layout(SAWTOOTH, TYPES)
    row = empty_row(layout, Stamp(2, 7))
    assert stamp_of(row) == Stamp(2, 7)
    assert values_at(layout, decode_rows(layout, [row]), 1, NOW)["count_7d"] == [None]
