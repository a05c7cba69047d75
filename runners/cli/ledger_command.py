"""The command `campaigns ledger`: its arguments, and its actions."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

from connectors.kafka.options import read_time
from pipelines.operations.ledger import operate
from pipelines.operations.ledger.rebuild import rebuild
from pipelines.operations.ledger.reconcile import reconcile
from runners.cli.arguments import JSON, argument, problem, repeated
from runners.cli.output import show_progress, write_result
from runners.cli.text import ledger as text
from schemas.problems import InputError, Problem

LEDGER = (
    argument(
        "action",
        choices=("show", "cancel", "reopen", "reconcile", "rebuild"),
        help="show: count events by state and outcome. cancel: end the unsent events of a campaign. reopen: let "
        "unknown events be sent again. reconcile: settle unknown events by the vendor's list. rebuild: make a lost "
        "ledger again from the receipts",
    ),
    argument("output", metavar="OUTPUT", help="the --output folder of the delivery"),
    argument("--ledger", help="the --ledger of its rebatch command, if that had one (sqlite:OUTPUT/ledger.db)"),
    argument("--launch", help="cancel: the --output folder of the launch"),
    argument("--campaign", help="cancel, reopen, reconcile: only this campaign"),
    repeated("--retailer", help="all but rebuild: only this retailer; may be repeated"),
    argument(
        "--accepted",
        metavar="FILE",
        help="reconcile: the event ids that the vendor accepted: one a line, or CSV or NDJSON with event_id",
    ),
    argument("--as-of", metavar="TIME", help="reconcile: when that list was made (when FILE was last changed)"),
    argument(
        "--allow-foreign-ids",
        action="store_true",
        help="reconcile: accept a list of which most ids are of other deliveries",
    ),
    repeated(
        "--receipts",
        metavar="DIR",
        help="rebuild, reconcile: receipts that were moved out of OUTPUT/receipts; may be repeated",
    ),
    argument(
        "--move-aside", action="store_true", help="rebuild: rename a ledger that exists, which is refused otherwise"
    ),
    JSON,
)
_MEANT_FOR = {
    "launch": ("cancel",),
    "campaign": ("cancel", "reopen", "reconcile"),
    "retailer": ("show", "cancel", "reopen", "reconcile"),
    "accepted": ("reconcile",),
    "as_of": ("reconcile",),
    "allow_foreign_ids": ("reconcile",),
    "receipts": ("rebuild", "reconcile"),
    "move_aside": ("rebuild",),
}


def ledger(args: argparse.Namespace) -> int:
    """Run an action; 0. Raises InputError for mistakes in the arguments."""
    problems = [
        _problem(name, str(getattr(args, name)), f"is not for `{args.action}`, only for {', '.join(actions)}")
        for name, actions in _MEANT_FOR.items()
        if getattr(args, name) and args.action not in actions
    ]
    if problems:
        raise InputError(problems)
    _ACTIONS[args.action](args)
    return 0


def _show(args: argparse.Namespace) -> None:
    view = operate.show(args.output, args.ledger, args.retailer)
    write_result(args, view, text.show_lines(view))


def _cancel(args: argparse.Namespace) -> None:
    fix = "cancel needs both: --launch, the --output folder of the launch, and --campaign, which campaign to cancel"
    missing = [name for name in ("launch", "campaign") if getattr(args, name) is None]
    if missing:
        raise InputError([_problem(name, "missing", fix) for name in missing])

    def progress(done: int, whole: int) -> None:
        show_progress(f"{done:,} of {whole:,} events" if done < whole else "")

    result = operate.cancel(args.output, args.ledger, args.launch, args.campaign, args.retailer, progress)
    write_result(args, result, text.cancel_lines(result))


def _reopen(args: argparse.Namespace) -> None:
    count = operate.reopen(args.output, args.ledger, args.campaign, args.retailer)
    write_result(args, {"reopened": count}, text.reopen_lines(count))


def _reconcile(args: argparse.Namespace) -> None:
    problems = []
    if args.accepted is None:
        problems.append(_problem("accepted", "missing", "name the file with the event ids that the vendor accepted"))
    as_of = read_time(args.as_of) if args.as_of else None
    if args.as_of and as_of is None:
        problems.append(_problem("as_of", args.as_of, "write a time with its zone, such as 2026-04-01T09:00Z"))
    if as_of is not None and as_of > time.time() * 1000:
        problems.append(_problem("as_of", args.as_of, "is in the future; give the time at which the list was made"))
    if problems:
        raise InputError(problems)
    foreign = args.allow_foreign_ids
    result = reconcile(
        args.output, args.ledger, args.accepted, as_of, args.campaign, args.retailer, args.receipts, foreign
    )
    write_result(args, result, text.reconcile_lines(result))


def _rebuild(args: argparse.Namespace) -> None:
    result = rebuild(args.output, args.receipts, args.ledger, args.move_aside, show_progress)
    show_progress("")
    write_result(args, result, text.rebuild_lines(result))


def _problem(name: str, value: str, fix: str) -> Problem:
    return problem(f"--{name.replace('_', '-')}", value, fix)


_ACTIONS: dict[str, Callable[[argparse.Namespace], None]] = {
    "show": _show,
    "cancel": _cancel,
    "reopen": _reopen,
    "reconcile": _reconcile,
    "rebuild": _rebuild,
}
