"""The quarantine of an event store: what is in it, and its events again, after their cause is corrected."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Set
from pathlib import Path

import msgspec
import orjson

from connectors.kafka.client import KafkaClient
from connectors.log.segments import LogSettings
from connectors.open import existing_logs, open_event_store
from connectors.uri import StoreUri, store_uri
from pipelines.collect.factories import keep
from pipelines.collect.options import PARTITIONS
from pipelines.launch.options import read_uri
from pipelines.operations.ledger.names import find_unknown
from schemas.contracts import DeadLetter
from schemas.events.event_types import load_event_types
from schemas.problems import InputError, Problem
from stores.events.fuse import read_fuse
from stores.events.quarantine import quarantine_files, quarantined_types, replace_quarantined
from transforms.collect.append_events import EventStore
from transforms.collect.decode_events import Types, decode_events, envelope_of
from transforms.collect.elements import event_ids

Progress = Callable[[int], None]


class Kept(msgspec.Struct):
    """Events in quarantine of a type and version (0: unknown), by the rule that they broke, with one reason of them."""

    type: str
    version: int
    rule: str
    events: int
    reason: str


class QuarantineView(msgspec.Struct):
    """What is in quarantine, and the reasons of the fuses that have blown, by type."""

    kept: list[Kept]
    fuses: dict[str, str]


class Replayed(msgspec.Struct):
    """The events of a quarantine that were read again: appended, there already, dropped by a rule, and still in
    quarantine, by the rule."""

    appended: int
    repeats: int
    dropped: int
    quarantined: dict[str, int]


def show_quarantine(store: str, output: str | None) -> QuarantineView:
    """What is in quarantine. Raises InputError for a store that cannot be read."""
    home = _home(_store(store), output)
    counts: Counter[tuple[str, int, str]] = Counter()
    reasons: dict[tuple[str, int, str], str] = {}
    for name in quarantined_types(home):
        for _, letters in quarantine_files(home, name):
            for letter in letters:
                key = (name, int(orjson.loads(letter.trace)["version"]), letter.reason)
                counts[key] += 1
                reasons.setdefault(key, letter.detail)
    kept = [Kept(*key, counts[key], reasons[key]) for key in sorted(counts)]
    found = {path.parent.name: read_fuse(home, path.parent.name) for path in sorted(Path(home).glob("*/fuse.json"))}
    return QuarantineView(kept, {name: fuse.reason for name, fuse in found.items() if fuse is not None})


def replay_quarantine(
    store: str,
    output: str | None,
    types_folder: str | None,
    types: Set[str],
    rules: Set[str],
    client: KafkaClient,
    progress: Progress = lambda read: None,
) -> Replayed:
    """Reads the events in quarantine again, of these types and rules (empty: of all), and appends those that are let in
    now; the others stay. `progress` gets the number read. Raises InputError for a store, a type or a rule that cannot
    be used, JobError when the store cannot be written; the same command then goes on.
    """
    uri = _store(store)
    home = _home(uri, output)
    known = quarantined_types(home)
    view = show_quarantine(store, output)
    where = f"the quarantine of {home}"
    problems = find_unknown("--event-type", types, known, where)
    problems += find_unknown("--rule", rules, [one.rule for one in view.kept], where)
    if problems:
        raise InputError(problems)
    loaded = load_event_types(types_folder)
    settings = existing_logs(uri, {name: LogSettings(PARTITIONS, one.retention_ms) for name, one in loaded.items()})
    target: EventStore = open_event_store(uri, client, settings)
    result, read = Replayed(0, 0, 0, {}), 0
    target.open()
    try:
        for name in known:
            if types and name not in types:
                continue
            for path, letters in quarantine_files(home, name):
                _replay_file(path, name, letters, rules, Types(loaded), target, home, result)
                progress(read := read + len(letters))
    finally:
        target.close()
    return result


def _replay_file(
    path: str,
    name: str,
    letters: list[DeadLetter],
    rules: Set[str],
    types: Types,
    target: EventStore,
    home: str,
    result: Replayed,
) -> None:
    """Replays one file. Its letters leave it when all that became of them is safe: after a crash some come again, and
    their ids are known."""
    chosen = list(dict.fromkeys(letter for letter in letters if not rules or letter.reason in rules))
    decoded = decode_events([envelope_of(letter) for letter in chosen], int(time.time() * 1000), types)
    appended = target.append(decoded.events, event_ids(decoded.events))
    if refused := target.settle():
        reasons = sorted({reason for _, reason in refused})
        fix = f"the store refuses {len(refused)} of its events ({reasons[0]}); leave their rule out by --rule"
        raise InputError([Problem(path, "", "refused", fix)])
    stay = [letter for letter in letters if rules and letter.reason not in rules]
    stay += [one.letter for one in decoded.quarantined if one.type == name]
    if moved := [one for one in decoded.quarantined if one.type != name]:
        keep(home, moved)
    if stay != letters:
        replace_quarantined(path, stay)
    result.appended += appended
    result.repeats += len(decoded.events) - appended
    result.dropped += sum(count for (outcome, *_), count in decoded.counts.items() if outcome == "dropped")
    for one in decoded.quarantined:
        result.quarantined[one.letter.reason] = result.quarantined.get(one.letter.reason, 0) + 1


def _store(text: str) -> StoreUri:
    problems: list[Problem] = []
    uri = read_uri(store_uri, text, problems, "STORE")
    if uri is None:
        raise InputError(problems)
    return uri


def _home(uri: StoreUri, output: str | None) -> str:
    home = uri.folder or output
    if not home or not Path(home).is_dir():
        fix = "give the --output of collect, where its quarantine is" if uri.folder is None else "is no folder"
        raise InputError([Problem("command line", "--output" if uri.folder is None else "STORE", str(home), fix)])
    return home
