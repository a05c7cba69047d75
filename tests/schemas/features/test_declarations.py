"""What is wrong with a declaration is said with its place, the value and a remedy; all of it at once."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from schemas.features.declarations import Aggregation, FeatureGroup, Where

TYPES = {
    "who": "string",
    "amount": "long",
    "price": "double",
    "kind": "string",
    "new": "boolean",
    "occurred_at": "long",
}
GOOD = FeatureGroup("spend", 1, "order_line", ("who",), (Aggregation("count", "", ("1h",)),), "team")


def one(operation: str, column: str = "amount", **more: Any) -> Aggregation:
    """An aggregation over an hour."""
    return Aggregation(operation, column, more.pop("windows", ("1h",)), **more)


@pytest.mark.parametrize(
    ("aggregation", "place"),
    [
        (one("median"), "operation"),
        (one("sum", "nothing"), "column"),
        (one("sum", "kind"), "column"),
        (one("sum", windows=()), "windows"),
        (one("sum", windows=("1h", "1h")), "windows"),
        (one("sum", windows=("91d",)), "windows"),
        (one("sum", default=0.5), "default"),
        (one("sum", default=True), "default"),
        (one("sum", default=1 << 63), "default"),
        (one("mean", default="0"), "default"),
        (one("mean", default=float("nan")), "default"),
        (one("last", "kind", default=0), "default"),
        (one("last_k", k=2, default=(1, 2, 3)), "default"),
        (one("quantiles", quantiles=(0.5,), default=0.0), "default"),
        (one("quantiles", quantiles=(0.5, 1.1)), "quantiles"),
        (one("count_by", "kind", values=(1,)), "values"),
        (one("count_by", "kind", values=("a", "a")), "values"),
        (one("decayed_sum", half_life="soon"), "half_life"),
        (one("decayed_sum", half_life="172s", windows=("90d",)), "half_life"),
        (one("sum", where=(Where("kind", ">", 5),)), "where.value"),
        (one("sum", where=(Where("kind", "in", "ab"),)), "where.value"),
        (one("sum", where=(Where("kind", "in", ("a", 1)),)), "where.value"),
        (one("sum", where=(Where("nothing", "==", 5),)), "where.column"),
        (one("sum", where=(Where("amount", "like", 5),)), "where.comparison"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_a_mistake_of_an_aggregation_is_named(aggregation: Aggregation, place: str) -> None:
    assert [where for where, _, _ in replace(GOOD, aggregations=(aggregation,)).mistakes(TYPES)] == [
        f"aggregations[0].{place}"
    ]


@pytest.mark.parametrize(
    ("changes", "place"),
    [
        ({"name": "Spend"}, "name"),
        ({"version": 0}, "version"),
        ({"key": ()}, "key"),
        ({"key": ("who", "who")}, "key"),
        ({"key": ("whom",)}, "key"),
        ({"time": "kind"}, "time"),
        ({"lateness": "late"}, "lateness"),
        ({"aggregations": ()}, "aggregations"),
        ({"where": (Where("new", "==", "yes"),)}, "where.value"),
    ],
)
def test_a_mistake_of_a_group_is_named(changes: dict[str, Any], place: str) -> None:
    assert [where for where, _, _ in replace(GOOD, **changes).mistakes(TYPES)] == [place]


@pytest.mark.parametrize(
    ("aggregation", "kind"),
    [
        (one("count", "", default=0), ("long", None)),
        (one("sum", "price", default=0), ("double", None)),
        (one("mean", default=0.0), ("double", None)),
        (one("last", "kind", default=""), ("string", None)),
        (one("max", "new", default=0), ("long", None)),
        (one("last_k", "kind", k=2, default=("a",)), ("string", 2)),
        (one("count_by", "kind", values=("a",), default=(0, 0)), ("long", 2)),
        (one("quantiles", quantiles=(0.5, 0.9), default=(0.0, 0.0)), ("double", 2)),
        (one("decayed_sum", half_life="173s", windows=("90d",)), ("double", None)),
        (one("decayed_sum", half_life="1s", windows=("90d",), exact=True), ("double", None)),
        (
            one("sum", where=(Where("new", "==", True), Where("price", "<", 5), Where("kind", "not_null"))),
            ("long", None),
        ),
    ],
    ids=str,
)
def test_a_right_one_has_no_mistake_and_a_type(aggregation: Aggregation, kind: tuple[str, int | None]) -> None:
    assert not replace(GOOD, aggregations=(aggregation,)).mistakes(TYPES)
    assert aggregation.kind(TYPES) == kind


def test_several_mistakes_come_together() -> None:
    wrong = replace(GOOD, version=0, time="x", aggregations=(one("sum", "y"), one("mode")))
    assert [place for place, _, _ in wrong.mistakes(TYPES)] == [
        "version", "time", "aggregations[0].column", "aggregations[1].operation",
    ]  # fmt: skip
