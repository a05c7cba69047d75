"""The pipeline features over an embedded event store: options, drain, restart, bad input."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from bench.feature_events import DECLARED, ORDER_LINE, PARTITIONS, TYPE, make_orders, recount
from connectors.open import open_log_writer
from connectors.uri import sink_uri
from pipelines.features.driver import run
from stores.features.open import open_store


def publish(folder: Path, orders: Any) -> None:
    """Appends order lines to the event store in a folder."""
    writer = open_log_writer(sink_uri(f"file:{folder}/{TYPE}"), PARTITIONS)
    for partition in range(PARTITIONS):
        own = [body for body, place in zip(orders.bodies, orders.partitions, strict=True) if place == partition]
        if own:
            writer.append(partition, own, [int(time.time() * 1000)] * len(own), {})
    writer.close()


def options(folder: Path, **more: str) -> list[str]:
    """The options of a drain of the event store in a folder."""
    given = {
        "events": f"file:{folder}/events",
        "features": str(DECLARED),
        "feature_store": f"lmdb:{folder}/features",
        "idle": "0.5",
        "on": "direct",
    } | more
    return ["--drain", *(f"--{name}={value}" for name, value in given.items() if value)]


def test_a_drain_folds_everything_and_the_next_only_what_is_new(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    orders = make_orders(1_500, 40, seed=1)
    publish(tmp_path / "events", orders.part(0, 1_000))
    assert run(options(tmp_path)) == 0
    assert "read         1,000" in capsys.readouterr().out
    assert recount(orders.part(0, 1_000), f"lmdb:{tmp_path}/features") | {"tiles": 0} == {
        "tiles": 0, "wrong": 0, "missing": 0, "extra": 0,
    }  # fmt: skip
    publish(tmp_path / "events", orders.part(1_000, 1_500))
    assert run(options(tmp_path)) == 0
    counted = recount(orders, f"lmdb:{tmp_path}/features")
    assert counted["tiles"] > 1_000
    assert (counted["wrong"], counted["missing"], counted["extra"]) == (0, 0, 0)


def test_a_new_group_is_filled_from_the_first_event_while_the_others_stay(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    orders = make_orders(300, 20, seed=2)
    publish(tmp_path / "events", orders)
    declared = (DECLARED / "orders.py").read_text()
    first = tmp_path / "declared"
    first.mkdir()
    head = declared.partition("ITEM_SALES")[0]
    (first / "a.py").write_text(head)
    assert run(options(tmp_path, features=str(first))) == 0
    (first / "a.py").write_text(declared)
    capsys.readouterr()
    assert run(options(tmp_path, features=str(first))) == 0
    counted = recount(orders, f"lmdb:{tmp_path}/features")
    assert (counted["wrong"], counted["missing"], counted["extra"]) == (0, 0, 0)
    assert "folded           300" in capsys.readouterr().out


def test_a_group_that_was_changed_without_a_new_version_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    publish(tmp_path / "events", make_orders(10, 5, seed=3))
    declared = tmp_path / "declared"
    declared.mkdir()
    text = (DECLARED / "orders.py").read_text()
    (declared / "a.py").write_text(text)
    assert run(options(tmp_path, features=str(declared))) == 0
    (declared / "a.py").write_text(text.replace('("5m", "1h", "7d")', '("5m", "1h", "6d")').replace("growth", "other"))
    capsys.readouterr()
    assert run(options(tmp_path, features=str(declared))) == 2
    printed = capsys.readouterr().err
    assert "household_spend@1: aggregations[0].windows[2] = 7d → 6d" in printed
    assert "declare the change as version 2" in printed
    assert "owner" not in printed


def test_every_mistake_is_named_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    declared = tmp_path / "declared"
    declared.mkdir()
    (declared / "a.py").write_text((DECLARED / "orders.py").read_text().replace('"sales_cents"', '"no_column"'))
    code = run(
        options(tmp_path, features=str(declared), feature_store="nothing:here", idle="0", as_of="noon", events="ftp:x")
    )
    printed = capsys.readouterr().err
    assert code == 2
    for text in ("no_column", "--idle", "--as_of", "noon", "ftp:x", "nothing:here"):
        assert text in printed, text
    assert "Traceback" not in printed


def test_a_mistyped_option_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*options(tmp_path), "--feature_stor=x"]) == 2
    assert "--feature_store" in capsys.readouterr().err


def test_events_of_the_past_are_folded_as_at_their_time(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    publish(tmp_path / "events", make_orders(50, 5, seed=3))
    assert run(options(tmp_path, as_of="2100-01-01")) == 0
    assert "late           100" in capsys.readouterr().out  # once a group
    store = open_store(f"lmdb:{tmp_path}/features")
    assert sum(stamp.position for stamp in store.positions("household_spend@1").values()) == 50
    store.close()
    assert ORDER_LINE.retention_ms > 0
