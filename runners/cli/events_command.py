"""The command `campaigns events`: its arguments, and its actions."""

from __future__ import annotations

import argparse
import json
import time
from contextlib import suppress

from connectors.kafka.options import read_client, read_time
from pipelines.command_line.exit_codes import EXIT_CODES, Ending
from pipelines.operations import events as asking
from pipelines.operations.tail_events import tail_events
from runners.cli.arguments import JSON, KAFKA, argument, problem
from runners.cli.output import write_result
from runners.cli.text import events as text
from schemas.problems import InputError, Problem

EVENTS = (
    argument(
        "action",
        choices=("list", "describe", "validate", "tail"),
        help="list: the types. describe NAME: the columns, versions and rules of a type. validate FILE …: hold the "
        "events of Avro files against the rules of their types; exit code 1 when one is rejected. "
        "tail STORE TYPE: print the events of a type in the event store as they come",
    ),
    argument("names", nargs="*", metavar="NAME|FILE", help="describe: the type. validate: files or folders"),
    argument(
        "--from",
        dest="since",
        metavar="TIME",
        help="tail: events published from then on, such as 2026-04-01T09:00Z (now)",
    ),
    argument("--idle", type=float, help="tail: end when no event has come for so many seconds (follow for ever)"),
    *KAFKA,
    argument("--types", metavar="DIR", help="folder with a folder a type (the types that come with the engine)"),
    JSON,
)
_NAMES: dict[str, tuple[int, float, str]] = {
    "list": (0, 0, "takes no name"),
    "describe": (1, 1, "takes the name of one type; `campaigns events list` has them"),
    "validate": (1, float("inf"), "takes the files or folders with events"),
    "tail": (2, 2, "takes the --store of collect and the name of one type"),
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
    elif args.action == "tail":
        _tail(args)
    else:
        checks = asking.validate_files(args.names, int(time.time() * 1000), args.types)
        write_result(args, checks, text.check_lines(checks))
        if any(check.accepted < check.events for check in checks):
            return EXIT_CODES[Ending.CHECK_FAILED]
    return EXIT_CODES[Ending.DONE]


def _tail(args: argparse.Namespace) -> None:
    """Prints events as JSON, one a line, until Ctrl-C."""
    problems: list[Problem] = []
    since = read_time(args.since) if args.since else None
    if args.since and since is None:
        problems.append(problem("--from", args.since, "write a time with its zone, such as 2026-04-01T09:00Z"))
    client = read_client(args, problems)
    if problems:
        raise InputError(problems)
    with suppress(KeyboardInterrupt):
        for event in tail_events(args.names[0], args.names[1], since, args.idle, client, args.types):
            print(json.dumps(event, ensure_ascii=False), flush=True)
