"""The command `campaigns training-set`: labels with features as of their instants, and the check of served values."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from connectors.kafka.options import read_client
from pipelines.operations.features.batch import read_batches
from pipelines.operations.features.consistency import Consistency, check
from pipelines.operations.features.read_log import log_reader
from pipelines.operations.features.recompute import Recomputation
from pipelines.operations.features.training_set import Lineage, training_set
from runners.cli.arguments import JSON, KAFKA, argument, problem, repeated
from runners.cli.output import write_result
from schemas.events.event_types import load_event_types
from schemas.features.catalogue import load_catalogue
from schemas.features.tables import TableGroup
from schemas.problems import InputError, JobError, Problem

TRAINING_SET = (
    argument(
        "action",
        choices=("make", "check"),
        help="make: write the labels with the features as they were at each label's instant. check: compare served "
        "values with those of the log, by feature",
    ),
    argument("table", metavar="FILE", help="Parquet: the labels, or the log of served values"),
    argument("--features", required=True, metavar="DIR", help="folder of *.py files that declare the feature groups"),
    argument("--events", required=True, metavar="URI", help="the event store: file:DIR or kafka:HOST:PORT/PREFIX"),
    argument("--types", metavar="DIR", help="folder of event types (those that come with the engine)"),
    argument("--tables", metavar="DIR", help="folder of the tables of batch features and entities, a folder a group"),
    repeated("--add", metavar="GROUP@VERSION[:FEATURE]", help="make: what to add; may be repeated"),
    argument("--as_of", metavar="COLUMN", help="make: the labels' column of instants (epoch ms or timestamps)"),
    argument("--output", metavar="FILE", help="make: the Parquet file to write"),
    *KAFKA,
    JSON,
)


def training_set_command(args: argparse.Namespace) -> int:
    """Run an action; 0, and 1 for a check that found differences. Raises InputError for mistakes in the arguments."""
    return _ACTIONS[args.action](args)


def _make(args: argparse.Namespace) -> int:
    given = {"--add": args.add, "--as_of": args.as_of, "--output": args.output}
    fix = "`make` needs --add, --as_of and --output"
    table, recomputation = _opened(args, [problem(name, "missing", fix) for name, value in given.items() if not value])
    lineage = training_set(table, args.add, args.as_of, recomputation, Path(args.output))
    write_result(args, lineage._asdict(), _lineage_lines(args.output, lineage))
    return 0


def _lineage_lines(output: str, lineage: Lineage) -> Iterator[str]:
    yield f"{output}: {lineage.rows:,} rows, {len(lineage.features):,} features, lineage {lineage.hash[:16]}"
    for name, ends in lineage.positions.items():
        yield f"  {name}: read to {', '.join(f'{partition}:{end:,}' for partition, end in ends.items())}"


def _check(args: argparse.Namespace) -> int:
    given = {"--add": args.add, "--as_of": args.as_of, "--output": args.output}
    fix = "`check` takes it from the log: leave it out"
    table, recomputation = _opened(args, [problem(name, str(one), fix) for name, one in given.items() if one])
    found = check(table, recomputation)
    named = [one._asdict() | {"examples": [example._asdict() for example in one.examples]} for one in found]
    write_result(args, named, _check_lines(found))
    return int(any(one.mismatched or one.missing or one.extra for one in found))


def _check_lines(found: list[Consistency]) -> Iterator[str]:
    for one in found:
        drift = "" if one.drift is None else f", drift {one.drift:.3f}"
        counts = f"{one.mismatched:,} mismatched, {one.missing:,} missing, {one.extra:,} extra"
        yield f"{one.feature}: {one.served:,} served, {counts}{drift}"
        for example in one.examples:
            yield f"  {example.entity} at {example.as_of}: served {example.served}, computed {example.computed}"


def _opened(args: argparse.Namespace, problems: list[Problem]) -> tuple[pa.Table, Recomputation]:
    """The table of the command, and what computes features. Raises InputError with every mistake."""
    client = read_client(args, problems)
    table: Any = None
    try:
        table = pq.read_table(args.table)
    except (OSError, pa.ArrowException) as error:
        problems.append(Problem(args.table, "", str(error), "name a Parquet file"))
    types: dict[str, Any] = {}
    catalogue: dict[str, Any] = {}
    try:
        types = load_event_types(args.types)
        catalogue = load_catalogue(args.features, {name: one.columns for name, one in types.items()})
    except InputError as error:
        problems += error.problems
    if problems:
        raise InputError(problems)

    def read_table(group_id: str) -> pa.Table:
        group = catalogue[group_id]
        if args.tables is None or not isinstance(group, TableGroup):
            raise JobError(f"{group_id} is in a table", "name the folder of its files by --tables")
        return read_batches(group, Path(args.tables))

    columns = {name: one.columns for name, one in types.items()}
    return table, Recomputation(catalogue, columns, log_reader(args.events, types, client), read_table)


_ACTIONS: dict[str, Callable[[argparse.Namespace], int]] = {"make": _make, "check": _check}
