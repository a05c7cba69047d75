"""What the fuzzer of inputs found: one small launch for each class of mistakes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from support.factories import any_campaign, any_customers
from support.launching import any_place

from runners.cli.main import main

PLAIN: dict[str, Any] = {"engine": {"channels": {"email": {"address": "email"}}}, "lists": {}}


def test_an_offer_that_somebody_is_given_ends_a_launch_without_a_warning(tmp_path: Path) -> None:
    offers = [{"id": "one", "kind": "fixed", "code": "ONE"}]
    campaign = any_campaign(experiment=None, offers=offers, content={"template": "plain", "offers": ["one"]})
    place = any_place(tmp_path, campaign, **PLAIN)
    assert place.launch() == 0
    assert "offer_reaches_nobody" not in (place.output / "summary.json").read_text()


def with_column(folder: Path, column: pa.Array) -> None:
    """The customers with another column `spend`."""
    table = any_customers(len(column)).drop_columns(["spend"]).append_column("spend", column)
    pq.write_table(table, folder / "customers.parquet")


def test_half_floats_are_numbers_like_others(tmp_path: Path) -> None:
    place = any_place(tmp_path, any_campaign(experiment=None), **PLAIN)
    with_column(tmp_path, pa.array([1.5, None, 2.0], pa.float16()))
    assert place.launch() == 0
    assert {event["customer_id"] for event in place.events().values()} == {"c-0", "c-2"}


@pytest.mark.parametrize(
    "kind", [pa.list_(pa.float16()), pa.decimal256(50, 0), pa.list_(pa.decimal256(50, 0))], ids=str
)
def test_a_type_over_which_no_condition_can_be_evaluated_is_refused_by_its_column(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: pa.DataType
) -> None:
    place = any_place(tmp_path, any_campaign(experiment=None, audience="true"), **PLAIN)
    with_column(tmp_path, pa.nulls(3, kind))
    assert main(["launch", *place.argv()]) == 2
    text = capsys.readouterr().err
    assert "customers.parquet  spend = " in text
    assert "no condition can be evaluated over this type" in text


@pytest.mark.parametrize("named", [False, True])
def test_an_audience_of_more_levels_than_a_plan_can_carry_is_refused(
    tmp_path: Path, named: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    def deep(levels: int, inner: Any) -> Any:
        return inner if levels == 0 else {"not": deep(levels - 1, inner)}

    audiences = {f"a{n}": deep(20, {"audience": f"a{n + 1}"}) for n in range(2)} | {"a2": deep(20, "spend > 1")}
    audience = {"audience": "a0"} if named else deep(120, "spend > 1")
    place = any_place(tmp_path, any_campaign(audience=audience), customers=3)
    for name, tree in audiences.items():
        (tmp_path / f"campaigns/audiences/{name}.yaml").write_text(yaml.safe_dump({"audience": tree}))
    assert place.launch() == 2
    assert "has more than 50 levels" in capsys.readouterr().err


def test_a_time_zone_column_that_is_no_text_is_refused_by_its_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    engine = {**PLAIN["engine"], "columns": {"time_zone": "spend"}}
    place = any_place(tmp_path, any_campaign(experiment=None), engine=engine, lists={})
    with_column(tmp_path, pa.array([[("UTC", 1)], None], pa.map_(pa.string(), pa.int64())))
    assert place.launch() == 2
    assert (
        "columns.time_zone = spend\n    a time zone is a text such as America/Chicago, this is map"
        in capsys.readouterr().err
    )
