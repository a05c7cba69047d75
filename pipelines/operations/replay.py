"""Replay: publish dead letters again, or all messages between two times, bytes verbatim."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec
import orjson

from connectors.files.reader import list_files
from connectors.files.replay import fits_file
from connectors.gcs import is_remote
from connectors.kafka.client import KafkaClient
from connectors.open import open_publisher, read_between
from connectors.uri import SinkUri, SourceUri, sink_uri, source_uri
from pipelines.launch.options import read_uri
from pipelines.operations.ledger.names import find_unknown
from pipelines.operations.ledger.opened import existing_ledger, opened_ledger
from schemas.contracts import ContractError, DeadLetter, decode, resolve
from schemas.delivery import DeliveryLedger, ledger_steps
from schemas.problems import InputError, Problem
from stores.dead_letters import read_dead_letters
from stores.ledger.identity import reopen_events
from stores.ledger.open import open_ledger
from transforms.delivery.decode_events import STEP as DECODE
from transforms.delivery.decode_events import dead_id
from transforms.delivery.receipts import STEP as DELIVER

Progress = Callable[[int], None]


class Replayed(msgspec.Struct):
    """The number of messages published again, and of those left out, with the kind of those."""

    published: int
    left_out: int
    kind: str = "letters"


def replay(folder: str, events: str, ledger: str | None, reasons: set[str], client: KafkaClient) -> Replayed:
    """Publish the messages of a delivery's dead letters: those that could not be decoded, and those that were refused.

    With `ledger` the refused events may be sent again; without it they stay settled there. Raises InputError for a
    folder, a target or a ledger that cannot be used, for a reason that no letter has, and for a ledger of another
    delivery than the letters.
    """
    target = _target(events, ledger)
    if not is_remote(folder) and not Path(folder).is_dir():
        fix = "is no folder; give the one that holds the dead letters, dead_letters/ in the --output of the delivery"
        raise InputError([Problem("command line", "SOURCE", folder, fix)])
    letters = [letter for path in list_files(folder.rstrip("/")) for letter in read_dead_letters(path)]
    known = [letter.reason for letter in letters if _wanted(letter, set())]
    if problems := find_unknown("--reason", reasons, known, f"the dead letters of {folder}"):
        raise InputError(problems)
    chosen = {dead_id(letter): letter for letter in letters if _wanted(letter, reasons)}
    if target.folder is not None:
        _check_for_files(list(chosen.values()))
    with _opened(ledger, str(Path(folder.rstrip("/")).parent)) as opened:
        ids = [key if letter.step == DECODE else _attributes(letter)["event_id"] for key, letter in chosen.items()]
        _reopen(opened, ids)
    if not chosen:
        return Replayed(0, len(letters))
    token = {} if target.folder is not None else {"replay": uuid.uuid4().hex[:12]}
    part = dead_id(next(iter(chosen.values())))[5:]
    with open_publisher(target, client, part) as publish:
        accepted = publish([(letter.data, {**_attributes(letter), **token}) for letter in chosen.values()])
    return Replayed(accepted, len(letters) - accepted)


def replay_between(
    source: str, events: str, since: int, until: int, ledger: str | None, client: KafkaClient, progress: Progress
) -> Replayed:
    """Publish again the messages of a transport from `since` on and before `until` (epoch ms).

    Events that were accepted are not sent again: the ledger knows them. With `ledger` the rejected and dead ones may
    be; unknown ones may have been sent, and stay (`campaigns ledger reconcile` or `reopen`). Messages that the target
    cannot hold are left out. `progress` gets the number read. Raises InputError for a source, a target or a ledger that
    cannot be used.
    """
    target = _target(events, ledger)
    origin = _source(source, target)
    token = {} if target.folder is not None else {"replay": uuid.uuid4().hex[:12]}
    read = accepted = 0
    with _opened(ledger) as opened, open_publisher(target, client) as publish:
        for envelopes, acknowledge in read_between(origin, client, since, until):
            messages = [(envelope.body, {**envelope.attributes, **token}) for envelope in envelopes]
            if target.folder is not None:
                messages = [message for message in messages if fits_file(message)]
            _reopen(opened, [attributes["event_id"] for _, attributes in messages if attributes.get("event_id")])
            accepted += publish(messages) if messages else 0
            read += len(envelopes)
            acknowledge()
            progress(read)
    return Replayed(accepted, read - accepted, "messages")


def _target(events: str, ledger: str | None) -> SinkUri:
    """Where to publish. Raises InputError for a target or a ledger whose URI cannot be read."""
    problems = list[Problem]()
    target = read_uri(sink_uri, events, problems)
    if ledger:
        read_uri(open_ledger, ledger, problems, "--ledger")
    if target is None or problems:
        raise InputError(problems)
    return target


@contextmanager
def _opened(ledger: str | None, output: str | None = None) -> Iterator[DeliveryLedger | None]:
    """The open ledger, or None if none is given; the one of the output folder, if that has one."""
    if ledger is None:
        yield None
        return
    with existing_ledger(ledger) if output is None else opened_ledger(output, ledger) as opened:
        yield opened


def _source(text: str, target: SinkUri) -> SourceUri:
    """Where the messages are read from."""
    problems = list[Problem]()
    uri = read_uri(source_uri, text, problems, "SOURCE")
    if uri is not None and uri.folder is not None and uri == target:
        fix = "is where the events go as well; name another folder, or let rebatch read this one again"
        problems.append(Problem("command line", "SOURCE", text, fix))
    if uri is None or problems:
        raise InputError(problems)
    return uri


def _reopen(ledger: DeliveryLedger | None, ids: Sequence[str]) -> None:
    """Let the rejected and dead ones of these events be sent again."""
    if ledger is None:
        return
    for step in ledger_steps(ids):
        outcomes = ledger.find(step)
        refused = [event_id for event_id, outcome in outcomes.items() if outcome in ("rejected", "dead")]
        reopen_events(ledger, refused, int(time.time() * 1000))


def _wanted(letter: DeadLetter, reasons: set[str]) -> bool:
    return letter.step in (DECODE, DELIVER) and (not reasons or letter.reason in reasons)


def _check_for_files(letters: list[DeadLetter]) -> None:
    """Raises InputError for letters that a file cannot hold: one broken record makes all of it unreadable."""
    problems = []
    for letter in letters:
        schema = _attributes(letter).get("schema", "")
        try:
            resolve(schema)
        except ContractError:
            fix = "a file holds records of a schema we know; replay to a topic, pubsub: or kafka:, or upgrade first"
            problems.append(Problem("dead letters", "schema", schema, fix))
            continue
        try:
            decode(schema, letter.data)
        except ContractError:
            fix = "a file holds whole records; replay to a topic, pubsub: or kafka:, or name other letters by --reason"
            problems.append(Problem("dead letters", letter.reason, letter.source, fix))
    if problems:
        raise InputError(problems)


def _attributes(letter: DeadLetter) -> dict[str, str]:
    return dict(orjson.loads(letter.trace))
