"""A chained group: features over the complete tiles of another group."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.features.checks import chain_mistakes
from schemas.features.declarations import Aggregation, FeatureGroup
from schemas.features.windows import DAY, HOUR
from transforms.features.chained import chained_events, chained_values
from transforms.features.event_columns import EventColumns
from transforms.features.layout import Layout
from transforms.features.point_in_time import Rows, values_as_of
from transforms.features.rows import decode_rows, update_rows
from transforms.features.tiles import select

NOW = 1_800_000_000_000
TYPES = {"store": "string", "product": "string", "amount": "long", "kind": "string", "occurred_at": "long"}
SCANS = FeatureGroup(
    "scans", 1, "item_scan", ("store", "product"),
    (Aggregation("count", "", ("7d",)), Aggregation("sum", "amount", ("7d",)), Aggregation("last", "kind", ("7d",))), "team",
)  # fmt: skip
PEAKS = FeatureGroup(
    "peaks", 1, "scans@1", ("store", "product"),
    (Aggregation("max", "count", ("7d", "1d")), Aggregation("mean", "amount_sum", ("7d",)), Aggregation("distinct", "kind_last", ("7d",))),
    "team", every="1h",
)  # fmt: skip
CHAIN_TYPES = SCANS.tile_types(TYPES)
Event = tuple[str, int, str | None, int]
EVENTS = st.lists(
    st.tuples(
        st.sampled_from(["a", "b"]), st.integers(-5, 5), st.sampled_from(["x", "y", None]),
        st.integers(0, 8 * DAY) | st.integers(0, 3 * HOUR),
    ),
    max_size=40,
)  # fmt: skip


def columns(events: list[Event]) -> EventColumns:
    """Events of one store at these times before NOW."""
    return EventColumns(
        np.arange(len(events)),
        np.arange(len(events)),
        {
            "store": pa.array(["s"] * len(events), pa.string()),
            "product": pa.array([one[0] for one in events], pa.string()),
            "amount": np.array([one[1] for one in events], np.int64),
            "kind": pa.array([one[2] for one in events], pa.string()),
            "occurred_at": np.array([NOW - one[3] for one in events], np.int64),
        },
        {},
    )


def plain(events: list[Event], product: str, instant: int) -> dict[str, Any]:
    """The features of PEAKS by plain Python: each complete hour, then over the hours."""
    hours: dict[int, list[tuple[int, int, Event]]] = {}
    for place, event in enumerate(events):
        hour = (NOW - event[3]) // HOUR * HOUR
        if event[0] == product and hour + HOUR <= instant:
            hours.setdefault(hour, []).append((NOW - event[3], place, event))
    found: dict[str, Any] = {}
    for text, window in (("7d", 7 * DAY), ("1d", DAY)):
        own = [sorted(hours[hour]) for hour in sorted(hours) if hour >= (instant - window) // HOUR * HOUR]
        found[f"count_max_{text}"] = max(map(len, own), default=None)
        if text == "7d":
            sums = [sum(event[1] for _, _, event in hour) for hour in own]
            found["amount_sum_mean_7d"] = sum(sums) / len(sums) if sums else None
            lasts = [[event[2] for _, _, event in hour if event[2]][-1:] for hour in own]
            found["kind_last_distinct_7d"] = len({one[0] for one in lasts if one}) or None
    return found


@settings(max_examples=60, deadline=None)
@given(EVENTS, st.integers(-HOUR, 2 * DAY) | st.just(NOW % HOUR))
def test_a_chained_group_counts_complete_hours_in_reads_and_in_training_sets(events: list[Event], ago: int) -> None:
    source, chain, instant = Layout(SCANS, TYPES), Layout(PEAKS, CHAIN_TYPES), NOW - ago
    before = columns([event for event in events if NOW - event[3] < instant])
    chosen = select(source, before, instant)
    rows = update_rows(source, chosen, [None] * len(chosen.entities), len(events), instant)
    entities = ["s\x1fa", "s\x1fb", "s\x1fnobody"]
    parts = decode_rows(source, [rows.get(name) for name in entities])
    read = chained_values(chain, source, parts, entities, instant)
    tiles = chained_events(source, columns(events), "1h")
    trained = values_as_of(chain, tiles, Rows(entities, np.full(3, instant)))
    for place, product in enumerate(["a", "b", "nobody"]):
        for name, wanted in plain(events, product, instant).items():
            assert read[name][place] == wanted, name
            assert trained[name][place].as_py() == wanted, name


def test_what_is_wrong_with_a_chain_is_said_with_its_place() -> None:
    assert not PEAKS.mistakes(CHAIN_TYPES)
    assert not chain_mistakes(PEAKS, SCANS)
    wrong = FeatureGroup(
        "peaks", 1, "scans@1", ("store",), (Aggregation("max", "amount", ("30d",)),), "team", every="1h"
    )  # fmt: skip
    assert [place for place, _, _ in chain_mistakes(wrong, SCANS)] == ["key", "windows"]
    assert [place for place, _, _ in wrong.mistakes(CHAIN_TYPES)] == ["aggregations[0].column"]
    assert next(place for place, _, _ in chain_mistakes(PEAKS, PEAKS)) == "source"
