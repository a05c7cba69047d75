"""What each command does with its parsed arguments; the exit code comes back."""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

from connectors.inputs.lists import list_problems
from connectors.kafka.client import KafkaClient
from connectors.kafka.options import read_client, read_time
from connectors.open import create_topic
from connectors.uri import UriError, topic_uri
from pipelines.command_line.commands import add_launch_options, add_rebatch_options
from pipelines.command_line.exit_codes import EXIT_CODES, Ending
from pipelines.engines.presets import PRESETS
from pipelines.launch import driver as launching
from pipelines.launch.finalize import report_again
from pipelines.launch.input_warnings import input_warnings, list_lines
from pipelines.launch.inputs import LaunchJob, reopen
from pipelines.operations import check as checking
from pipelines.operations import preview as previewing
from pipelines.operations import replay as replaying
from pipelines.operations import why as asking
from pipelines.rebatch import driver as rebatching
from pipelines.rebatch.delivery_files import check_delivery
from runners.cli.live_counters import live_counters
from runners.cli.progress_bar import Bar
from schemas.campaigns.accounts import configured_retailers
from schemas.campaigns.audience import NamedAudience
from schemas.campaigns.campaign import Campaign
from schemas.campaigns.configuration import load_configuration, load_engine
from schemas.campaigns.engine import EngineConfig
from schemas.problems import InputError, Problem, shown
from stores.launches.distinct import distinct_values
from stores.launches.launch_folder import LaunchFolder
from stores.launches.snapshot import describe, source_schema
from transforms.launch_plan import id_columns, make_plan
from transforms.warnings.warning import refusal, warning_text

ENGINE = (
    f"--on {'|'.join(PRESETS)} chooses the engine (`campaigns engines` lists what is installed). Every option of "
    "Apache Beam may be given too, and overrides ours."
)


def launch(argv: list[str]) -> int:
    """Launch with a progress bar; `--help` shows our options, not Beam's hundreds."""
    if any(flag in argv for flag in ("-h", "--help")):
        parser = argparse.ArgumentParser(
            prog="campaigns launch",
            description="Launch campaigns over customers. The same command again resumes a launch that stopped.",
            epilog=ENGINE,
        )
        add_launch_options(parser)
        parser.print_help()
        return 0
    return launching.run(argv, Bar())


def rebatch(argv: list[str], *, exits: bool = False) -> int:
    """Deliver with live counters; `--help` shows our options, not Beam's hundreds. `exits`: the process ends then."""
    if any(flag in argv for flag in ("-h", "--help")):
        parser = argparse.ArgumentParser(
            prog="campaigns rebatch",
            description="Deliver events: each customer once, up to 50 a call. The same command again goes on where "
            "it stopped; Ctrl-C delivers what was read, then stops.",
            epilog=ENGINE,
        )
        add_rebatch_options(parser)
        parser.print_help()
        return 0
    with live_counters() as show:
        return rebatching.run(argv, show, exits=exits)


def replay(args: argparse.Namespace) -> int:
    problems: list[Problem] = []
    client = read_client(args, problems)
    since, until = (_time(name, text, problems) for name, text in (("--from", args.since), ("--to", args.until)))
    if args.until and not args.since:
        problems.append(Problem("command line", "--from", "missing", "say from when on; --to says until when"))
    if since is not None and until is not None and since >= until:
        problems.append(Problem("command line", "--to", args.until, "must be later than --from"))
    if args.since and args.reason:
        problems.append(Problem("command line", "--reason", args.reason[0], "is for dead letters: leave --from out"))
    if problems:
        raise InputError(problems)
    if since is None:
        print(replaying.replay(args.source, args.events, args.ledger, set(args.reason), client))
    else:
        end = int(time.time() * 1000) if until is None else until
        print(replaying.replay_between(args.source, args.events, since, end, args.ledger, client))
    return 0


def _time(name: str, text: str | None, problems: list[Problem]) -> int | None:
    at = read_time(text) if text else None
    if text and at is None:
        problems.append(Problem("command line", name, text, "write a time with its zone, such as 2026-04-01T09:00Z"))
    return at


def _launched(folder: str) -> LaunchJob:
    return reopen(LaunchFolder(folder))


def preview(args: argparse.Namespace) -> int:
    if args.samples < 0:
        raise InputError([Problem("command line", "--samples", str(args.samples), "must be 0 or more")])
    for line in previewing.preview(
        args.campaign,
        args.campaigns,
        args.customers,
        tuple(args.history),
        args.sticky,
        args.samples,
        args.strict,
        Bar(),
    ):
        print(line)
    return 0


def why(args: argparse.Namespace) -> int:
    for line in asking.why(_launched(args.launch), args.customer, args.campaign, args.receipts):
        print(line)
    return 0


def check(args: argparse.Namespace) -> int:
    found = checking.check(_launched(args.launch), args.receipts)
    print("\n".join(found.lines))
    return EXIT_CODES[Ending.CHECK_FAILED if found.wrong else Ending.DONE]


def report(args: argparse.Namespace) -> int:
    print(report_again(_launched(args.launch), args.receipts))
    return 0


def schema(args: argparse.Namespace) -> int:
    rows = [
        ("column", "type", "nulls", "examples"),
        *((n, t, f"{s:.1%}", ", ".join(shown(str(one), 40) for one in e)) for n, t, s, e in describe(args.source)),
    ]
    widths = [max(len(row[i]) for row in rows) for i in range(3)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, [*widths, 0], strict=True)).rstrip())
    return 0


def json_schema(args: argparse.Namespace) -> int:
    model: Any = {"campaign": Campaign, "engine": EngineConfig, "audience": NamedAudience}[args.kind]
    print(json.dumps(model.model_json_schema(), indent=2))
    return 0


def validate(args: argparse.Namespace) -> int:
    root = Path(args.campaigns)
    config, problems = load_configuration(root)
    engine = config.engine if config is not None else load_engine(root)[0]
    retailers: set[str] = set()
    problems += list_problems(root, config.lists) if config is not None else []
    if args.customers and config is not None:
        schema = source_schema(args.customers, id_columns(config))
        problems += make_plan(config, schema, "validate", 0)[1]
        retailers = _sent_to(config.engine, args.customers, schema.names)
    if engine is not None:
        problems += check_delivery(root, engine, {*configured_retailers(engine), *retailers}, None)
    if problems or config is None:
        raise InputError(problems)
    warnings, lists = input_warnings(config, args.customers)
    if warnings and (args.strict or config.engine.strict):
        raise refusal(warnings)
    print(f"{len(config.campaigns)} campaigns and {len(config.audiences)} named audiences are sound")
    if retailers:
        print(f"the accounts of the customers' {len(retailers)} retailers are sound; rebatch checks the keys")
    for line in (*list_lines(lists), *map(warning_text, warnings)):
        print(line)
    return 0


def _sent_to(engine: EngineConfig, customers: str, columns: list[str]) -> set[str]:
    """The retailers of the customers, if they need accounts at a vendor."""
    column = engine.columns.retailer
    return distinct_values(customers, column) if engine.delivery.vendor != "outbox" and column in columns else set()


def topic(args: argparse.Namespace) -> int:
    try:
        uri = topic_uri(args.uri)
    except UriError as error:
        raise InputError([Problem("command line", "uri", args.uri, str(error))]) from error
    problems: list[Problem] = []
    client = read_client(args, problems) if uri.has_partitions else KafkaClient()
    if uri.has_partitions and args.partitions < 1:
        problems.append(Problem("command line", "--partitions", str(args.partitions), "must be 1 or more"))
    if uri.has_partitions and args.subscription:
        fix = "is for Pub/Sub; on Kafka a group is made by its first reader, rebatch --kafka_group"
        problems.append(Problem("command line", "--subscription", args.subscription, fix))
    if problems:
        raise InputError(problems)
    print(create_topic(uri, client, args.partitions, args.subscription))
    return 0
