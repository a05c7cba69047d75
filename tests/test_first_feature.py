"""The first section of docs/features.md: its declaration is written and its commands are run, as they stand there."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SECTION = (ROOT / "docs/features.md").read_text().partition("## Your first feature in ten minutes\n")[2]
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", SECTION.partition("\n## ")[0], re.MULTILINE | re.DOTALL)


def run(command: str, folder: Path) -> str:
    """What a command prints to its output; it has to succeed."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(shlex.split(command), cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


def test_the_first_feature_is_read_as_its_page_says(tmp_path: Path) -> None:
    declarations = [text for language, text in BLOCKS if language == "python"]
    *commands, read, answer = [text for language, text in BLOCKS if not language]
    (tmp_path / "features").mkdir()
    (file,) = re.findall(r"in `(features/\w+\.py)`", SECTION.partition("```")[0])
    (tmp_path / file).write_text(*declarations)
    for command in "".join(commands).splitlines():
        run(command, tmp_path)
    heading, *values = run(read, tmp_path).splitlines()
    documented, *lines = answer.splitlines()
    assert heading.partition(":")[0] == documented.partition(":")[0] == "spend@1"
    shown = {name: (int(value), quality) for name, value, quality in map(str.split, values)}
    page = {name: (int(value), quality) for name, value, quality in map(str.split, lines)}
    assert shown.keys() == page.keys()
    assert {name: shown[name] for name in shown if name.endswith("_7d")} == {
        name: page[name] for name in page if name.endswith("_7d")
    }
    assert all(quality == "fresh" and 0 < value <= shown[f"{name[:-2]}7d"][0]
               for name, (value, quality) in shown.items() if name.endswith("_1h"))  # fmt: skip
