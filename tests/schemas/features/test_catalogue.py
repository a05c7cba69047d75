"""Declared groups are loaded from a folder; every mistake of every file is named at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from schemas.events.event_types import load_event_types
from schemas.features.catalogue import load_groups
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
