"""`campaigns engines`: its list, its explanations, its exit codes."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.engines.presets import PRESETS
from runners.cli.main import main
from runners.local.emulators import EmulatorError
from runners.local.inventory import INVENTORY, Found, Part, probe
from runners.local.probes import PROBES


def test_every_part_has_a_probe_and_every_preset_is_a_part() -> None:
    assert INVENTORY.keys() == PROBES.keys()
    assert PRESETS.keys() <= INVENTORY.keys()


@pytest.mark.parametrize("name", PRESETS)
def test_the_options_of_a_preset_are_explained(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["engines", name, "--explain"]) == 0
    told = capsys.readouterr().out
    for flag in (*PRESETS[name].flags, *PRESETS[name].streaming):
        assert f"{flag.option}\n      {flag.why}" in told


@pytest.mark.parametrize("argv", [["spark"], ["kafka", "--explain"], ["--seconds=0"]])
def test_what_it_does_not_know_is_refused(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["engines", *argv]) == 2
    assert "must be" in capsys.readouterr().err


def test_a_part_that_is_missing_fails_only_when_it_was_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CAMPAIGNS_KAFKA", str(tmp_path))
    assert main(["engines", "--no-probe", "kafka"]) == 1
    assert "missing" in capsys.readouterr().out
    assert main(["engines", "--no-probe", "direct"]) == 0
    for name in INVENTORY:
        monkeypatch.setitem(INVENTORY, name, Part("a part", _missing))
    assert main(["engines"]) == 0


def _missing() -> Found:
    raise EmulatorError("get it")


def test_a_probe_that_takes_too_long_is_ended_and_told() -> None:
    assert probe("direct", 0.05) == (False, "does not answer within 0.05 s; give it longer with --seconds")
    assert probe("nonsense", 60.0)[0] is False
