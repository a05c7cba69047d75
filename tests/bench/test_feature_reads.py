"""The benchmark of feature reads, small: it reads what it wrote, and prints its numbers."""

from __future__ import annotations

import json
import random

import pytest

from bench import feature_reads
from transforms.features.rows import decode_rows


def test_it_prints_the_quantiles_of_reads_that_are_all_computed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["feature_reads", "--reads", "200", "--entities", "20"])
    feature_reads.main()
    printed = json.loads(capsys.readouterr().out)
    assert printed["read_ms"]["p50"] <= printed["read_ms"]["p99"] <= printed["read_ms"]["p999"]
    assert printed["features"] == 12


def test_a_row_has_sixty_tiles_within_the_windows() -> None:
    parts = decode_rows(feature_reads.LAYOUT, [feature_reads.row_of(60, random.Random(1))])
    assert len(parts.tiles) == 60
