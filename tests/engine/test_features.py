"""The pipeline features over Kafka: killed on Prism and on Flink, and every tile equals a recount."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.servers import needed

from bench.certificate_features import Run
from bench.feature_events import make_orders
from runners.local.flink.cluster import flink_cluster

pytestmark = pytest.mark.engine


def certified(run: Run, kills: int, seed: int) -> None:
    """Every tile is right after the kills."""
    found = run.certify(make_orders(6_000, 300, seed), kills, seed)
    assert found["tiles"] > 6_000
    assert found | {"tiles": 0} == {
        "tiles": 0, "wrong": 0, "missing": 0, "extra": 0, "kills": kills, "folded_again": True,
    }  # fmt: skip


@pytest.mark.timeout(600)
def test_every_tile_is_a_recount_after_kills_on_prism(
    tmp_path: Path, kafka_host: str, prism_engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CAMPAIGNS_PRISM", prism_engine)
    certified(Run(tmp_path, kafka_host, "prism", None), 2, seed=1)


@pytest.mark.timeout(900)
def test_every_tile_is_a_recount_after_kills_on_flink(tmp_path: Path, kafka_host: str) -> None:
    with needed(flink_cluster(tmp_path / "flink")) as cluster:
        certified(Run(tmp_path, kafka_host, "flink", cluster), 3, seed=2)
