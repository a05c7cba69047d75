"""The command `campaigns sandbox`."""

from __future__ import annotations

import argparse
import asyncio
import sys
from pathlib import Path

import yaml

from pipelines.command_line.exit_codes import exit_code
from pipelines.command_line.parse import parse_words
from runners.cli.arguments import argument, problem
from runners.sandbox.book import Book
from runners.sandbox.bucket import CALLS_PER_HOUR
from runners.sandbox.script import ScriptError, load_script
from runners.sandbox.server import serve
from runners.sandbox.stand_in import StandIn
from schemas.problems import InputError, JobError

ARGUMENTS = (
    argument("--port", type=int, default=8080, help="0 takes a free one (8080)"),
    argument("--host", default="127.0.0.1", help="the address to listen on (127.0.0.1)"),
    argument("--script", metavar="FILE", help="rules for faults, JSON or YAML"),
    argument("--record", metavar="FILE", help="append every call to this NDJSON file, and continue its counts"),
    argument("--bodies", action="store_true", help="record the bodies of the calls too"),
    argument("--keep", type=int, default=200, help="number of calls to keep in memory (200)"),
    argument("--keys", metavar="FILE", help="workspace: key, JSON or YAML; without it any key is accepted"),
    argument("--calls-per-hour", type=int, default=CALLS_PER_HOUR, help=f"the limit of a workspace ({CALLS_PER_HOUR})"),
)


def sandbox(args: argparse.Namespace) -> int:
    """Simulate the vendor until SIGTERM or Ctrl-C; nothing is sent to anybody. Raises InputError for bad files."""
    try:
        script = load_script(args.script)
    except ScriptError as error:
        raise InputError([problem("--script", args.script, str(error))]) from error
    stand_in = StandIn(_book(args), script, _keys(args.keys), args.calls_per_hour)
    try:
        asyncio.run(serve(stand_in, args.host, args.port, lambda url: print(f"vendor sandbox on {url}", flush=True)))
    except OSError as error:
        raise JobError(f"cannot listen on {args.host}:{args.port}: {error.strerror or error}") from error
    return 0


def _book(args: argparse.Namespace) -> Book:
    try:
        return Book(args.record, args.bodies, args.keep)
    except (OSError, ValueError, TypeError) as error:
        fix = f"give a file that can be written, new or an earlier record ({error})"
        raise InputError([problem("--record", args.record, fix)]) from error


def _keys(path: str | None) -> dict[str, str]:
    if path is None:
        return {}
    try:
        keys = yaml.safe_load(Path(path).read_text())
    except (OSError, yaml.YAMLError) as error:
        raise InputError([problem("--keys", path, f"cannot be read: {error}")]) from error
    if not isinstance(keys, dict) or not all(isinstance(key, str) and key for key in keys.values()):
        raise InputError([problem("--keys", path, "give workspace: key, the keys as texts")])
    return {str(workspace): key for workspace, key in keys.items()}


def main(argv: list[str] | None = None) -> int:
    """The exit code of the command, run on its own."""
    parser = argparse.ArgumentParser(prog="campaigns sandbox", description=sandbox.__doc__, allow_abbrev=False)
    for names, settings in ARGUMENTS:
        parser.add_argument(*names, **settings)
    return exit_code(lambda: sandbox(parse_words(parser, sys.argv[1:] if argv is None else argv)))
