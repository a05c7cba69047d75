"""Arguments of commands: how one is declared, and those that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from connectors.kafka.options import OPTIONS, PUBLISHING
from schemas.problems import Problem


class Argument(NamedTuple):
    """An argument as argparse takes it."""

    names: tuple[str, ...]
    settings: dict[str, Any]


class Command(NamedTuple):
    """A command: its help, its arguments, and the function that runs it (parsed arguments to an exit code)."""

    help: str
    arguments: tuple[Argument, ...]
    run: Callable[[Any], int]


def argument(*names: str, **settings: Any) -> Argument:
    """An argument of a command."""
    return Argument(names, settings)


def repeated(name: str, **settings: Any) -> Argument:
    """An option that may be given several times."""
    return Argument((name,), {"action": "append", "default": [], **settings})


def problem(name: str, value: str, fix: str) -> Problem:
    """A mistake on the command line."""
    return Problem("command line", name, value, fix)


CAMPAIGNS = argument("--campaigns", required=True, help="folder with engine.yaml and the campaigns")
LAUNCH = argument("launch", metavar="LAUNCH", help="the --output folder of a launch")
RECEIPTS = repeated(
    "--receipts",
    metavar="DIR",
    help="folder with receipts of the delivery, may be repeated (LAUNCH/delivery/receipts if it exists)",
)
KAFKA = tuple(argument(name, **OPTIONS[name]) for name in PUBLISHING)
STRICT = argument("--strict", action="store_true", help="treat warnings as mistakes: exit code 2 (engine.yaml: strict)")
JSON = argument("--json", action="store_true", help="print the result as JSON")
