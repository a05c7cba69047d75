"""Declared groups are loaded from a folder; every mistake of every file is named at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from schemas.events.event_types import load_event_types
from schemas.features.catalogue import columns_of, load_catalogue, load_groups
from schemas.features.declarations import FeatureGroup
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


SCANS = 'FeatureGroup("scans", 1, "order_line", ("household_id",), (Aggregation("count", windows=("7d",)),), "me")\n'


def test_chained_groups_and_tables_are_in_the_catalogue_but_not_among_the_stored_groups(tmp_path: Path) -> None:
    (tmp_path / "z.py").write_text(f"{HEAD}SCANS = {SCANS}SAME = SCANS\n")
    (tmp_path / "a.py").write_text(
        f"{HEAD}from schemas.features.tables import TableColumn, TableGroup\n"
        'PEAKS = FeatureGroup("peaks", 1, "scans@1", ("household_id",), (Aggregation("max", "count", ("7d",)),), "me", every="1h")\n'
        'HOME = TableGroup("home", 1, ("household_id",), (TableColumn("city", "string", "?"),), "me")\n'
    )
    catalogue = load_catalogue(tmp_path, TYPES)
    assert list(catalogue) == ["home@1", "peaks@1", "scans@1"]
    assert list(load_groups(tmp_path, TYPES)) == ["scans@1"]
    peaks = catalogue["peaks@1"]
    assert isinstance(peaks, FeatureGroup)
    assert columns_of(peaks, catalogue, TYPES) == {"household_id": "string", "occurred_at": "long", "count": "long"}


def test_mistakes_of_chains_tables_and_types_are_named(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text(
        f"{HEAD}from dataclasses import dataclass\n"
        "from schemas.features.tables import TableColumn, TableGroup\n"
        f"SCANS = {SCANS}"
        'A = FeatureGroup("a", 1, "scans@1", ("household_id",), (Aggregation("max", "count", ("30d",)),), "me", every="1h")\n'
        'B = FeatureGroup("b", 1, "no@1", ("household_id",), (), "me", every="1h")\n'
        'C = TableGroup("c", 1, ("household_id",), (TableColumn("city", "text"), TableColumn("size", "long", "x")), "me")\n'
        'D = FeatureGroup("d", "1", "order_line", ["household_id"], (Aggregation("count", windows=("7d")), "sum"), "me")\n'
        "@dataclass\nclass Own:\n    x: int\n"
    )
    (tmp_path / "b.py").write_text("import sys\nsys.exit(0)\n")
    (tmp_path / "c.py").write_text("x = (\n")
    found = mistakes(tmp_path)
    assert sorted(found) == [
        ("a.py: A", "windows", "count_max_30d"),
        ("a.py: B", "source", "no@1"),
        ("a.py: C", "columns[0].kind", "text"),
        ("a.py: C", "columns[1].default", "x"),
        ("a.py: D", "aggregations[0].windows", "7d"),
        ("a.py: D", "aggregations[1]", "sum"),
        ("a.py: D", "key", "['household_id']"),
        ("a.py: D", "version", "1"),
        ("b.py", "", "SystemExit"),
        ("c.py", "", "SyntaxError"),
    ]
