"""Reads with quality: fresh, stale, default and error, one entity or many, in one round trip."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from schemas.features.declarations import Aggregation, FeatureGroup
from schemas.features.stamps import Stamp
from schemas.problems import InputError
from serving.features.reader import FeatureReader, GroupValues, Quality, Wanted
from stores.events.fuse import Fuse, blow_fuse, clear_fuse, has_blown
from stores.features.lmdb_store import LmdbStore
from transforms.features.layout import Layout, tile_code
from transforms.features.rows import empty_row, encode_rows
from transforms.features.tiles import empty_parts

NOW, HOUR, MINUTE = 1_800_000_000_000, 3_600_000, 60_000
TYPES = {"household": "string", "amount": "long", "occurred_at": "long"}
SPEND = FeatureGroup(
    "spend",
    1,
    "order_line",
    ("household",),
    (Aggregation("count", windows=("1h", "7d"), default=0), Aggregation("max", "amount", ("7d",))),
    "team",
    max_age="6h",
)
VISITS = FeatureGroup("visits", 2, "scan", ("store",), (Aggregation("count", windows=("7d",), default=-1),), "team")
LAYOUTS = {"spend@1": Layout(SPEND, TYPES), "visits@1": Layout(VISITS, TYPES), "visits@2": Layout(VISITS, TYPES)}
FRESH, STALE, DEFAULT, ERROR = Quality


def row(group: str, hours: Sequence[int]) -> bytes:
    """A row with an event of 7 so many hours before now each; one of the last minute is in a tile of a minute too."""
    layout = LAYOUTS[group]
    codes = [
        int(tile_code(np.array([NOW - max(hour * HOUR, MINUTE)]), hop)[0])
        for hop in (3, 1)
        for hour in sorted(hours, reverse=True)
        if hop == 3 or not hour
    ]
    tiles = np.ones(len(codes), layout.tile)
    tiles["tile"] = codes
    if "1.max" in (layout.tile.names or ()):
        tiles["1.max"] = 7
    parts = empty_parts(layout)._replace(tile_entities=np.zeros(len(codes), np.int64), tiles=tiles)
    return encode_rows(layout, parts, [Stamp(0, 1)])[0]


class Counting(LmdbStore):
    """Counts the round trips."""

    trips = 0

    def read(self, wanted: Sequence[tuple[str, str]]) -> list[list[bytes]]:
        self.trips += 1
        return super().read(wanted)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Counting]:
    opened = Counting(tmp_path)
    opened.write(
        "spend@1", 0, {"now": row("spend@1", [0, 5]), "old": row("spend@1", [30]), "both": row("spend@1", [2])}
    )
    opened.write("spend@1", 1, {"both": row("spend@1", [1, 3]), "erased": empty_row(LAYOUTS["spend@1"], Stamp(1, 0))})
    opened.write("visits@2", 0, {"now": row("visits@2", [1])})
    yield opened
    opened.close()


def read(store: Counting, group: str, features: Sequence[str], *entities: str) -> GroupValues:
    (answer,) = FeatureReader(store, LAYOUTS, lambda: NOW).read([Wanted(group, features, entities)])
    return answer


def test_values_ages_and_qualities_stand_by_feature_and_entity(store: Counting) -> None:
    answer = read(store, "spend@1", (), "now", "old", "nobody", "both", "erased")
    assert answer.features == ["count_1h", "count_7d", "amount_max_7d"]
    assert answer.values == [[1, 0, 0, 0, 0], [2, 1, 0, 3, 0], [7, 7, None, 7, None]]
    assert answer.qualities == [
        [FRESH, DEFAULT, DEFAULT, DEFAULT, DEFAULT],
        [FRESH, STALE, DEFAULT, FRESH, DEFAULT],
        [FRESH, STALE, DEFAULT, FRESH, DEFAULT],
    ]
    assert answer.ages_ms == [MINUTE, 30 * HOUR, None, HOUR, None]
    assert answer.error == ""


def test_what_is_computed_from_events_of_a_suspect_type_is_stale(store: Counting, tmp_path: Path) -> None:
    source, other = (LAYOUTS[group].group.source for group in ("spend@1", "visits@2"))
    reader = FeatureReader(store, LAYOUTS, lambda: NOW, partial(has_blown, tmp_path))
    asked = [Wanted("spend@1", ["count_7d"], ["now", "nobody"]), Wanted("visits", [], ["now"])]
    before = reader.read(asked)
    blow_fuse(tmp_path, source, Fuse(NOW, "half of the events are in quarantine"))
    suspect, rest = reader.read(asked)
    assert suspect == before[0]._replace(qualities=[[STALE, DEFAULT]])
    assert (rest == before[1]) is (source != other)
    clear_fuse(tmp_path, source)
    assert reader.read(asked) == before


def test_groups_of_other_entities_are_read_in_the_same_round_trip(store: Counting) -> None:
    reader = FeatureReader(store, LAYOUTS, lambda: NOW)
    asked = [Wanted("spend@1", ["count_7d"], ["old", "now"]), Wanted("visits", [], ["now"]), Wanted("spend@1", [], [])]
    first, second, third = reader.read(asked)
    assert store.trips == 1
    assert (first.values, second.values) == ([[1, 2]], [[1]])
    assert second.group == "visits@2"  # a name alone is its highest version
    assert (third.values, third.ages_ms) == ([[], [], []], [])


def test_many_entities_have_the_values_that_each_has_alone(store: Counting) -> None:
    entities = ["now", "old", "nobody", "both", "erased"] * 20
    many = read(store, "spend@1", ["amount_max_7d", "count_1h"], *entities)
    for place, entity in enumerate(entities):
        alone = read(store, "spend@1", ["amount_max_7d", "count_1h"], entity)
        assert [column[place] for column in many.values] == [value for (value,) in alone.values]
        assert [column[place] for column in many.qualities] == [quality for (quality,) in alone.qualities]
        assert [many.ages_ms[place]] == alone.ages_ms


@pytest.mark.parametrize("count", [2, 100])
def test_a_damaged_row_is_an_error_of_its_entity_alone(store: Counting, count: int) -> None:
    store.write("spend@1", 7, {"now": row("spend@1", [1])[:-3]})
    answer = read(store, "spend@1", ["count_7d", "count_1h"], "now", *["old"] * count)
    assert answer.values == [[None, *[1] * count], [None, *[0] * count]]
    assert answer.qualities == [[ERROR, *[STALE] * count], [ERROR, *[DEFAULT] * count]]
    assert answer.ages_ms == [None, *[30 * HOUR] * count]
    assert "row of spend@1 is damaged" in answer.error


def test_a_store_that_does_not_answer_is_an_error_and_never_a_default(tmp_path: Path) -> None:
    store = Counting(tmp_path / "not there", read_only=True)
    first, second = FeatureReader(store, LAYOUTS, lambda: NOW).read(
        [Wanted("spend@1", ["count_1h"], ["a", "b"]), Wanted("visits@2", [], ["c"])]
    )
    assert (first.values, first.qualities, first.ages_ms) == ([[None, None]], [[ERROR, ERROR]], [None, None])
    assert (second.values, second.qualities) == ([[None]], [[ERROR]])
    assert "there is no feature store here" in first.error


def test_unknown_groups_and_features_are_told_all_at_once(store: Counting) -> None:
    reader = FeatureReader(store, LAYOUTS, lambda: NOW)
    with pytest.raises(InputError) as raised:
        reader.read(
            [Wanted("spent", [], ["a"]), Wanted("spend@1", ["count_2h", "x"], ["a"]), Wanted("visits@1", [], ["a"])]
        )
    assert {problem.value for problem in raised.value.problems} == {"spend@1:count_2h", "spend@1:x", "spent"}
    assert "count_1h, count_7d, amount_max_7d" in str(raised.value)
    assert store.trips == 0


def test_a_feature_that_is_named_twice_is_read_once(store: Counting) -> None:
    assert read(store, "spend@1", ["count_7d", "count_7d"], "old").features == ["count_7d"]


def test_a_row_of_the_future_is_fresh(store: Counting) -> None:
    (answer,) = FeatureReader(store, LAYOUTS, lambda: NOW - 2 * HOUR).read([Wanted("spend@1", ["count_7d"], ["now"])])
    assert (answer.ages_ms, answer.values) == ([0], [[1]])


def test_callers_that_always_ask_for_something_else_do_not_fill_the_memory(
    store: Counting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serving.features.reader._MOST_PLANS", 2)
    reader = FeatureReader(store, LAYOUTS, lambda: NOW)
    for names in (["count_1h"], ["count_7d"], ["count_1h", "count_7d"], ["count_7d", "count_1h"]):
        assert reader.read([Wanted("spend@1", names, ["now"])])[0].features == names
        assert len(reader._plans) <= 2


def test_the_error_of_a_store_is_its_own(tmp_path: Path) -> None:
    """A bug is not an answer: only a JobError becomes a quality."""

    class Broken(Counting):
        def read(self, wanted: Sequence[tuple[str, str]]) -> list[list[bytes]]:
            raise KeyError(wanted[0])

    with pytest.raises(KeyError):
        read(Broken(tmp_path), "spend@1", [], "a")
