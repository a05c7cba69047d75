"""Send odd events among good ones through the whole job: none of them harms a good one.

    python -m bench.fuzz [--seed 7]

Values, bytes and attributes of events are changed by chance, each next to a good event, in files and in a spool (as from
a broker). The job must end with exit code 0, every good event be accepted once, and every odd event be found in one
counted place: as a dead letter, accepted, rejected, expired, or left waiting until it is due.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import random
import shutil
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import fastavro

from bench.deliveries import start_rebatch, wait, write_campaigns
from bench.fuzz_parts import Part, write_events, write_spool
from bench.mutations import Mutations
from pipelines.engines.presets import BUILT_IN
from pipelines.operations.ledger.guard import guard_ledger
from runners.sandbox.process import running_sandbox
from schemas.contracts import EVENT, parsed, schema
from stores.dead_letters import read_dead_letters
from stores.deliveries.delivery_folder import DeliveryFolder
from stores.deliveries.receipts import open_receipts

PART = 7_000  # odd events of one run, with as many neighbours: the built-in engine takes no more than 20,000 events
_ENDS = ("dead_lettered", "already_settled", "repeats", "accepted", "rejected", "expired", "unknown", "left_waiting")
TEMPLATE = """Dear {{ name }}{% for offer in offers %}, {{ offer.code | append: offer.expires_at }}{% endfor %}
{% if size %}{{ 10 | divided_by: size }}{% endif %}{{ size | times: size | round: 2 }}"""
Say = Callable[[str], None]


@dataclass
class Found:
    """What came out of all runs."""

    mutated: int = 0
    neighbours: int = 0
    dead_lettered: Counter[str] = field(default_factory=Counter)
    rejected: Counter[str] = field(default_factory=Counter)
    ends: Counter[str] = field(default_factory=Counter)
    exit_codes: Counter[str] = field(default_factory=Counter)
    neighbours_missing: list[str] = field(default_factory=list)
    accepted_twice: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    in_two_places: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """Counts, and the first examples of what is wrong."""
        counts = {"accepted": 0, "expired": 0, "left_waiting": 0, "unknown": 0} | self.ends
        lists = {
            name: getattr(self, name) for name in ("neighbours_missing", "accepted_twice", "lost", "in_two_places")
        }
        return {
            "mutated": self.mutated,
            "neighbours": self.neighbours,
            "dead_lettered": dict(self.dead_lettered.most_common()),
            "rejected": dict(self.rejected.most_common()),
            **counts,
            **{name: len(value) for name, value in lists.items()},
            "exit_codes": dict(self.exit_codes),
            "wrong": [*self.wrong, *(f"{name}: {one}" for name, some in lists.items() for one in some)][:20],
        }


def sound(found: dict[str, Any]) -> bool:
    """Whether every job ended well and nobody was hurt."""
    return not found["wrong"] and list(found["exit_codes"]) == ["0"]


def _campaigns(folder: Path, url: str, vendor: str) -> Path:
    """A campaigns' folder for a vendor, whose template odd events can break."""
    own: dict[str, Any] = {"templates": {"plain": "plain.liquid"}}
    if vendor == "webhook":
        own["url"] = f"{url}/w/{{retailer}}/webhook"
    delivery = {"vendor": vendor, "timeout": "PT15S", "lease": "PT20S", "wait": "PT0.3S"}
    made = write_campaigns(folder / vendor, url, delivery, {"*": own})
    (made / "plain.liquid").write_text(TEMPLATE)
    return made


class Fuzz:
    """Runs of the job over parts of odd events, and what comes of them."""

    def __init__(self, folder: Path, url: str, seed: int, accepted: Callable[[], dict[str, int]], say: Say) -> None:
        self._folder, self._accepted, self._say = folder, accepted, say
        self._source = Mutations(seed, int(time.time() * 1000))
        self._campaigns = [_campaigns(folder, url, vendor) for vendor in ("braze", "webhook")]
        self._known: dict[str, int] = {}
        self.found = Found()

    def part(self, number: int, count: int, transport: str) -> None:
        """One part, twice: a start that failed would fail again, and the second run must send nothing. Two parts go to
        the one vendor, two to the other."""
        campaigns = self._campaigns[number // 2 % 2]
        here = self._folder / f"{number:03d}-{transport}"
        events, output = here / "events", here / "out"
        DeliveryFolder(output).prepare()
        guard_ledger(str(output), DeliveryFolder(output).ledger)  # a spool without its ledger would be refused
        part = (
            write_events(events, self._source, count)
            if transport == "file"
            else write_spool(output / "spool", self._source, count)
        )
        self._run(campaigns, events, output, here / "log")
        before = self._accepted()
        self._judge(part, output, before)
        self._run(campaigns, events, output, here / "log")
        if self._accepted() != before:
            self.found.wrong.append(f"{here.name}: the second run sent something")
        self._known = before
        if not self.found.as_json()["wrong"] and not os.environ.get("KEEP"):
            shutil.rmtree(here)

    def _run(self, campaigns: Path, events: Path, output: Path, log: Path) -> None:
        job = start_rebatch(
            campaigns, f"file:{events}", output, "--drain", "--patience=5", f"--runner={BUILT_IN}", log=log
        )
        code = wait(job, 1_200)
        self.found.exit_codes[str(code)] += 1
        self._say(f"{output.parent.name}: exit code {code}")
        if code != 0:
            job.kill()
            self.found.wrong.append(f"{log}: exit code {code}")
            return
        summary = json.loads((output / "summary.json").read_text())
        if summary["read"] != sum(summary[name] for name in _ENDS) or summary["missing"]:
            self.found.wrong.append(f"{log}: the counts do not add up: {summary}")

    def _judge(self, part: Part, output: Path, accepted: dict[str, int]) -> None:
        """Looks for every event of a part in what the job left."""
        found, outcomes = self.found, _outcomes(output)
        letters, refused = _letters(output)
        found.mutated += len(part.odd)
        found.neighbours += len(part.good)
        new = {name: times for name, times in accepted.items() if name not in self._known}
        found.neighbours_missing += [
            one for one in part.good if not new.get(one) or outcomes.get(one) != ("accepted", None)
        ]
        found.accepted_twice += [name for name, times in new.items() if times > 1]
        told = {name for name, (outcome, _) in outcomes.items() if outcome == "accepted"}
        if told != set(new):
            found.wrong.append(f"{output}: receipts and vendor differ in {len(told ^ set(new))} events")
        now = int(time.time() * 1000)
        for name, mutant in part.odd.items():
            event = _event_of(mutant.body)
            outcome, reason = outcomes.get(str(event.get("event_id")), ("", None))
            places = [*(["dead_lettered"] if name in letters else []), *([outcome] if outcome else [])]
            if not places and event.get("deliver_after", 0) > now:
                places = ["left_waiting"]
            if name in letters:
                found.dead_lettered[letters[name][0][0]] += 1
                if mutant.body not in [data for _, data in letters[name]] and mutant.whole:
                    found.wrong.append(f"{name} ({mutant.what}): the letter has other bytes")
            elif outcome == "rejected":
                found.rejected[str(reason)] += 1
                if mutant.body not in refused and mutant.whole:
                    found.wrong.append(f"{name} ({mutant.what}): no letter of the refusal has its bytes")
            elif places:
                found.ends[places[0]] += 1
            else:
                found.lost.append(f"{output.parent.name} {name} ({mutant.what})")
            # A file has no end of a message: what stands behind a record there is one more piece.
            if len(places) > 1 and (mutant.whole or output.parent.name.endswith("spool")):
                found.in_two_places.append(f"{output.parent.name} {name} ({mutant.what})")


def _letters(output: Path) -> tuple[dict[str, list[tuple[str, bytes]]], set[bytes]]:
    """Reasons and bytes of what could not be decoded, by the names of the messages; the bytes of what was refused."""
    found: dict[str, list[tuple[str, bytes]]] = defaultdict(list)
    refused = set[bytes]()
    for path in (output / "dead_letters").glob("*.avro"):
        for letter in read_dead_letters(str(path)):
            if letter.step == "Decode":
                found[letter.source].append((letter.reason, letter.data))
            else:
                refused.add(letter.data)
    return found, refused


def _outcomes(output: Path) -> dict[str, tuple[str, str | None]]:
    con = open_receipts([str(output / "receipts")])
    return {
        row[0]: (row[1], row[2]) for row in con.execute("SELECT event_id, outcome, reason FROM outcomes").fetchall()
    }


def _event_of(body: bytes) -> dict[str, Any]:
    """The event that a body begins with, if it does."""
    try:
        return dict(fastavro.schemaless_reader(io.BytesIO(body), _SCHEMA, None))
    except Exception:
        return {}


_SCHEMA = parsed(schema(EVENT))


def fuzz(
    events: int,
    seed: int,
    transports: Sequence[str] = ("file", "spool"),
    part: int = PART,
    say: Say = lambda text: None,
) -> dict[str, Any]:
    """What came of so many odd events, shared among the transports; files are kept only when something is wrong."""
    folder, started = Path(tempfile.mkdtemp(prefix="fuzz-")), time.monotonic()
    with running_sandbox(keep=1) as sandbox:
        runs = Fuzz(folder, sandbox.url, seed, sandbox.accepted, say)
        left, number = events, 0
        while left:
            count = min(part, left, -(-events // len(transports)))
            runs.part(number, count, transports[number % len(transports)])
            left, number = left - count, number + 1
    found = {"seed": seed, **runs.found.as_json(), "seconds": round(time.monotonic() - started)}
    if sound(found) and not os.environ.get("KEEP"):
        shutil.rmtree(folder)
        return found
    return {**found, "files": str(folder)}


def main() -> int:
    """0 when nobody was hurt."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--events", type=int, default=100_000, help="odd events; as many good ones stand beside them")
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 30))
    parser.add_argument("--transports", nargs="+", default=["file", "spool"], choices=["file", "spool"])
    args = parser.parse_args()
    print(f"seed {args.seed}", file=sys.stderr, flush=True)
    found = fuzz(args.events, args.seed, args.transports, say=lambda text: print(text, file=sys.stderr, flush=True))
    print(json.dumps(found, indent=2))
    return 0 if sound(found) else 1


if __name__ == "__main__":
    sys.exit(main())
