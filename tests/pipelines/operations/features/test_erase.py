"""An entity that was erased stays away: whatever a running pipeline, or one that wakes up late, still writes of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from support.feature_server import row_at

from pipelines.operations.features import erase as erasing
from pipelines.operations.features.erase import ErasedGroup, erase
from schemas.features.declarations import Aggregation, FeatureGroup
from schemas.features.stamps import Stamp, stamp_of
from schemas.problems import InputError, JobError
from stores.features.lmdb_store import LmdbStore
from transforms.features.event_columns import EventColumns
from transforms.features.layout import Layout
from transforms.features.rows import decode_rows, empty_row, update_rows
from transforms.features.tiles import select
from transforms.features.values import values_at

NOW = 1_800_000_000_000
TYPES = {"household": "string", "store": "string", "amount": "long", "occurred_at": "long"}
COUNT = (Aggregation("count", windows=("7d",)),)
SPEND = Layout(FeatureGroup("spend", 1, "e", ("household",), COUNT, "team"), TYPES)
VISITS = Layout(FeatureGroup("visits", 1, "e", ("household", "store"), COUNT, "team"), TYPES)
STOCK = Layout(FeatureGroup("stock", 1, "e", ("store",), COUNT, "team"), TYPES)
LAYOUTS = [SPEND, VISITS, STOCK]


def row(layout: Layout, epoch: int, position: int) -> bytes:
    """A row with an event, with a stamp."""
    return empty_row(layout, Stamp(epoch, position))[:12] + row_at(layout, [NOW])[12:]


@pytest.fixture
def uri(tmp_path: Path) -> str:
    return f"lmdb:{tmp_path}"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[LmdbStore]:
    opened = LmdbStore(tmp_path)
    opened.write("spend@1", 0, {"h1": row(SPEND, 0, 5), "h2": row(SPEND, 0, 5)})
    opened.write("spend@1", 3, {"h1": row(SPEND, 2, 9)})
    opened.advance("spend@1", 0, Stamp(0, 5))
    opened.advance("spend@1", 3, Stamp(7, 9))
    opened.write("visits@1", 0, {name: row(VISITS, 0, 1) for name in ("h1\x1fs1", "h1\x1fs2", "h2\x1fs1", "h11\x1fs1")})
    opened.write("stock@1", 0, {"s1": row(STOCK, 0, 1)})
    yield opened
    opened.close()


def test_all_groups_that_keep_the_entity_lose_it_and_what_was_done_is_told(store: LmdbStore, uri: str) -> None:
    done = erase(uri, LAYOUTS, {"household": "h1"})
    assert done.groups == [ErasedGroup("spend@1", 1, 2), ErasedGroup("visits@1", 2, 2)]
    assert done.untouched == ["stock@1"]
    left = {
        key.entity for group in ("spend@1", "visits@1", "stock@1") for key, row in store.scan(group) if len(row) > 20
    }
    assert left == {"h2", "h2\x1fs1", "h11\x1fs1", "s1"}


def test_erasing_again_finds_nothing_more(store: LmdbStore, uri: str) -> None:
    erase(uri, LAYOUTS, {"household": "h1"})
    again = erase(uri, LAYOUTS, {"household": "h1"})
    assert again.groups == [ErasedGroup("spend@1", 0, 0), ErasedGroup("visits@1", 0, 0)]


def test_one_entity_of_several_columns_is_erased_alone(store: LmdbStore, uri: str) -> None:
    done = erase(uri, [VISITS], {"household": "h1", "store": "s2"})
    assert done.groups == [ErasedGroup("visits@1", 1, 1)]
    assert {key.entity for key, row in store.scan("visits@1") if len(row) > 20} == {"h1\x1fs1", "h2\x1fs1", "h11\x1fs1"}


def test_a_zombie_does_not_bring_it_back_and_new_events_are_counted(store: LmdbStore, uri: str) -> None:
    erase(uri, LAYOUTS, {"household": "h1"})
    for partition, epoch in ((0, 0), (3, 2), (3, 7)):  # of the row's epoch, and of the group's
        assert store.write("spend@1", partition, {"h1": row(SPEND, epoch, 1_000_000)}) == 0
    (first, second) = store.read([("spend@1", "h1")])[0]
    assert [stamp_of(first), stamp_of(second)] == [Stamp(1, 5), Stamp(8, 9)]  # events before stay folded in
    assert store.write("spend@1", 0, {"h1": row(SPEND, 1, 6)}) == 1


def test_a_pipeline_that_was_folding_goes_on_with_the_new_events_alone(store: LmdbStore, uri: str) -> None:
    """It has read the row before the erasure, and writes after it."""
    store.write("spend@1", 9, folded([None], 0, 3))
    late = folded(store.rows("spend@1", 9, ["h1"]), 3, 2)
    erase(uri, [SPEND], {"household": "h1"})
    assert store.write("spend@1", 9, late) == 0
    assert store.write("spend@1", 9, folded(store.rows("spend@1", 9, ["h1"]), 5, 4)) == 1
    rows = store.rows("spend@1", 9, ["h1"])
    assert values_at(SPEND, decode_rows(SPEND, rows), 1, NOW + 1) == {"count_7d": [4]}
    assert store.write("spend@1", 9, folded(rows, 5, 4)) == 0  # the same events once more


def folded(rows: list[bytes | None], first: int, count: int) -> dict[str, bytes]:
    """The row of h1 with so many events more, at positions from `first` on."""
    positions = np.arange(first, first + count)
    columns = {"household": pa.array(["h1"] * count), "occurred_at": np.full(count, NOW)}
    selected = select(SPEND, EventColumns(positions, positions, columns, {}), NOW)
    return update_rows(SPEND, selected, rows, first + count, NOW)


def test_a_row_of_a_partition_that_has_noted_no_position_is_erased_too(store: LmdbStore, uri: str) -> None:
    store.write("spend@1", 65_535, {"h1": row(SPEND, 0, 2)})
    assert erase(uri, [SPEND], {"household": "h1"}).groups == [ErasedGroup("spend@1", 1, 3)]


def test_a_column_that_no_group_has_is_told(uri: str) -> None:
    with pytest.raises(InputError, match="household, store"):
        erase(uri, LAYOUTS, {"customer": "c"})


def test_rows_that_get_a_new_epoch_meanwhile_are_erased_as_well(
    store: LmdbStore, uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    epochs = iter([20, 30])

    class Racing(LmdbStore):
        def write(self, group: str, partition: int, rows: Mapping[str, bytes]) -> int:
            if (epoch := next(epochs, None)) is not None:  # a rebuild comes first
                super().write(group, partition, {entity: row(SPEND, epoch, 1) for entity in rows})
            return super().write(group, partition, rows)

    monkeypatch.setattr(erasing, "open_store", lambda _: Racing(Path(uri.removeprefix("lmdb:"))))
    erase(uri, [SPEND], {"household": "h1"})
    assert all(len(row) == 20 for row in store.read([("spend@1", "h1")])[0])


def test_an_epoch_cannot_grow_beyond_its_bits(store: LmdbStore, uri: str) -> None:
    store.write("spend@1", 0, {"h1": row(SPEND, 2**32 - 1, 0)})
    with pytest.raises(JobError, match="last epoch"):
        erase(uri, [SPEND], {"household": "h1"})
