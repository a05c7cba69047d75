"""The make targets work from nothing and after each other: a rule's files are all made again when one is missing."""

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """The Makefile beside programs that only write what they are asked for."""
    shutil.copy(ROOT / "Makefile", tmp_path)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python").write_text(
        "echo made >> made.log\nwhile [ $# -gt 1 ]; do case $1 in --output|--history) "
        'mkdir -p "$(dirname "$2")"; touch "$2";; esac; shift; done\n'
    )
    (tmp_path / "bin" / "python").chmod(0o755)
    (tmp_path / ".venv").mkdir()
    for name in ("requirements.lock", "pyproject.toml", ".venv/installed"):
        (tmp_path / name).touch()
    return tmp_path


def make(place: Path) -> int:
    """How often the customers were made to have both files."""
    (place / "made.log").write_text("")
    done = ["make", "-s", f"BIN={place / 'bin'}", "out/customers.parquet", "out/history.parquet"]
    subprocess.run(done, cwd=place, check=True)
    assert (place / "out" / "customers.parquet").exists()
    assert (place / "out" / "history.parquet").exists()
    return len((place / "made.log").read_text().splitlines())


@pytest.mark.parametrize("missing", ["customers.parquet", "history.parquet"])
def test_customers_without_their_history_are_made_again_and_so_the_other_way(place: Path, missing: str) -> None:
    assert make(place) == 1
    assert make(place) == 0
    (place / "out" / missing).unlink()
    assert make(place) == 1
    assert make(place) == 0


def test_the_demo_needs_both_files() -> None:
    (rule,) = [
        line for line in (ROOT / "Makefile").read_text().splitlines() if line.startswith("$(DEMO)/summary.json:")
    ]
    assert "out/customers.parquet out/history.parquet" in rule
