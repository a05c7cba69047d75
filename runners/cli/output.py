"""Print the result of a command: as lines of text, or with --json the data itself."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Iterable
from typing import Any

import msgspec


def write_result(args: Namespace, result: Any, lines: Iterable[str]) -> None:
    """Print `result` as JSON with --json, else the lines."""
    if args.json:
        print(msgspec.json.format(msgspec.json.encode(result)).decode())
        return
    for line in lines:
        print(line)


def show_progress(text: str) -> None:
    """Replace the line of progress on a terminal's stderr; no text ends it."""
    if sys.stderr.isatty():
        print(f"\r\033[K{text}" if text else "", end="" if text else "\n", file=sys.stderr, flush=True)
