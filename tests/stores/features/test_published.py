"""A published group is immutable."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from schemas.features.declarations import Aggregation, FeatureGroup, Where
from schemas.problems import InputError, JobError
from stores.features.published import NAME, declaration_hash, publish, published

GROUP = FeatureGroup(
    "spend", 1, "order_line", ("who",), (Aggregation("sum", "amount", ("7d",), where=(Where("kind", "in", ("a", "b")),)),), "team"
)  # fmt: skip


def test_a_group_is_published_once_and_found_again(tmp_path: Path) -> None:
    assert publish(tmp_path / "store", [GROUP]) == ["spend@1"]
    assert publish(tmp_path / "store", [GROUP]) == []
    assert published(tmp_path / "store")["spend@1"]["hash"] == declaration_hash(GROUP)


def test_what_does_not_decide_values_may_change(tmp_path: Path) -> None:
    publish(tmp_path, [GROUP])
    assert publish(tmp_path, [replace(GROUP, owner="other", description="more", consumers=("a",), max_age="2d")]) == []


def test_another_declaration_of_an_id_is_refused_with_what_differs_and_nothing_is_noted(tmp_path: Path) -> None:
    publish(tmp_path, [GROUP])
    aggregation = replace(GROUP.aggregations[0], windows=("1d",), where=(Where("kind", "in", ("a", "c")),), default=0)
    changed = replace(GROUP, aggregations=(aggregation,), lateness="2d")
    with pytest.raises(InputError) as error:
        publish(tmp_path, [replace(GROUP, version=2), changed])
    assert [(one.field, one.value) for one in error.value.problems] == [
        ("spend@1: aggregations[0].default", "None → 0"),
        ("spend@1: aggregations[0].where[0].value[1]", "b → c"),
        ("spend@1: aggregations[0].windows[0]", "7d → 1d"),
        ("spend@1: lateness", "None → 2d"),
    ]
    assert "version 2" in error.value.problems[0].fix
    assert list(published(tmp_path)) == ["spend@1"]
    assert publish(tmp_path, [replace(changed, version=2)]) == ["spend@2"]


def test_values_of_another_type_are_another_declaration() -> None:
    hashes = {
        declaration_hash(replace(GROUP, aggregations=(replace(GROUP.aggregations[0], default=one),)))
        for one in (None, 0, 0.0, False)
    }
    assert len(hashes) == 4


def test_a_field_with_its_default_changes_no_hash() -> None:
    """So that the engine can add fields without a change of what is published."""
    assert declaration_hash(GROUP) == "ad1b232e7f0348a58ed63680eb9f3ec180498f834cb9d56b085834273a484dc5"


def test_publishing_at_once_loses_nothing(tmp_path: Path) -> None:
    groups = [replace(GROUP, version=number) for number in range(1, 21)]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda group: publish(tmp_path, [group]), groups))
    assert (
        sorted(one for ids in found for one in ids)
        == sorted(group.id for group in groups)
        == sorted(published(tmp_path))
    )


@pytest.mark.parametrize("content", [b"{", b"[]", b'{"spend@1": 1}', b'{"spend@1": {"hash": "x"}}'])
def test_a_damaged_file_is_an_error_and_stays(content: bytes, tmp_path: Path) -> None:
    (tmp_path / NAME).write_bytes(content)
    with pytest.raises(JobError, match="published"):
        publish(tmp_path, [GROUP])
    assert (tmp_path / NAME).read_bytes() == content
