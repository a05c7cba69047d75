"""What rebatch is told on its command line, as Beam options and as a checked configuration."""

from __future__ import annotations

from argparse import ArgumentParser
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from apache_beam.options.pipeline_options import PipelineOptions

from pipelines.launch_options import add_once, missing_options, read_uri, small_options
from schemas.problems import InputError, Problem
from stores.ledger.open import LedgerUriError, open_ledger
from stores.transports.uri import FileUri, SubscriptionUri


class RebatchOptions(PipelineOptions):
    """The options of rebatch; every other option is Beam's."""

    @classmethod
    def _add_argparse_args(cls, parser: ArgumentParser) -> None:
        add_once(
            parser, "--campaigns", help="folder with engine.yaml: vendor, workspaces, pace; read again as it changes"
        )
        add_once(parser, "--events", help="file:DIR or pubsub:projects/P/subscriptions/S")
        add_once(
            parser,
            "--output",
            help="folder of this delivery: receipts, dead letters, ledger; used again by the next run",
        )
        parser.add_argument(
            "--ledger", help="sqlite:PATH or firestore:projects/P/databases/D/COLLECTION (OUTPUT/ledger.db)"
        )
        parser.add_argument("--drain", action="store_true", help="deliver what is there, then stop")
        parser.add_argument(
            "--idle", type=float, default=5.0, help="with --drain: seconds without a new event that end it (5)"
        )
        parser.add_argument(
            "--patience",
            type=float,
            default=60.0,
            help="seconds that an ending run waits for what makes no progress (60)",
        )
        parser.add_argument(
            "--ignore_times",
            action="store_true",
            help="for trying out: nothing waits until it is due, nothing has expired",
        )
        parser.add_argument("--readers", type=int, default=1, help="readers of the source (1)")


@dataclass(frozen=True)
class RebatchConfig:
    """The options, checked."""

    campaigns: Path
    events: FileUri | SubscriptionUri
    output: Path
    ledger: str
    drain: bool = False
    idle: float = 5.0
    patience: float = 60.0
    readers: int = 1
    ignore_times: bool = False

    @classmethod
    def of(cls, options: Any) -> RebatchConfig:
        """The configuration of parsed options. Raises InputError with all that is wrong with them."""
        problems = missing_options(options, "rebatch", ("campaigns", "events", "output"))
        events = _events(options.events, problems) if options.events else None
        ledger = options.ledger or f"sqlite:{options.output}/ledger.db"
        try:
            open_ledger(ledger)
        except LedgerUriError as error:
            problems.append(Problem("command line", "--ledger", ledger, str(error)))
        problems += small_options(options, {"idle": 0.1, "patience": 0.0, "readers": 1})
        if problems or events is None:
            raise InputError(problems)
        return cls(
            campaigns=Path(options.campaigns).absolute(),
            events=events,
            output=Path(options.output).absolute(),
            ledger=ledger,
            drain=bool(options.drain),
            idle=options.idle,
            patience=options.patience,
            readers=options.readers,
            ignore_times=bool(options.ignore_times),
        )


def _events(text: str, problems: list[Problem]) -> FileUri | SubscriptionUri | None:
    fix = "events are read from file:DIR or pubsub:projects/P/subscriptions/S"
    uri = read_uri(text, (FileUri, SubscriptionUri), fix, problems)
    return uri if isinstance(uri, FileUri | SubscriptionUri) else None
