"""The values of one entity in plain Python equal those of numpy, bit for bit."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.features.declarations import Aggregation, FeatureGroup, Where
from schemas.features.stamps import Stamp
from transforms.features.entity_values import EntityPlan
from transforms.features.event_columns import EventColumns
from transforms.features.layout import Layout
from transforms.features.rows import decode_rows, empty_row, update_rows
from transforms.features.tiles import select
from transforms.features.values import known_values, newest_times, values_at

NOW = 1_800_000_000_000
TYPES = {"household": "string", "amount": "long", "price": "double", "kind": "string", "occurred_at": "long"}


def every(operation: str, column: str = "", **more: Any) -> Aggregation:
    """The aggregation over three windows."""
    return Aggregation(operation, column, ("1m", "1h", "7d"), **more)


def group(exact: bool = False) -> FeatureGroup:
    """Every operation over every type of column."""
    numeric = [every(operation, column, exact=exact) for column in ("amount", "price") for operation in ("sum", "mean", "variance", "min", "max")]  # fmt: skip
    return FeatureGroup(
        "spend", 1, "order_line", ("household",),
        (
            *numeric,
            every("count", exact=exact), every("count", name="dear", where=(Where("amount", ">", 50),), exact=exact),
            every("first", "kind", exact=exact), every("last", "kind", exact=exact), every("last", "price", exact=exact),
            every("first", "amount", exact=exact, where=(Where("amount", ">", 0),)),
            every("count_by", "kind", values=("a", "b"), exact=exact), every("last_k", "kind", k=3, exact=exact),
            every("distinct", "kind", exact=exact), every("quantiles", "amount", quantiles=(0.0, 0.5), exact=exact),
            every("decayed_sum", "amount", half_life="1h", exact=exact), every("ratio", name="share", of=("dear", "count")),
        ),
        "team",
    )  # fmt: skip


EVENTS = st.lists(
    st.tuples(
        st.sampled_from(["h1", "h2"]),
        st.integers(-100, 100),
        st.floats(-1e6, 1e6),
        st.sampled_from(["a", "b", "ä", "", None]),
        st.integers(0, 8 * 86_400_000) | st.integers(0, 90_000),  # ms before NOW
    ),
    max_size=60,
)
LAYOUTS = [Layout(group(), TYPES), Layout(group(exact=True), TYPES)]


def rows_of(layout: Layout, events: list[Any], first: int = 0) -> dict[str, bytes]:
    """The row of each household, of events at positions from `first` on."""
    columns = {
        "household": pa.array([one[0] for one in events], pa.string()),
        "amount": np.array([one[1] for one in events], np.int64),
        "price": np.array([one[2] for one in events], np.float64),
        "kind": pa.array([one[3] for one in events], pa.string()),
        "occurred_at": np.array([NOW - 1 - one[4] for one in events], np.int64),
    }
    positions = np.arange(first, first + len(events))
    chosen = select(layout, EventColumns(positions, positions * 7919 % 1009, columns, {}), NOW)
    return update_rows(layout, chosen, [None] * len(chosen.entities), first + len(events), NOW)


def bits(values: list[Any]) -> list[Any]:
    """Values that are equal only if the floats have the same bits."""
    return [struct.pack("<d", value) if isinstance(value, float) else value for value in values]


@pytest.mark.parametrize("layout", LAYOUTS, ids=["tiles", "raw"])
@given(events=EVENTS, more=EVENTS, later=st.integers(0, 8 * 86_400_000) | st.integers(0, 5))
def test_one_entity_has_the_values_that_numpy_gives(
    layout: Layout, events: list[Any], more: list[Any], later: int
) -> None:
    """From the rows of two partitions, at any time."""
    parts = [rows_of(layout, some, first) if some else {} for some, first in ((events, 0), (more, 1_000))]
    names = [name for name, _, _ in layout.group.features]
    plan = EntityPlan(layout, names)
    for household in ("h1", "h2", "nobody"):
        rows = [rows[household] for rows in parts if household in rows]
        both = decode_rows(layout, rows)
        both = both._replace(tile_entities=both.tile_entities * 0, item_entities=both.item_entities * 0, raw_entities=both.raw_entities * 0)  # fmt: skip
        expected = known_values(layout, both, 1, NOW + later, names)
        found = plan.known(rows, NOW + later)
        assert bits(found.values) == bits([value for (value,) in expected.values()])
        assert [type(value) for value in found.values] == [type(value) for (value,) in expected.values()]
        assert [found.newest] == newest_times(both, 1)


@given(
    events=EVENTS, names=st.permutations([name for name, _, _ in LAYOUTS[0].group.features]), count=st.integers(1, 9)
)
def test_some_features_in_any_order_have_the_values_that_all_have(
    events: list[Any], names: list[str], count: int
) -> None:
    layout, names = LAYOUTS[0], names[:count]
    rows = [*rows_of(layout, [("h1", *one[1:]) for one in events]).values()] if events else []
    everything = values_at(layout, decode_rows(layout, rows), 1, NOW)
    assert bits(EntityPlan(layout, names).known(rows, NOW).values) == bits([everything[name][0] for name in names])
    assert list(values_at(layout, decode_rows(layout, rows), 1, NOW, names)) == names


def test_an_empty_row_knows_nothing() -> None:
    layout = LAYOUTS[0]
    names = [name for name, _, _ in layout.group.features]
    assert EntityPlan(layout, names).known([empty_row(layout, Stamp(3, 0))], NOW) == ([None] * len(names), None)


@pytest.mark.parametrize("cut", [0, 11, 19, 21, 300])
def test_a_damaged_row_is_refused_as_by_numpy(cut: int) -> None:
    layout = LAYOUTS[0]
    row = rows_of(layout, [("h1", 1, 1.0, "a", 5)])["h1"]
    for read in (
        lambda: EntityPlan(layout, ["count_1m"]).known([row[:cut]], NOW),
        lambda: decode_rows(layout, [row[:cut]]),
    ):
        with pytest.raises(ValueError, match="row of spend@1"):
            read()


def test_a_default_and_a_known_value_are_told_apart() -> None:
    counted = Aggregation("count", windows=("1h",), default=0)
    layout = Layout(FeatureGroup("g", 1, "e", ("household",), (counted, Aggregation("ratio", windows=("1h",), name="r", of=("count", "count"), default=-1.0)), "team"), TYPES)  # fmt: skip
    nothing = decode_rows(layout, [None])
    assert known_values(layout, nothing, 1, NOW) == {"count_1h": [None], "r_1h": [None]}
    assert values_at(layout, nothing, 1, NOW) == {"count_1h": [0], "r_1h": [-1.0]}


@pytest.mark.parametrize(
    "other",
    [
        Aggregation("count", windows=("7d",)),
        Aggregation("ratio", windows=("1h",), name="count", of=("share", "share")),
        Aggregation("count", windows=("1h",), name="other"),
    ],
)
def test_a_ratio_needs_two_others_that_have_its_windows(other: Aggregation) -> None:
    share = Aggregation("ratio", windows=("1h",), name="share", of=("count", "count"))
    wrong = FeatureGroup("g", 1, "e", ("household",), (other, share), "team").mistakes(TYPES)
    assert any(place.endswith(".of") and "no ratios" in fix for place, _, fix in wrong)
