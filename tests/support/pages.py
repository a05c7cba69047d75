"""Sections and tables of the pages in docs/."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def section(name: str, heading: str) -> str:
    """The text of a page below a heading."""
    text = (ROOT / "docs" / name).read_text()
    return text.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]


def first_column(table: str) -> set[str]:
    """The names in backticks in the first cell of each row."""
    return {
        name for line in re.findall(r"^\|([^|]*)\|", table, re.MULTILINE) for name in re.findall(r"`([\w-]+)`", line)
    }
