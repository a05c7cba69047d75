"""What is said of the declared features."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.operations.features.catalogue import describe_group, list_groups
from schemas.features.stamps import Stamp
from schemas.problems import InputError
from stores.features.lmdb_store import LmdbStore

EXAMPLES = str(Path(__file__).parents[4] / "examples/features")


def test_groups_are_listed_with_owner_source_and_key() -> None:
    listed = {one.id: one for one in list_groups(EXAMPLES)}
    spend = listed["household_spend@1"]
    assert (spend.owner, spend.source, spend.key, spend.features) == ("growth", "order_line", ["household_id"], 12)


def test_a_group_is_described_with_its_windows_defaults_and_positions(tmp_path: Path) -> None:
    store = LmdbStore(tmp_path)
    store.advance("household_spend@1", 3, Stamp(0, 17))
    described = describe_group("household_spend", EXAMPLES, store_uri=f"lmdb:{tmp_path}")
    store.close()
    assert described.positions == {"3": 17}
    assert described.source_owner == "orders"
    features = {one.name: one for one in described.features}
    assert (features["lines_1h"].hop_s, features["lines_1h"].default, features["lines_1h"].window) == (60.0, 0, "1h")
    assert features["sales_cents_max_7d"].hop_s == 3_600.0


def test_an_unknown_group_is_refused_with_the_nearest() -> None:
    with pytest.raises(InputError) as caught:
        describe_group("household_spent@1", EXAMPLES)
    (problem,) = caught.value.problems
    assert "household_spend@1" in problem.fix
