"""Declared groups are loaded from a folder; every mistake of every file is named at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from schemas.events.event_types import load_event_types
from schemas.features.catalogue import load_groups, source_columns, stored_groups
from schemas.problems import InputError

TYPES = {name: one.columns for name, one in load_event_types().items()}
EXAMPLES = Path(__file__).parents[3] / "examples/features"
HEAD = "from schemas.features.declarations import Aggregation, FeatureGroup\n"


def mistakes(folder: Path) -> list[tuple[str, str, str]]:
    """(file, field, value) of each mistake."""
    with pytest.raises(InputError) as caught:
        load_groups(folder, TYPES)
    assert all(problem.fix for problem in caught.value.problems)
    return [(one.file, one.field, one.value) for one in caught.value.problems]


def test_the_examples_are_sound() -> None:
    assert {"household_spend@1", "item_sales@1"} <= load_groups(EXAMPLES, TYPES).keys()


def test_every_mistake_of_every_file_is_named(tmp_path: Path) -> None:
    count = 'Aggregation("count", windows=("1h",))'
    (tmp_path / "a.py").write_text(
        f'{HEAD}A = FeatureGroup("a", 1, "order_line", ("nobody",), ({count},), "me")\n'
        f'B = FeatureGroup("B!", 0, "no_such_type", ("x",), ({count},), "me")\n'
        f'C = FeatureGroup("c", 1, "order_line", ("household_id",), (Aggregation("sum", "store_id", ("1y",)),), "me")\n'
    )
    (tmp_path / "b.py").write_text("1 / 0\n")
    (tmp_path / "c.py").write_text(
        f'{HEAD}D = FeatureGroup("c", 1, "order_line", ("household_id",), ({count},), "me")\n'
    )
    found = mistakes(tmp_path)
    assert ("a.py: A", "key", "nobody") in found
    assert ("a.py: B", "source", "no_such_type") in found
    assert ("a.py: C", "aggregations[0].windows", "1y") in found
    assert ("a.py: C", "aggregations[0].column", "store_id") in found
    assert ("b.py", "", "ZeroDivisionError") in found
    assert ("c.py: D", "name", "c@1") in found


def test_a_folder_without_declarations_says_so(tmp_path: Path) -> None:
    assert mistakes(tmp_path) == [(str(tmp_path), "", "")]
    (tmp_path / "a.py").write_text("x = 1\n")
    assert mistakes(tmp_path) == [(str(tmp_path), "", "")]


def test_a_chained_group_reads_the_tiles_of_another_of_the_folder(tmp_path: Path) -> None:
    source = 'Aggregation("sum", "sales_cents", ("7d",))'
    (tmp_path / "a.py").write_text(
        f'{HEAD}B = FeatureGroup("b", 1, "a@1", ("household_id",), (Aggregation("max", "sales_cents_sum", ("7d",)),), "me", every="1h")\n'
        f'A = FeatureGroup("a", 1, "order_line", ("household_id",), ({source},), "me")\n'
    )
    groups = load_groups(tmp_path, TYPES)
    assert [*stored_groups(groups)] == ["a@1"]
    assert source_columns(groups["b@1"], TYPES, groups)["sales_cents_sum"] == "long"
    assert source_columns(groups["a@1"], TYPES, groups) == TYPES["order_line"]


def test_mistakes_of_a_chained_group_are_named(tmp_path: Path) -> None:
    count = 'Aggregation("count", windows=("7d",))'
    (tmp_path / "a.py").write_text(
        f'{HEAD}A = FeatureGroup("a", 1, "order_line", ("household_id",), ({count},), "me")\n'
        f'B = FeatureGroup("b", 1, "nothing@1", ("household_id",), ({count},), "me", every="1h")\n'
        f'C = FeatureGroup("c", 1, "a@1", ("household_id",), ({count},), "me", every="1m")\n'
        f'D = FeatureGroup("d", 1, "a@1", ("household_id",), (Aggregation("sum", "nobody", ("7d",)),), "me", every="1h")\n'
    )
    found = mistakes(tmp_path)
    assert ("a.py: B", "source", "nothing@1") in found
    assert ("a.py: C", "every", "1m") in found
    assert ("a.py: D", "aggregations[0].column", "nobody") in found
