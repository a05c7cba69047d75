"""Replay dead letters: the messages they hold are published again, bytes verbatim."""

from __future__ import annotations

import uuid
from typing import NamedTuple

import orjson
import pyarrow as pa

from schemas.contracts import ContractError, DeadLetter, decode, resolve
from schemas.problems import InputError, Problem
from stores.ledger.open import LedgerUriError, open_ledger
from stores.transports.dead_letters import read_dead_letters
from stores.transports.file_reader import list_files
from stores.transports.files import FileSink
from stores.transports.publish_requests import publish_requests, pubsub_messages
from stores.transports.pubsub import PubsubPublisher
from stores.transports.uri import FileUri, TopicUri, UriError, sink_uri
from transforms.rebatch.decode import STEP as DECODE
from transforms.rebatch.decode import dead_id
from transforms.rebatch.outcomes import STEP as DELIVER


class Replayed(NamedTuple):
    """How many letters were published again, and how many were left: of other steps or reasons."""

    published: int
    left: int

    def __str__(self) -> str:
        return f"{self.published:,} messages published again, {self.left:,} letters left"


def replay(folder: str, events: str, ledger: str | None, reasons: set[str]) -> Replayed:
    """Publishes the messages of a delivery's dead letters: those that could not be decoded, and refused ones.

    With `ledger` the refused events may be sent again; without it the ledger goes on saying that they are settled.
    Raises InputError for what cannot be read or published to.
    """
    try:
        target = sink_uri(events)
        book = open_ledger(ledger) if ledger else None
    except (UriError, LedgerUriError) as error:
        raise InputError([Problem("command line", "--events or --ledger", events, str(error))]) from error
    letters = [letter for path in list_files(folder.rstrip("/")) for letter in read_dead_letters(path)]
    chosen = {dead_id(one): one for one in letters if _wanted(one, reasons)}
    if isinstance(target, FileUri):
        _check_for_files(list(chosen.values()))
    if book is not None:
        book.open()
        names = [name if one.step == DECODE else _attributes(one)["event_id"] for name, one in chosen.items()]
        for start in range(0, len(names), 500):
            book.reopen(names[start : start + 500])
        book.close()
    _publish(target, list(chosen.values()))
    return Replayed(len(chosen), len(letters) - len(chosen))


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
            fix = "a file holds records of a schema we know; replay to a pubsub: topic, or upgrade first"
            problems.append(Problem("dead letters", "schema", mark, fix))
            continue
        try:
            decode(mark, letter.data)
        except ContractError:
            fix = "a file holds whole records; replay to a pubsub: topic, or name other letters by --reason"
            problems.append(Problem("dead letters", letter.reason, letter.source, fix))
    if problems:
        raise InputError(problems)


def _attributes(letter: DeadLetter) -> dict[str, str]:
    return dict(orjson.loads(letter.trace))


def _publish(target: FileUri | TopicUri, letters: list[DeadLetter]) -> None:
    by_schema: dict[str, list[DeadLetter]] = {}
    for letter in letters:
        by_schema.setdefault(_attributes(letter).get("schema", ""), []).append(letter)
    if isinstance(target, FileUri):
        for mark, some in by_schema.items():
            bodies = pa.array([letter.data for letter in some], pa.large_binary())
            FileSink(target.directory).write(f"replay-{dead_id(some[0])[5:]}", resolve(mark), bodies)
        return
    token = uuid.uuid4().hex[:12]
    with PubsubPublisher(target.path) as publisher:
        for letter in letters:
            values = {name: pa.array([value]) for name, value in {**_attributes(letter), "replay": token}.items()}
            bodies = pa.array([letter.data], pa.large_binary())
            publisher.submit(publish_requests(target.path, pubsub_messages(bodies, values)).requests)
        publisher.settle()
