"""Replay: dead letters, or all that was published between two times, are published again, bytes verbatim."""

from __future__ import annotations

import sys
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import orjson

from connectors.files.reader import list_files
from connectors.files.replay import fits_file
from connectors.gcs import is_remote
from connectors.kafka.client import KafkaClient
from connectors.open import open_publisher, read_between
from connectors.uri import SinkUri, SourceUri, UriError, sink_uri, source_uri
from pipelines.operations.ledger.names import find_unknown
from pipelines.operations.ledger.opened import existing_ledger, opened_ledger
from schemas.contracts import ContractError, DeadLetter, decode, resolve
from schemas.delivery import LEDGER_STEP, DeliveryLedger
from schemas.problems import InputError, Problem
from stores.dead_letters import read_dead_letters
from stores.ledger.identity import reopen_events
from stores.ledger.open import LedgerUriError, open_ledger
from transforms.delivery.decode_events import STEP as DECODE
from transforms.delivery.decode_events import dead_id
from transforms.delivery.receipts import STEP as DELIVER


class Replayed(NamedTuple):
    """How many messages were published again, and how many were left, and of what kind those are."""

    published: int
    left: int
    kind: str = "letters"

    def __str__(self) -> str:
        return f"{self.published:,} messages published again, {self.left:,} {self.kind} left out"


def replay(
    folder: str, events: str, ledger: str | None, reasons: set[str], client: KafkaClient | None = None
) -> Replayed:
    """Publishes the messages of a delivery's dead letters: those that could not be decoded, and refused ones.

    With `ledger` the refused events may be sent again; without it the ledger goes on saying that they are settled.
    Raises InputError for what cannot be read or published to, a reason that no letter has, and a ledger that is not
    there or is another than that of the output folder in which the letters lie.
    """
    target = _target(events, ledger)
    if not is_remote(folder) and not Path(folder).is_dir():
        fix = "is no folder; give the one that holds the dead letters, dead_letters/ in the --output of the delivery"
        raise InputError([Problem("command line", "SOURCE", folder, fix)])
    letters = [letter for path in list_files(folder.rstrip("/")) for letter in read_dead_letters(path)]
    reasons_there = [one.reason for one in letters if _wanted(one, set())]
    if problems := find_unknown("--reason", reasons, reasons_there, f"the dead letters of {folder}"):
        raise InputError(problems)
    chosen = {dead_id(one): one for one in letters if _wanted(one, reasons)}
    if target.folder is not None:
        _check_for_files(list(chosen.values()))
    with _opened(ledger, str(Path(folder.rstrip("/")).parent)) as book:
        _reopen(book, [name if one.step == DECODE else _attributes(one)["event_id"] for name, one in chosen.items()])
    if not chosen:
        return Replayed(0, len(letters))
    token = {} if target.folder is not None else {"replay": uuid.uuid4().hex[:12]}
    part = dead_id(next(iter(chosen.values())))[5:]
    with open_publisher(target, client or KafkaClient(), part) as publish:
        accepted = publish([(one.data, {**_attributes(one), **token}) for one in chosen.values()])
    return Replayed(accepted, len(letters) - accepted)


def replay_between(
    source: str, events: str, since: int, until: int, ledger: str | None, client: KafkaClient
) -> Replayed:
    """Publishes again what was published to a transport from `since` on and before `until` (epoch ms).

    Whoever was reached stays so: the ledger knows. With `ledger` the rejected and dead may be sent again; unknown ones
    may have been sent, and stay (`campaigns ledger reconcile` or `reopen`).
    Messages that the target cannot hold are left. Raises InputError for what cannot be read or published to, and for a
    ledger that is not there.
    """
    target = _target(events, ledger)
    origin = _source(source, target)
    token = {} if target.folder is not None else {"replay": uuid.uuid4().hex[:12]}
    read = accepted = 0
    with _opened(ledger) as book, open_publisher(target, client) as publish:
        for envelopes, dealt_with in read_between(origin, client, since, until):
            messages = [(one.body, {**one.attributes, **token}) for one in envelopes]
            if target.folder is not None:
                messages = [one for one in messages if fits_file(one)]
            _reopen(book, [attributes["event_id"] for _, attributes in messages if attributes.get("event_id")])
            accepted += publish(messages) if messages else 0
            read += len(envelopes)
            dealt_with()
            print(f"{read:,} messages read", end="\r", file=sys.stderr, flush=True)
    return Replayed(accepted, read - accepted, "messages")


def _target(events: str, ledger: str | None) -> SinkUri:
    """Where to publish. Raises InputError for a target or a ledger whose URI cannot be read."""
    problems = []
    try:
        target = sink_uri(events)
    except UriError as error:
        problems.append(Problem("command line", "--events", events, str(error)))
    try:
        if ledger:
            open_ledger(ledger)
    except LedgerUriError as error:
        problems.append(Problem("command line", "--ledger", ledger or "", str(error)))
    if problems:
        raise InputError(problems)
    return target


@contextmanager
def _opened(ledger: str | None, output: str | None = None) -> Iterator[DeliveryLedger | None]:
    """The ledger, open; None if none is given. It must be that of the output folder, if that has one."""
    if ledger is None:
        yield None
        return
    with existing_ledger(ledger) if output is None else opened_ledger(output, ledger) as book:
        yield book


def _source(text: str, target: SinkUri) -> SourceUri:
    """Where the messages are read from."""
    try:
        uri = source_uri(text)
    except UriError as error:
        raise InputError([Problem("command line", "SOURCE", text, str(error))]) from error
    if uri.folder is not None and uri == target:
        fix = "is where the events go as well; name another folder, or let rebatch read this one again"
        raise InputError([Problem("command line", "SOURCE", text, fix)])
    return uri


def _reopen(ledger: DeliveryLedger | None, names: Sequence[str]) -> None:
    """Lets the rejected and the dead among these be sent again."""
    if ledger is None:
        return
    for start in range(0, len(names), LEDGER_STEP):
        outcomes = ledger.find(names[start : start + LEDGER_STEP])
        again = [name for name, outcome in outcomes.items() if outcome in ("rejected", "dead")]
        reopen_events(ledger, again, int(time.time() * 1000))


def _wanted(letter: DeadLetter, reasons: set[str]) -> bool:
    return letter.step in (DECODE, DELIVER) and (not reasons or letter.reason in reasons)


def _check_for_files(letters: list[DeadLetter]) -> None:
    """Raises InputError for letters that a file cannot hold: one broken record makes all of it unreadable."""
    problems = []
    for letter in letters:
        mark = _attributes(letter).get("schema", "")
        try:
            resolve(mark)
        except ContractError:
            fix = "a file holds records of a schema we know; replay to a topic, pubsub: or kafka:, or upgrade first"
            problems.append(Problem("dead letters", "schema", mark, fix))
            continue
        try:
            decode(mark, letter.data)
        except ContractError:
            fix = "a file holds whole records; replay to a topic, pubsub: or kafka:, or name other letters by --reason"
            problems.append(Problem("dead letters", letter.reason, letter.source, fix))
    if problems:
        raise InputError(problems)


def _attributes(letter: DeadLetter) -> dict[str, str]:
    return dict(orjson.loads(letter.trace))
