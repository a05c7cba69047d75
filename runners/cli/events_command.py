"""The command `campaigns events`: its arguments, and its actions."""

from __future__ import annotations

import argparse
import time

from pipelines.command_line.exit_codes import EXIT_CODES, Ending
from pipelines.operations import events as asking
from runners.cli.arguments import JSON, argument, problem
from runners.cli.output import write_result
from runners.cli.text import events as text
from schemas.problems import InputError

EVENTS = (
    argument(
        "action",
        choices=("list", "describe", "validate"),
        help="list: the types. describe NAME: the columns, versions and rules of a type. validate FILE …: hold the "
        "events of Avro files against the rules of their types; exit code 1 when one is rejected",
    ),
    argument("names", nargs="*", metavar="NAME|FILE", help="describe: the type. validate: files or folders"),
    argument("--types", metavar="DIR", help="folder with a folder a type (the types that come with the engine)"),
    JSON,
)
_NAMES: dict[str, tuple[int, float, str]] = {
    "list": (0, 0, "takes no name"),
    "describe": (1, 1, "takes the name of one type; `campaigns events list` has them"),
    "validate": (1, float("inf"), "takes the files or folders with events"),
}  # the least and the greatest number of names


def events(args: argparse.Namespace) -> int:
    """Run an action; 1 when `validate` finds an event that is rejected. Raises InputError."""
    least, most, takes = _NAMES[args.action]
    if not least <= len(args.names) <= most:
        raise InputError([problem("NAME|FILE", " ".join(args.names) or "missing", f"`{args.action}` {takes}")])
    if args.action == "list":
        types = asking.list_types(args.types)
        write_result(args, types, text.list_lines(types))
    elif args.action == "describe":
        described = asking.describe_type(args.names[0], args.types)
        write_result(args, described, text.describe_lines(described))
    else:
        checks = asking.validate_files(args.names, int(time.time() * 1000), args.types)
        write_result(args, checks, text.check_lines(checks))
        if any(check.accepted < check.events for check in checks):
            return EXIT_CODES[Ending.CHECK_FAILED]
    return EXIT_CODES[Ending.DONE]
