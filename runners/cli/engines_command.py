"""The command `campaigns engines`: list the engines, brokers and emulators, or explain the options of an engine."""

from __future__ import annotations

import argparse

from rich.console import Console
from rich.table import Table

from pipelines.command_line.exit_codes import EXIT_CODES, Ending
from pipelines.engines.presets import PRESETS
from runners.cli.arguments import JSON, argument, problem
from runners.cli.output import write_result
from runners.local.inventory import INVENTORY, Status, check_parts
from schemas.problems import InputError

PROBE_S = 10.0
ENGINES = (
    argument("names", nargs="*", metavar="NAME", help=f"{', '.join(INVENTORY)} (all of them)"),
    argument("--no-probe", action="store_true", help="look for each, do not try it"),
    argument("--seconds", type=float, default=PROBE_S, help=f"time limit of a probe ({PROBE_S:g})"),
    argument("--explain", action="store_true", help="show the options that --on NAME sets, each with its reason"),
    JSON,
)


def engines(args: argparse.Namespace) -> int:
    """List the parts; 1 when one that was named is missing or does not work. Raises InputError."""
    known = PRESETS if args.explain else INVENTORY
    problems = [problem("NAME", name, f"must be one of {', '.join(known)}") for name in args.names if name not in known]
    if not args.seconds > 0:
        problems.append(problem("--seconds", str(args.seconds), "must be more than 0"))
    if problems:
        raise InputError(problems)
    names = list(dict.fromkeys(args.names or known))
    if args.explain:
        print("\n\n".join(map(explain, names)))
        return 0
    parts = check_parts(names, None if args.no_probe else args.seconds)
    if args.json:
        write_result(args, parts, [])
    else:
        _print_table(parts)
    failed = bool(args.names) and any(part.state in ("missing", "fails") for part in parts)
    return EXIT_CODES[Ending.CHECK_FAILED if failed else Ending.DONE]


def explain(name: str) -> str:
    """The options of a preset, each with its reason."""
    preset = PRESETS[name]
    lines = [f"--on {name}: {preset.what}"]
    for title, flags in (("", preset.flags), ("rebatch, too:", preset.streaming)):
        lines += [f"  {title}"] if title and flags else []
        lines += [f"  {flag.option}\n      {flag.why}" for flag in flags]
    return "\n".join(lines)


def _print_table(parts: list[Status]) -> None:
    table = Table(box=None, pad_edge=False)
    for title in ("name", "what", "version", "state", "where, or what to do"):
        table.add_column(title, overflow="fold")
    for part in parts:
        where = f"{part.path}\n{part.detail}".strip()
        table.add_row(part.name, part.kind, part.version, part.state, where)
    Console(highlight=False, markup=False).print(table)
