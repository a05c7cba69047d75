"""The command `campaigns features`: list and describe features, serve them, read or erase those of an entity."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from pipelines.operations.features.catalogue import (
    GroupDescription,
    GroupSummary,
    describe_group,
    list_groups,
)
from pipelines.operations.features.erase import Erasure, erase
from runners.cli.arguments import JSON, argument, problem
from runners.cli.output import write_result
from schemas.problems import InputError, Problem
from serving.features.entity import read_entity
from serving.features.reader import FeatureReader
from serving.features.server import Addresses, ServerSettings, load_columns, serve
from serving.features.worker import load_layouts
from stores.events.fuse import has_blown
from stores.features.open import open_store

FEATURES = (
    argument(
        "action",
        choices=("list", "describe", "serve", "get", "erase"),
        help="list: the declared groups. describe: a group, and how far the store has it. run: fold events into the "
        "store; `campaigns features run --help` shows its options. serve: answer reads over HTTP (Feast's call and "
        "ours) and gRPC. get: show the features of an entity. erase: remove an entity from all groups",
    ),
    argument(
        "entity",
        nargs="*",
        metavar="COLUMN=VALUE",
        help="get, erase: the entity, for instance household_id=h1; describe: a group, for instance household_spend@1",
    ),
    argument("--features", required=True, metavar="DIR", help="folder of *.py files that declare the feature groups"),
    argument("--store", metavar="URI", help="lmdb:DIR, redis://… or bigtable:…"),
    argument("--types", metavar="DIR", help="folder of event types (those that come with the engine)"),
    argument(
        "--fuses",
        metavar="DIR",
        help="serve, get: the --store folder or the --output of collect; features of a "
        "type whose fuse has blown are stale",
    ),
    argument("--host", default="127.0.0.1", help="serve: the address to listen on (127.0.0.1)"),
    argument("--port", type=int, default=6566, help="serve: the port of HTTP, 0 takes a free one (6566)"),
    argument("--grpc-port", type=int, help="serve: answer over gRPC too, on this port; 0 takes a free one"),
    argument("--workers", type=int, default=1, help="serve: the number of processes (1)"),
    argument("--deadline", type=float, default=1.0, metavar="SECONDS", help="serve: the longest a call may take (1)"),
    argument("--max-body", type=int, default=1 << 20, metavar="BYTES", help="serve: the largest request (1048576)"),
    JSON,
)


def features(args: argparse.Namespace) -> int:
    """Run an action; 0. Raises InputError for mistakes in the arguments."""
    if not args.store and args.action not in ("list", "describe"):
        raise InputError([problem("--store", "missing", f"`{args.action}` needs it: the feature store, lmdb:DIR")])
    _ACTIONS[args.action](args)
    return 0


def _serve(args: argparse.Namespace) -> None:
    problems = [problem("entity", word, "`serve` serves every entity: leave it out") for word in args.entity]
    problems += [
        problem(name, str(value), "must be 0 to 65535")
        for name, value in (("--port", args.port), ("--grpc-port", args.grpc_port or 0))
        if not 0 <= value <= 65_535
    ]
    if not 1 <= args.workers <= 256:
        problems.append(problem("--workers", str(args.workers), "must be 1 to 256"))
    if not args.deadline > 0:
        problems.append(problem("--deadline", str(args.deadline), "must be more than 0"))
    if args.max_body < 1_024:
        problems.append(problem("--max-body", str(args.max_body), "must be at least 1024"))
    if problems:
        raise InputError(problems)
    settings = ServerSettings(
        args.store, args.features, args.types, args.host, args.port, args.grpc_port, args.workers, args.deadline,
        args.max_body, args.fuses,
    )  # fmt: skip
    serve(settings, _show_addresses)


def _show_addresses(addresses: Addresses) -> None:
    rpc = f" and grpc://{addresses.grpc}" if addresses.grpc else ""
    print(f"features on {addresses.http}{rpc}", flush=True)


def _get(args: argparse.Namespace) -> None:
    layouts, store = load_layouts(args.features, load_columns(args.types)), open_store(args.store, read_only=True)
    try:
        suspect = partial(has_blown, args.fuses) if args.fuses else lambda source: False
        reader = FeatureReader(store, layouts, lambda: time.time_ns() // 1_000_000, suspect)
        result = read_entity(reader, layouts, _entity(args))
    finally:
        store.close()
    write_result(args, result, _get_lines(result))


def _get_lines(result: dict[str, Any]) -> Iterator[str]:
    for group, found in result.items():
        age = "no event is known" if found["age_ms"] is None else f"newest event {found['age_ms'] / 1_000:,.0f} s ago"
        yield f"{group}: {age}" + (f"; {found['error']}" if found["error"] else "")
        width = max(map(len, found["features"]))
        for name, (value, quality) in found["features"].items():
            yield f"  {name.ljust(width)}  {value}  {quality}"


def _erase(args: argparse.Namespace) -> None:
    result = erase(args.store, list(load_layouts(args.features, load_columns(args.types)).values()), _entity(args))
    write_result(args, result, _erase_lines(result))


def _erase_lines(result: Erasure) -> Iterator[str]:
    for one in result.groups:
        yield f"{one.group}: {one.rows:,} rows of {one.entities:,} entities erased"
    yield from (f"{group}: not kept by {', '.join(result.entity)}" for group in result.untouched)


def _list(args: argparse.Namespace) -> None:
    if args.entity:
        raise InputError([problem("entity", word, "`list` shows every group: leave it out") for word in args.entity])
    groups = list_groups(args.features, args.types)
    write_result(args, groups, _list_lines(groups))


def _list_lines(groups: list[GroupSummary]) -> Iterator[str]:
    width = max(len(one.id) for one in groups)
    for one in groups:
        yield f"{one.id.ljust(width)}  {one.features:3} features of {', '.join(one.key)} from {one.source}; {one.owner}"


def _describe(args: argparse.Namespace) -> None:
    if len(args.entity) != 1:
        fix = "name one group, for instance household_spend@1; `campaigns features list` shows them"
        raise InputError([problem("GROUP", " ".join(args.entity) or "missing", fix)])
    described = describe_group(args.entity[0], args.features, args.types, args.store)
    write_result(args, described, _describe_lines(described))


def _describe_lines(one: GroupDescription) -> Iterator[str]:
    yield f"{one.id}: {one.description or 'no description'}"
    yield f"  owner {one.owner}; consumers: {', '.join(one.consumers) or 'none declared'}"
    yield f"  from {one.source} (owner {one.source_owner}), by {', '.join(one.key)}, placed by {one.time}"
    yield f"  stale after {one.max_age}; events may come {one.lateness} late" + _joined("; only where ", one.where)
    width = max(len(feature.name) for feature in one.features)
    for feature in one.features:
        start = "exact" if not feature.hop_s else f"in steps of {feature.hop_s:g} s"
        column = f" of {feature.column}" if feature.column else ""
        yield (
            f"  {feature.name.ljust(width)}  {feature.operation}{column} over {feature.window}, {start}; "
            f"default {feature.default}{_joined('; where ', feature.where)}"
        )
    for partition, position in one.positions.items():
        yield f"  partition {partition}: folded up to position {position:,}"


def _joined(before: str, conditions: list[str]) -> str:
    return before + " and ".join(conditions) if conditions else ""


def _entity(args: argparse.Namespace) -> dict[str, str]:
    """The entity's columns. Raises InputError with every mistake in them."""
    problems, entity = list[Problem](), dict[str, str]()
    for word in args.entity:
        column, sign, value = word.partition("=")
        if not (column and sign):
            problems.append(problem("entity", word, "write COLUMN=VALUE, for instance household_id=h1"))
        if column in entity:
            problems.append(problem("entity", word, f"{column} has a value already; ask for one entity at a time"))
        entity[column] = value
    if not args.entity:
        problems.append(problem("entity", "missing", "name it: COLUMN=VALUE, for instance household_id=h1"))
    if problems:
        raise InputError(problems)
    return entity


_ACTIONS: dict[str, Callable[[argparse.Namespace], None]] = {
    "list": _list,
    "describe": _describe,
    "serve": _serve,
    "get": _get,
    "erase": _erase,
}
