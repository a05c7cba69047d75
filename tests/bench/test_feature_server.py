"""The benchmark of the feature server, small: both calls are answered, and the numbers are printed."""

from __future__ import annotations

import json

import pytest

from bench import feature_server


def test_it_prints_the_quantiles_of_both_calls(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["feature_server", "--calls", "100", "--entities", "20"])
    feature_server.main()
    printed = json.loads(capsys.readouterr().out)
    assert printed["server_ms"].keys() == {"feast", "compact"}
    for numbers in printed["server_ms"].values():
        assert 0 < numbers["p50_1"] <= numbers["p99_1"]
        assert 0 < numbers["p50_100"] <= numbers["p99_100"]
