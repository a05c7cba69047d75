"""The program `campaigns`: find the command, parse its arguments, run it, map errors to exit codes."""

from __future__ import annotations

import argparse
import os
import sys
from functools import partial

from pipelines.command_line.exit_codes import EXIT_CODES, Ending, exit_code
from pipelines.command_line.parse import did_you_mean, parse_words
from runners.cli import commands
from runners.cli.arguments import Command, problem
from runners.cli.command_table import COMMANDS
from schemas.problems import InputError, shown

DESCRIPTION = """\
Launch campaigns over customers, deliver them, and ask about them afterwards.

  campaigns schema   customers.parquet                 the customers' columns
  campaigns preview  CAMPAIGN --campaigns DIR --customers FILE
  campaigns launch   --campaigns DIR --customers FILE --events file:DIR --output DIR
  campaigns rebatch  --campaigns DIR --events file:DIR --output DIR [--drain]    deliver a launch's events
  campaigns check    DIR                               is every customer and event accounted for?
  campaigns why      CUSTOMER CAMPAIGN --launch DIR    why was it sent, or not?
  campaigns report   DIR                               write report.html again
  campaigns features serve|get|erase                  serve features, show or erase those of an entity
  campaigns ledger   cancel DIR --launch DIR --campaign CAMPAIGN    send no more of a campaign
  campaigns collect  --source file:DIR --store file:DIR [--drain]    raw events into the event store
  campaigns features run --events file:DIR --features DIR --feature_store lmdb:DIR    events into features
  campaigns sandbox                                    a simulated vendor, to deliver to
"""


def parser() -> argparse.ArgumentParser:
    """The parser of every command but launch, rebatch and collect, which take Beam's options too."""
    program = argparse.ArgumentParser(
        prog="campaigns", description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    subparsers = program.add_subparsers(dest="command", required=True, metavar="COMMAND")
    subparsers.add_parser("launch", help="launch campaigns; the same command again resumes", add_help=False)
    subparsers.add_parser(
        "rebatch", help="deliver a launch's events, 50 a call; after a stop, the same command continues", add_help=False
    )
    subparsers.add_parser(
        "collect", help="bring raw events into the event store; the same command goes on", add_help=False
    )
    for name, command in COMMANDS.items():
        _add_arguments(subparsers.add_parser(name, help=command.help, description=command.help), command)
    return program


def _add_arguments(parser: argparse.ArgumentParser, command: Command) -> None:
    for argument in command.arguments:
        parser.add_argument(*argument.names, **argument.settings)


def _parse(argv: list[str]) -> argparse.Namespace:
    """The arguments of a command. Raises InputError with every mistake in them; `--help` ends the program."""
    name, words = argv[0] if argv else "missing", argv[1:]
    if {"-h", "--help"} & {*argv}:
        return parser().parse_args(argv)
    if name not in COMMANDS:
        names = ("launch", "rebatch", "collect", *COMMANDS)
        fix = f"{did_you_mean(name, names)}`campaigns --help` explains the commands: {', '.join(names)}"
        raise InputError([problem("COMMAND", shown(name), fix)])
    own = argparse.ArgumentParser(prog=f"campaigns {name}", allow_abbrev=False)
    _add_arguments(own, COMMANDS[name])
    return parse_words(own, words)


def main(argv: list[str] | None = None) -> int:
    """The exit code (pipelines/command_line/exit_codes.py)."""
    exits, argv = argv is None, sys.argv[1:] if argv is None else argv
    if argv[:1] == ["launch"]:
        return commands.launch(argv[1:])
    if argv[:2] == ["features", "run"]:
        return commands.fold_features(argv[2:], exits=exits)
    if argv[:1] == ["collect"]:
        return commands.collect(argv[1:], exits=exits)
    if argv[:1] == ["rebatch"]:
        return commands.rebatch(argv[1:], exits=exits)
    return exit_code(partial(_run, argv))


def _run(argv: list[str]) -> int:
    args = _parse(argv)
    try:
        return COMMANDS[argv[0]].run(args)
    except BrokenPipeError:  # the reader of `campaigns why … | head` has ended
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_CODES[Ending.DONE]


if __name__ == "__main__":
    sys.exit(main())
