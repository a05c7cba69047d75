"""`campaigns training-set`: made from an event store, checked against it, refused with every mistake."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bench.feature_events import DECLARED, PARTITIONS, TYPE, make_orders
from connectors.open import open_log_writer
from connectors.uri import sink_uri
from runners.cli.main import main


@pytest.fixture
def arguments(tmp_path: Path) -> list[str]:
    """Where an event store with 200 orders of household h0 and others is, and the declared groups."""
    orders = make_orders(200, 10, seed=9)
    writer = open_log_writer(sink_uri(f"file:{tmp_path}/events/{TYPE}"), PARTITIONS)
    for partition in range(PARTITIONS):
        own = [body for body, place in zip(orders.bodies, orders.partitions, strict=True) if place == partition]
        if own:
            writer.append(partition, own, [int(time.time() * 1000)] * len(own), {})
    writer.close()
    labels = {"household_id": ["h1", "h2"], "at": [int(time.time() * 1000) + 1] * 2}
    pq.write_table(pa.table(labels), tmp_path / "labels.parquet")
    return [f"--features={DECLARED}", f"--events=file:{tmp_path}/events"]


def test_a_set_is_made_and_its_values_pass_the_check_until_one_is_changed(
    tmp_path: Path, arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    made = ["--add=household_spend@1:lines_7d", "--as_of=at", f"--output={tmp_path}/set.parquet"]
    assert main(["training-set", "make", f"{tmp_path}/labels.parquet", *arguments, *made]) == 0
    assert "2 rows, 1 features, lineage" in capsys.readouterr().out
    table = pq.read_table(tmp_path / "set.parquet")
    counts = table["household_spend__lines_7d"].to_pylist()
    assert min(counts) > 0
    log = {"entity": table["household_id"], "as_of": table["at"], "feature": ["household_spend@1:lines_7d"] * 2}
    for added, code in ((0, 0), (1, 1)):
        served = pa.table({**log, "value": [json.dumps(one + added) for one in counts]})
        pq.write_table(served, tmp_path / "served.parquet")
        assert main(["training-set", "check", f"{tmp_path}/served.parquet", *arguments, "--json"]) == code
        (found,) = json.loads(capsys.readouterr().out)
        assert (found["served"], found["mismatched"]) == (2, 2 * added)


def test_every_mistake_is_named_at_once(
    tmp_path: Path, arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "broken").write_bytes(b"PAR1")
    declared = tmp_path / "declared"
    declared.mkdir()
    (declared / "a.py").write_text("1 / 0\n")
    code = main(["training-set", "make", f"{tmp_path}/broken", f"--features={declared}", arguments[1]])
    printed = capsys.readouterr().err
    assert code == 2
    for text in ("--as_of", "--output", "--add", "broken", "ZeroDivisionError"):
        assert text in printed, text
