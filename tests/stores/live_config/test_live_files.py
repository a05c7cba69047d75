"""Files that are read again when one of them changes."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest

from schemas.problems import InputError, Problem
from stores.live_config.live_files import LOOK_EVERY_S, LiveFiles, Reading


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += LOOK_EVERY_S
        return self.now


def write(path: Path, text: str) -> None:
    before = path.stat().st_mtime if path.exists() else 0
    path.write_text(text)
    os.utime(path, (0, before + 10))


def read(folder: Path, last: str | None) -> Reading[str]:
    """The text of the file that `main` names; a value without a letter is a problem."""
    name = (folder / "main").read_text()
    text = (folder / name).read_text() if (folder / name).exists() else ""
    problems = [] if text.isalpha() else [Problem(name, "text", text, "write letters")]
    return Reading(text + (last or ""), problems, {"main", name})


def live(folder: Path) -> LiveFiles[str]:
    write(folder / "main", "a")
    write(folder / "a", "one")
    return LiveFiles(folder, "main", read, Clock())


def test_a_changed_file_is_read_again_with_the_last_value_and_an_unchanged_one_is_not(tmp_path: Path) -> None:
    files = live(tmp_path)
    assert [files.current() for _ in range(3)] == ["one", "one", "one"]
    write(tmp_path / "a", "two")
    assert [files.current() for _ in range(2)] == ["twoone", "twoone"]


def test_a_file_that_is_named_by_an_edit_is_watched_from_then_on(tmp_path: Path) -> None:
    files = live(tmp_path)
    files.current()
    write(tmp_path / "main", "b")
    assert files.current() == "one", "b does not exist yet"
    write(tmp_path / "b", "two")
    assert files.current() == "twoone"
    write(tmp_path / "a", "ignored")
    assert files.current() == "twoone"


def test_a_broken_edit_leaves_the_last_value_in_force_and_is_logged_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    files = live(tmp_path)
    files.current()
    write(tmp_path / "a", "1")
    with caplog.at_level(logging.WARNING):
        assert [files.current() for _ in range(3)] == ["one"] * 3
        write(tmp_path / "a", "1")
        assert files.current() == "one"
    assert [problem.value for problem in files.problems] == ["1"]
    (record,) = caplog.records
    assert "the settings before them stay in force" in record.getMessage()


def test_without_a_sound_value_the_problems_are_raised(tmp_path: Path) -> None:
    files = live(tmp_path)
    write(tmp_path / "a", "1")
    with pytest.raises(InputError, match="write letters"):
        files.current()
    write(tmp_path / "a", "two")
    assert files.current() == "two"
