"""What the fuzzer of inputs found: one small launch for each class of mistakes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from factories import any_campaign, any_customers
from launching import any_place

from runners.main import main

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
