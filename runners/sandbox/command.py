"""The command `campaigns sandbox`."""

from __future__ import annotations

import argparse
import asyncio
import sys
from pathlib import Path

import yaml

from pipelines.command_line.words import parse_words
from runners.cli.arguments import Argument
from runners.sandbox.book import Book
from runners.sandbox.bucket import CALLS_PER_HOUR
from runners.sandbox.script import ScriptError, load_script
from runners.sandbox.server import serve
from runners.sandbox.stand_in import StandIn
from schemas.problems import InputError, JobError, Problem

ARGUMENTS = (
    Argument(("--port",), {"type": int, "default": 8080, "help": "0 takes a free one (8080)"}),
    Argument(("--host",), {"default": "127.0.0.1", "help": "the address to listen on (127.0.0.1)"}),
    Argument(("--script",), {"metavar": "FILE", "help": "rules for faults, JSON or YAML"}),
    Argument(("--record",), {"metavar": "FILE", "help": "append every call to this NDJSON file; its counts go on"}),
    Argument(("--bodies",), {"action": "store_true", "help": "the record holds the calls' bodies too"}),
    Argument(("--keep",), {"type": int, "default": 200, "help": "how many calls to keep in memory (200)"}),
    Argument(("--keys",), {"metavar": "FILE", "help": "workspace: key, JSON or YAML; without it any key is taken"}),
    Argument(
        ("--calls-per-hour",),
        {"type": int, "default": CALLS_PER_HOUR, "help": f"the limit of a workspace ({CALLS_PER_HOUR})"},
    ),
)


def sandbox(args: argparse.Namespace) -> int:
    """Run a vendor that stands in for the real one, until SIGTERM or Ctrl-C. Raises InputError for bad files."""
    try:
        script = load_script(args.script)
    except ScriptError as error:
        raise InputError([Problem("command line", "--script", args.script, str(error))]) from error
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
        raise InputError([Problem("command line", "--record", args.record, fix)]) from error


def _keys(path: str | None) -> dict[str, str]:
    if path is None:
        return {}
    try:
        found = yaml.safe_load(Path(path).read_text())
    except (OSError, yaml.YAMLError) as error:
        raise InputError([Problem("command line", "--keys", path, f"cannot be read: {error}")]) from error
    if not isinstance(found, dict) or not all(isinstance(key, str) and key for key in found.values()):
        raise InputError([Problem("command line", "--keys", path, "give workspace: key, the keys as texts")])
    return {str(workspace): key for workspace, key in found.items()}


def main(argv: list[str] | None = None) -> int:
    """The exit code of the command, run on its own."""
    parser = argparse.ArgumentParser(prog="campaigns sandbox", description=sandbox.__doc__, allow_abbrev=False)
    for argument in ARGUMENTS:
        parser.add_argument(*argument.names, **argument.settings)
    try:
        return sandbox(parse_words(parser, sys.argv[1:] if argv is None else argv))
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
