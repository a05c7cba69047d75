"""The command `campaigns`: launch, and ask about launches."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from connectors.kafka.options import OPTIONS, PUBLISHING
from pipelines.command_line.exit_codes import EXIT_CODES, Ending, exit_code
from pipelines.command_line.words import did_you_mean, parse_words
from runners.cli import commands
from runners.cli.engines_command import ENGINES, engines
from runners.cli.ledger_command import LEDGER, ledger
from runners.cli.template import TEMPLATE
from runners.cli.template import build as build_template
from runners.cli.verify_code import verify
from runners.local.flink.command import FLINK, flink
from runners.sandbox.command import ARGUMENTS as SANDBOX
from runners.sandbox.command import Argument, sandbox
from schemas.problems import InputError, Problem, shown

DESCRIPTION = """\
Launch campaigns over customers, deliver them, and ask about them afterwards.

  campaigns schema   customers.parquet                 the customers' columns
  campaigns preview  CAMPAIGN --campaigns DIR --customers FILE
  campaigns launch   --campaigns DIR --customers FILE --events file:DIR --output DIR
  campaigns rebatch  --campaigns DIR --events file:DIR --output DIR [--drain]    deliver a launch's events
  campaigns check    DIR                               is every customer and event accounted for?
  campaigns why      CUSTOMER CAMPAIGN --launch DIR    why was it sent, or not?
  campaigns report   DIR                               write report.html again
  campaigns ledger   cancel DIR --launch DIR --campaign CAMPAIGN    send no more of a campaign
  campaigns sandbox                                    a simulated vendor, to deliver to
"""


def argument(*names: str, **settings: Any) -> Argument:
    """An argument of a command."""
    return Argument(names, settings)


CAMPAIGNS = argument("--campaigns", required=True, help="folder with engine.yaml and the campaigns")
CUSTOMERS = argument("--customers", required=True, help="Parquet, CSV, NDJSON, Avro (file, folder, glob) or bigquery:…")
LAUNCH = argument("launch", metavar="LAUNCH", help="the --output folder of a launch")
RECEIPTS = argument(
    "--receipts",
    action="append",
    default=[],
    metavar="DIR",
    help="folder with receipts of the delivery, may be repeated (LAUNCH/delivery/receipts if it is there)",
)
KAFKA = tuple(argument(name, **OPTIONS[name]) for name in PUBLISHING)
STRICT = argument("--strict", action="store_true", help="warnings are mistakes: exit code 2 (engine.yaml: strict)")
HISTORY = argument(
    "--history",
    action="append",
    default=[],
    help="earlier sends, for the caps: a table or OUTPUT of a launch; may be repeated",
)


class Command(NamedTuple):
    """A command: what it does, its arguments, what runs it (the parsed arguments to an exit code)."""

    help: str
    arguments: tuple[Argument, ...]
    run: Callable[[argparse.Namespace], int]


COMMANDS = {
    "preview": Command(
        "show what a launch of one campaign would do; nothing is published, no code is used",
        (
            argument("campaign", metavar="CAMPAIGN", help="id of the campaign"),
            CAMPAIGNS,
            CUSTOMERS,
            HISTORY,
            argument("--sticky", help="sticky.parquet of an earlier launch"),
            argument("--samples", type=int, default=3, help="how many events to show (3)"),
            STRICT,
        ),
        commands.preview,
    ),
    "why": Command(
        "explain why a customer was or was not sent a campaign, with the values seen",
        (
            argument("customer", metavar="CUSTOMER", help="id of the customer"),
            argument("campaign", metavar="CAMPAIGN", help="id of the campaign"),
            argument("--launch", required=True, help="the --output folder of the launch"),
            RECEIPTS,
        ),
        commands.why,
    ),
    "check": Command(
        "check that each customer and event of a launch is accounted for, and splits are as weighted",
        (LAUNCH, RECEIPTS),
        commands.check,
    ),
    "report": Command("write report.html of a launch again, also while it runs", (LAUNCH, RECEIPTS), commands.report),
    "schema": Command(
        "list the columns of a source of customers",
        (argument("source", metavar="SOURCE", help="a file, folder, glob or bigquery:…"),),
        commands.schema,
    ),
    "json-schema": Command(
        "print the JSON Schema of a configuration file, for editors",
        (argument("kind", choices=("campaign", "engine", "audience")),),
        commands.json_schema,
    ),
    "validate": Command(
        "check a folder of campaigns, and its workspaces' urls, accounts and templates; with --customers also against "
        "their columns and retailers",
        (
            CAMPAIGNS,
            argument(
                "--customers",
                help="also check the conditions against these columns, and these retailers' accounts; "
                "warn of what matches nobody",
            ),
            STRICT,
        ),
        commands.validate,
    ),
    "replay": Command(
        "publish dead letters again, after their cause is corrected, or all events between two times",
        (
            argument(
                "source",
                metavar="SOURCE",
                help="folder with dead letters, such as OUTPUT/dead_letters; with --from the events' transport: "
                "file:DIR, pubsub:projects/P/subscriptions/S or kafka:HOST:PORT/TOPIC",
            ),
            argument(
                "--events",
                required=True,
                help="where to publish: file:DIR, pubsub:projects/P/topics/T or kafka:HOST:PORT/TOPIC",
            ),
            argument("--from", dest="since", metavar="TIME", help="events from then on, such as 2026-04-01T09:00Z"),
            argument("--to", dest="until", metavar="TIME", help="events before then (now)"),
            argument("--ledger", help="the delivery's ledger; needed to send rejected events again"),
            argument("--reason", action="append", default=[], help="only dead letters of this reason; may be repeated"),
            *KAFKA,
        ),
        commands.replay,
    ),
    "ledger": Command(
        "show a delivery's ledger, which holds the outcome of each event; cancel a campaign; settle or resend events "
        "whose outcome is unknown; rebuild a lost ledger",
        LEDGER,
        ledger,
    ),
    "template": Command("build a Flex Template of a pipeline for Dataflow; needs Docker", TEMPLATE, build_template),
    "engines": Command("list what pipelines can run on here, what is missing, and how to get it", ENGINES, engines),
    "flink": Command("run a Flink cluster on this machine, for --on flink, or stop a job on it", FLINK, flink),
    "sandbox": Command("simulate the vendor on this machine, with faults by script; nothing is sent", SANDBOX, sandbox),
    "topic": Command(
        "create a topic of Pub/Sub, which then accepts only our events, or of Kafka",
        (
            argument("action", choices=("create",)),
            argument("uri", metavar="URI", help="pubsub:projects/P/topics/T or kafka:HOST:PORT/TOPIC"),
            argument("--subscription", help="pubsub: make this subscription too"),
            argument("--partitions", type=int, default=6, help="kafka: how many partitions (6)"),
            *KAFKA,
        ),
        commands.topic,
    ),
    "verify-code": Command(
        "check whether an offer code is genuine; the secret comes from the environment. Exit code 0: it is. "
        "1: it is not. 2: the question is wrong "
        "(an unknown launch or offer, another secret, --customer without --retailer)",
        (
            argument("code", metavar="CODE", help="the code, as the customer has it"),
            argument("--launch", required=True, help="launch id, or the --output folder of the launch"),
            argument("--offer", required=True, help="id of the offer"),
            argument("--retailer", help="with --customer: whether the code is this customer's"),
            argument("--customer", help="with --retailer: whether the code is this customer's"),
            argument(
                "--secret-env",
                default="CAMPAIGNS_CODE_SECRET",
                help="the variable that holds the secret (CAMPAIGNS_CODE_SECRET)",
            ),
        ),
        verify,
    ),
}


def parser() -> argparse.ArgumentParser:
    """The parser of every command but launch and rebatch, which take Beam's options too."""
    made = argparse.ArgumentParser(
        prog="campaigns", description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    subparsers = made.add_subparsers(dest="command", required=True, metavar="COMMAND")
    subparsers.add_parser("launch", help="launch campaigns; the same command again resumes", add_help=False)
    subparsers.add_parser(
        "rebatch", help="deliver a launch's events, 50 a call; after a stop, the same command continues", add_help=False
    )
    for name, command in COMMANDS.items():
        _add_arguments(subparsers.add_parser(name, help=command.help, description=command.help), command)
    return made


def _add_arguments(parser: argparse.ArgumentParser, command: Command) -> None:
    for one in command.arguments:
        parser.add_argument(*one.names, **one.settings)


def _parsed(given: list[str]) -> argparse.Namespace:
    """The arguments of a command. Raises InputError with every mistake in them; `--help` ends the program."""
    name, words = given[0] if given else "missing", given[1:]
    if {"-h", "--help"} & {*given}:
        return parser().parse_args(given)
    if name not in COMMANDS:
        names = ("launch", "rebatch", *COMMANDS)
        fix = f"{did_you_mean(name, names)}`campaigns --help` explains the commands: {', '.join(names)}"
        raise InputError([Problem("command line", "COMMAND", shown(name), fix)])
    own = argparse.ArgumentParser(prog=f"campaigns {name}", allow_abbrev=False)
    _add_arguments(own, COMMANDS[name])
    return parse_words(own, words)


def main(argv: list[str] | None = None) -> int:
    """The exit code (pipelines/command_line/exit_codes.py)."""
    given = sys.argv[1:] if argv is None else argv
    if given[:1] == ["launch"]:
        return commands.launch(given[1:])
    if given[:1] == ["rebatch"]:
        return commands.rebatch(given[1:], exits=argv is None)
    return exit_code(partial(_run, given))


def _run(given: list[str]) -> int:
    args = _parsed(given)
    try:
        return COMMANDS[given[0]].run(args)
    except BrokenPipeError:  # the reader of `campaigns why … | head` has ended
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_CODES[Ending.DONE]


if __name__ == "__main__":
    sys.exit(main())
