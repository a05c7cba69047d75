"""The command `campaigns quarantine`: its arguments, and its actions."""

from __future__ import annotations

import argparse

from connectors.kafka.options import read_client
from pipelines.operations.quarantine import Replayed, replay_quarantine, show_quarantine
from runners.cli.arguments import JSON, KAFKA, argument, repeated
from runners.cli.output import show_progress, write_result
from schemas.problems import InputError, Problem

QUARANTINE = (
    argument(
        "action",
        choices=("show", "replay"),
        help="show: count what is in quarantine, and the fuses that have blown. replay: read it again, after a rule, a "
        "schema or a producer was corrected; what is let in now goes into the store, the rest stays",
    ),
    argument("store", metavar="STORE", help="the --store of collect"),
    argument("--output", help="the --output of collect, for a store on Kafka"),
    argument("--types", help="replay: folder of event types (those that come with the engine)"),
    repeated("--event-type", help="replay: only events of this type; may be repeated"),
    repeated("--rule", help="replay: only events that broke this rule; may be repeated"),
    *KAFKA,
    JSON,
)


def quarantine(args: argparse.Namespace) -> int:
    """Shows or replays the quarantine; the exit code."""
    if args.action == "show":
        view = show_quarantine(args.store, args.output)
        lines = [f"{one.events:>12,}  {one.type} {one.version}  {one.rule}: {one.reason}" for one in view.kept]
        lines += [f"the fuse of {name} has blown: {reason}" for name, reason in view.fuses.items()]
        write_result(args, view, lines or ["nothing is in quarantine"])
        return 0
    problems: list[Problem] = []
    client = read_client(args, problems)
    if problems:
        raise InputError(problems)
    result = replay_quarantine(
        args.store, args.output, args.types, set(args.event_type), set(args.rule), client, _show_read
    )
    show_progress("")
    write_result(args, result, _lines(result))
    return 0


def _show_read(events: int) -> None:
    show_progress(f"{events:,} events read")


def _lines(result: Replayed) -> list[str]:
    there = f", {result.repeats:,} were in the store already, {result.dropped:,} are dropped"
    lines = [f"{result.appended:,} events appended{there}, {sum(result.quarantined.values()):,} stay in quarantine"]
    return lines + [f"{count:>12,}  {rule}" for rule, count in result.quarantined.items()]
