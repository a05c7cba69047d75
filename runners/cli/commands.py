"""Run each command with its parsed arguments; the result is the exit code."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator
from typing import Any

from connectors.kafka.client import KafkaClient
from connectors.kafka.options import read_client, read_time
from connectors.open import create_topic
from connectors.uri import topic_uri
from pipelines.collect import driver as collecting
from pipelines.command_line.commands import (
    add_collect_options,
    add_features_options,
    add_launch_options,
    add_rebatch_options,
)
from pipelines.command_line.exit_codes import EXIT_CODES, Ending
from pipelines.engines.presets import PRESETS
from pipelines.features import driver as folding
from pipelines.launch import driver as launching
from pipelines.launch.finalize import report_again
from pipelines.launch.input_warnings import list_lines
from pipelines.launch.inputs import open_launch
from pipelines.launch.options import read_uri
from pipelines.operations import check as checking
from pipelines.operations import preview as previewing
from pipelines.operations import replay as replaying
from pipelines.operations import validate as validating
from pipelines.operations import verify_code as verifying
from pipelines.operations import why as asking
from pipelines.rebatch import driver as rebatching
from runners.cli.arguments import problem
from runners.cli.live_counters import live_counters
from runners.cli.output import show_progress, write_result
from runners.cli.progress_bar import Bar
from runners.cli.text.preview import preview_lines
from runners.cli.text.why import why_lines
from schemas.campaigns.audience import NamedAudience
from schemas.campaigns.campaign import Campaign
from schemas.campaigns.engine import EngineConfig
from schemas.problems import InputError, Problem, shown
from stores.launches.launch_folder import LaunchFolder
from stores.launches.snapshot import describe
from transforms.warnings.warning import refusal, warning_text

ENGINE = (
    f"--on {'|'.join(PRESETS)} chooses the engine (`campaigns engines` lists what is installed). Every option of "
    "Apache Beam may be given too, and overrides ours."
)


def launch(argv: list[str]) -> int:
    """Launch with a progress bar; `--help` shows our options, not Beam's hundreds."""
    if {"-h", "--help"} & {*argv}:
        about = "Launch campaigns over customers. The same command again resumes a launch that stopped."
        return _print_help("launch", about, add_launch_options)
    return launching.run(argv, Bar())


def rebatch(argv: list[str], *, exits: bool = False) -> int:
    """Deliver with live counters; `--help` shows our options, not Beam's hundreds. `exits`: the process ends then."""
    if {"-h", "--help"} & {*argv}:
        about = "Deliver events: each customer once, up to 50 a call. The same command again goes on where it stopped; "
        return _print_help("rebatch", f"{about}Ctrl-C delivers what was read, then stops.", add_rebatch_options)
    with live_counters() as show:
        return rebatching.run(argv, show, exits=exits)


def collect(argv: list[str], *, exits: bool = False) -> int:
    """Collect raw events; `--help` shows our options, not Beam's hundreds. `exits`: the process ends then."""
    if {"-h", "--help"} & {*argv}:
        about = "Bring raw events into the event store, each once; what breaks a rule goes into quarantine. The same "
        return _print_help("collect", f"{about}command again goes on where it stopped.", add_collect_options)
    return collecting.run(argv, exits=exits)


def fold_features(argv: list[str], *, exits: bool = False) -> int:
    """Fold events into features; `--help` shows our options, not Beam's hundreds. `exits`: the process ends then."""
    if {"-h", "--help"} & {*argv}:
        about = "Fold the event store's events into the rows of the feature store, each once. The same command again "
        return _print_help("features run", f"{about}goes on where it stopped.", add_features_options)
    return folding.run(argv, exits=exits)


def _print_help(command: str, about: str, add_options: Callable[[argparse.ArgumentParser], None]) -> int:
    parser = argparse.ArgumentParser(prog=f"campaigns {command}", description=about, epilog=ENGINE)
    add_options(parser)
    parser.print_help()
    return 0


def replay(args: argparse.Namespace) -> int:
    problems: list[Problem] = []
    client = read_client(args, problems)
    since, until = (_time(name, text, problems) for name, text in (("--from", args.since), ("--to", args.until)))
    if args.until and not args.since:
        problems.append(problem("--from", "missing", "say from when on; --to says until when"))
    if since is not None and until is not None and since >= until:
        problems.append(problem("--to", args.until, "must be later than --from"))
    if args.since and args.reason:
        problems.append(problem("--reason", args.reason[0], "is for dead letters: leave --from out"))
    if problems:
        raise InputError(problems)
    if since is None:
        result = replaying.replay(args.source, args.events, args.ledger, set(args.reason), client)
    else:
        end = int(time.time() * 1000) if until is None else until
        result = replaying.replay_between(args.source, args.events, since, end, args.ledger, client, _show_read)
        show_progress("")
    print(f"{result.published:,} messages published again, {result.left_out:,} {result.kind} left out")
    return 0


def _show_read(messages: int) -> None:
    show_progress(f"{messages:,} messages read")


def _time(name: str, text: str | None, problems: list[Problem]) -> int | None:
    at = read_time(text) if text else None
    if text and at is None:
        problems.append(problem(name, text, "write a time with its zone, such as 2026-04-01T09:00Z"))
    return at


def preview(args: argparse.Namespace) -> int:
    if args.samples < 0:
        raise InputError([problem("--samples", str(args.samples), "must be 0 or more")])
    result = previewing.preview(
        args.campaign, args.campaigns, args.customers, args.history, args.sticky, args.samples, args.strict, Bar()
    )
    write_result(args, result, preview_lines(result))
    if result.refused:
        raise refusal(result.summary["warnings"])
    return 0


def why(args: argparse.Namespace) -> int:
    result = asking.why(args.launch, args.customer, args.campaign, args.receipts)
    write_result(args, result, why_lines(result))
    return 0


def check(args: argparse.Namespace) -> int:
    result = checking.check(args.launch, args.receipts)
    write_result(args, result, _check_lines(result))
    return EXIT_CODES[Ending.DONE if result.all_hold else Ending.CHECK_FAILED]


def _check_lines(findings: checking.Findings) -> Iterator[str]:
    marks = {True: "ok     ", False: "WRONG  ", None: "note   "}
    yield f"launch {findings.launch_id}: {findings.batches_done} of {findings.batches} batches done"
    for finding in findings.findings:
        yield marks[finding.holds] + finding.text + (f": {finding.detail}" if finding.detail else "")


def report(args: argparse.Namespace) -> int:
    print(report_again(open_launch(LaunchFolder(args.launch)), args.receipts))
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
    result = validating.validate(args.campaigns, args.customers, args.strict)
    write_result(args, result, _validated_lines(result))
    return 0


def _validated_lines(result: validating.Validated) -> Iterator[str]:
    yield f"{len(result.campaigns)} campaigns and {len(result.audiences)} named audiences are sound"
    if result.retailers:
        yield f"the accounts of the customers' {len(result.retailers)} retailers are sound; rebatch checks the keys"
    yield from list_lines(result.lists)
    yield from map(warning_text, result.warnings)


def verify_code(args: argparse.Namespace) -> int:
    result = verifying.verify(args.code, args.launch, args.offer, args.secret_env, args.retailer, args.customer)
    if args.customer:
        print(f"{args.code}: {'is' if result.genuine else 'is not'} the code of {args.customer} of {args.retailer}")
    else:
        verdict = "genuine" if result.genuine else "not genuine"
        print(f"{args.code}: {verdict} for the offer {args.offer} of launch {result.launch_id}")
    if not result.genuine and not result.well_formed:
        print("no launch has such a code: a character is wrong or missing, so check how it was typed")
    elif not result.genuine and not result.launch_checked:
        print("the launch, the offer or the secret may be wrong too: give the launch's folder as --launch to find out")
    return EXIT_CODES[Ending.DONE if result.genuine else Ending.CHECK_FAILED]


def topic(args: argparse.Namespace) -> int:
    problems: list[Problem] = []
    uri = read_uri(topic_uri, args.uri, problems, "uri")
    if uri is None:
        raise InputError(problems)
    client = read_client(args, problems) if uri.has_partitions else KafkaClient()
    if uri.has_partitions and args.partitions < 1:
        problems.append(problem("--partitions", str(args.partitions), "must be 1 or more"))
    if uri.has_partitions and args.subscription:
        fix = "is for Pub/Sub; on Kafka a group is made by its first reader, rebatch --kafka_group"
        problems.append(problem("--subscription", args.subscription, fix))
    if problems:
        raise InputError(problems)
    print(create_topic(uri, client, args.partitions, args.subscription))
    return 0
