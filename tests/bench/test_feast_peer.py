"""Feast's own SDK reads from our server what it reads from its own store."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench import feature_reads
from bench.feast_peer import read_by_sdk
from bench.feature_server import serving, values_of
from runners.local.install import PARTS, installed


def test_feasts_client_reads_from_us_what_it_reads_from_its_own_store(tmp_path: Path) -> None:
    """But for the entity that is unknown: we know its counts, the declared default 0."""
    if not installed(PARTS["feast"]):
        pytest.skip("needs Feast, run `python -m runners.local.install feast`")
    feature_reads.fill(tmp_path / "store", 5)
    values = values_of(tmp_path / "store", 5)
    with serving(tmp_path, 1) as (host, port):
        ours = read_by_sdk(tmp_path / "remote", values, f"http://{host}:{port}")
    own = read_by_sdk(tmp_path / "own", values)
    assert ours.keys() == own.keys()
    assert {name: column[:2] for name, column in ours.items()} == {name: column[:2] for name, column in own.items()}
    assert {column[2] for name, column in ours.items() if name.startswith("amount_m")} == {None}
    assert {column[2] for name, column in ours.items() if name.startswith("count")} == {0}
