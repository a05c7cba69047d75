"""The crash certificate: rebatch is killed and stopped many times, loses nothing and sends nothing twice.

    python -m bench.certificate

100,000 events of 40 retailers, with repeats, malformed, poisoned, large, expired and held ones, go from Pub/Sub's
emulator, from Kafka, or from a growing folder, to a vendor that fails by script (also with a 5xx after it accepted). The
job is killed with -9, interrupted (Ctrl-C) or stopped as a process group at random moments, and started again. At the end
what the vendor recorded, the receipts, the ledger and the dead letters are compared with what went in.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import psutil

from bench.deliveries import (
    Event,
    Wire,
    kafka_topic,
    kill,
    make_event,
    on_the_wire,
    plain_topic,
    publish,
    publish_to,
    start_rebatch,
    write_campaigns,
    write_file,
)
from bench.footprint import Footprint, observe
from runners.local.emulators import pubsub_emulator
from runners.local.kafka_broker import kafka_broker
from runners.sandbox.process import Sandbox, running_sandbox
from stores.dead_letters import read_dead_letters
from stores.deliveries.receipts import open_receipts
from stores.ledger.open import open_ledger

FAULTS: list[dict[str, Any]] = [
    {"match": {"recipient": "refused-customer"}, "share": 1.0, "seed": 0, "answer": 400},
    {"share": 0.002, "seed": 1, "answer": 503},
    {"share": 0.002, "seed": 6, "answer": 502, "form": "accepted"},
    {"share": 0.01, "seed": 2, "answer": 429, "form": "retry-after", "seconds": 1},
    {"share": 0.004, "seed": 3, "answer": "hang", "seconds": 4},
    {"share": 0.01, "seed": 4, "answer": "lose"},
    {"share": 0.002, "seed": 5, "answer": "reset"},
]
RETAILERS = 40
SUMS = (
    "events", "kills", "lost", "accepted_twice", "early", "late", "wrong_workspace", "unknown", "unknown_never_sent",
)  # fmt: skip
LONGEST_HOLD_S, LONGEST_LIFE_S = 60.0, 9.0  # until a held event is due; until a job is killed
STOPS = {"kill": signal.SIGKILL, "interrupt": signal.SIGINT, "group stop": signal.SIGTERM}
LATE_MS = 1_000  # a call that began before an event expired may reach the vendor so much later
_LARGE = 30_000  # bytes of a large event's text
_STOP_S = 300.0  # until a job that was asked to stop must have ended


@dataclass
class Sent:
    """What goes in: messages in the order they are published, and what must come of each event."""

    messages: list[Wire] = field(default_factory=list)
    good: set[str] = field(default_factory=set)
    expired: set[str] = field(default_factory=set)
    refused: set[str] = field(default_factory=set)
    soon: set[str] = field(default_factory=set)  # they expire while the job runs
    malformed: int = 0
    repeats: int = 0
    events: dict[str, Event] = field(default_factory=dict)

    @property
    def everyone(self) -> set[str]:
        """The events that must have an end."""
        return self.good | self.expired | self.refused | self.soon


def make(events: int, seed: int, malformed: bool, longest_hold_s: float = LONGEST_HOLD_S) -> Sent:
    """So many messages: a tenth repeats, a hundredth malformed (where the transport can carry it), some poisoned, some
    large, some expired or soon to expire, some held for a few seconds, a few to a customer that the vendor refuses."""
    rnd, sent, now = random.Random(seed), Sent(), int(time.time() * 1000)
    while len(sent.messages) < events:
        number = len(sent.messages)
        kind, changes = rnd.random(), dict[str, Any]()
        if kind < 0.1 and sent.messages:
            sent.messages.append(rnd.choice(sent.messages[-5_000:]))
            sent.repeats += 1
            continue
        if kind < 0.105:
            changes = {"expires_at": rnd.choice([now - 1, 0, -5])}
        elif kind < 0.11:
            changes = {"deliver_after": now + int(rnd.uniform(1 / 12, 1) * longest_hold_s * 1000)}
        elif kind < 0.1102:
            changes = {"customer_id": "refused-customer"}
        elif kind < 0.113:
            changes = {"properties": {"name": "Ann", "text": "x" * _LARGE}}
        elif kind < 0.118:
            changes = {"expires_at": now + int(rnd.uniform(0.01, 2) * longest_hold_s * 1000)}
        elif kind < 0.12:
            changes = rnd.choice(_POISON)(now)
        retailer = (
            f"store-{number * RETAILERS // events}" if rnd.random() < 0.8 else f"store-{rnd.randrange(RETAILERS)}"
        )
        event = make_event(rnd, number, retailer, now, **changes)
        (wire,) = on_the_wire([event])
        if (malformed and 0.12 < kind < 0.13) or 0.118 <= kind < 0.12:
            sent.messages.append(_broken(rnd, wire) if kind >= 0.12 else wire)
            sent.malformed += 1
            continue
        expires = changes.get("expires_at")
        name = "good" if expires is None else "soon" if expires > now else "expired"
        getattr(sent, "refused" if "customer_id" in changes else name).add(event["event_id"])
        sent.events[event["event_id"]] = {one: event[one] for one in ("retailer_id", "deliver_after", "expires_at")}
        sent.messages.append(wire)
    return sent


_POISON: tuple[Callable[[int], dict[str, Any]], ...] = (  # what no vendor can be sent: each becomes a dead letter
    lambda now: {"offers": [{"id": "five", "kind": "fixed", "code": "C", "value": "5.00", "currency": "USD",
                             "expires_at": now * 1000}]},
    lambda now: {"deliver_after": now * 1000},
    lambda now: {"properties": {"score": float("nan")}},
)  # fmt: skip


def _broken(rnd: random.Random, wire: Wire) -> Wire:
    body, attributes = wire
    how = rnd.randrange(3)
    if how == 0:
        return body[: len(body) // 2], attributes
    if how == 1:
        return body, {**attributes, "schema": "f" * 16}
    return body, {name: value for name, value in attributes.items() if name != "retailer_id"}


class Run:
    """One run of the certificate in a folder of its own."""

    def __init__(
        self,
        folder: Path,
        source: str,
        on_unknown: str,
        events: int,
        kills: int,
        seed: int,
        longest_hold_s: float = LONGEST_HOLD_S,
        longest_life_s: float = LONGEST_LIFE_S,
    ) -> None:
        self._folder, self._source, self._on_unknown, self._kills = folder, source, on_unknown, kills
        self._rnd, self._longest_life_s = random.Random(seed), longest_life_s
        self._sent = make(events, seed, source != "file", longest_hold_s)
        self._stops, self._footprint = Counter[str](), Footprint()
        self._output, self._log = folder / "out", folder / "log"

    def run(self, say: Any) -> dict[str, Any]:
        """The certificate, once everything has ended."""
        started = time.monotonic()
        with ExitStack() as stack:
            self._open_source(stack)
            sandbox = stack.enter_context(running_sandbox(FAULTS, record=self._folder / "record", keep=1))
            delivery = {"timeout": "PT2S", "lease": "PT5S", "wait": "PT1S", "on_unknown": self._on_unknown}
            campaigns = write_campaigns(self._folder / "campaigns", sandbox.url, delivery)
            self._prepare(stack)
            killed = self._kill_again_and_again(campaigns, say)
            runs = self._drain(campaigns, say)
            return {**self._judge(sandbox), "kills": killed, "stops": dict(self._stops), "runs_to_the_end": runs,
                    "peak_mb": self._footprint.peak_mb, "seconds": round(time.monotonic() - started)}  # fmt: skip

    def _open_source(self, stack: ExitStack) -> None:
        if self._source == "pubsub":
            os.environ["PUBSUB_EMULATOR_HOST"] = stack.enter_context(pubsub_emulator())
            # A topic with our schema refuses malformed messages; the certificate wants them to come through.
            self._topic, subscription = plain_topic("certificate", ack_s=10)
            self._uri = f"pubsub:{subscription}"
        elif self._source == "kafka":
            self._uri = kafka_topic(stack.enter_context(kafka_broker()).host, "certificate")
        else:
            self._uri = f"file:{self._folder / 'events'}"
            (self._folder / "events").mkdir()

    def _prepare(self, stack: ExitStack) -> None:
        """What else has to run beside the job."""

    def _kill_again_and_again(self, campaigns: Path, say: Any) -> int:
        """Publishes a part, starts the job, lets it run for a random while, ends it; how often it was killed alive."""
        killed, parts, messages = 0, max(1, self._kills), self._sent.messages
        for number in range(parts):
            part = messages[number * len(messages) // parts : (number + 1) * len(messages) // parts]
            self._publish(number, part)
            if self._kills:
                job = start_rebatch(campaigns, self._uri, self._output, "--patience=10", log=self._log)
                observe(job, self._rnd.uniform(1.0, self._longest_life_s), seen=self._footprint)
                killed += self._end_job(job, list(STOPS)[(0, 0, 1, 2)[number % 4]])
                say(f"{self._source}, {self._on_unknown}: {killed} kills, {self._stops.total()} stops")
        return killed

    def _end_job(self, job: subprocess.Popen[bytes], how: str) -> bool:
        """Kills the job, or asks it to stop and waits for its end; whether it was killed alive."""
        if how == "kill":
            return kill(job)
        while job.poll() is None and not psutil.Process(job.pid).children():
            time.sleep(0.1)  # until the program is loaded, a signal ends it as it ends any other
        if job.poll() is None:
            os.killpg(job.pid, STOPS[how])
            observe(job, _STOP_S, seen=self._footprint)
            self._stops[how] += 1
        if job.poll() != 0:
            kill(job)
            raise RuntimeError(f"rebatch ended with {job.poll()} after an {how}: {self._log.read_text()[-2000:]}")
        return False

    def _publish(self, number: int, part: list[Wire]) -> None:
        if self._source == "pubsub":
            publish(self._topic, part)
        elif self._source == "kafka":
            publish_to(self._uri, part)
        else:
            write_file(self._folder / "events", f"part-{number:04d}", [body for body, _ in part])

    def _drain(self, campaigns: Path, say: Any) -> int:
        """Runs with --drain until nothing waits; how many runs that took. Held events and leases need time."""
        for number in range(1, 30):
            say(f"{self._source}, {self._on_unknown}: drain {number}")
            job = start_rebatch(campaigns, self._uri, self._output, "--drain", "--idle=8", log=self._log)
            observe(job, 600, seen=self._footprint)
            code = job.poll()
            if code is None:
                kill(job)
            elif code:
                raise RuntimeError(f"rebatch ended with {code}: {self._log.read_text()[-2000:]}")
            if not self._open_ends():
                return number
            time.sleep(2)
        return 30

    def _open_ends(self) -> int:
        return len(self._sent.everyone) - len(self._found(sorted(self._sent.everyone)))

    def _found(self, names: list[str]) -> dict[str, str]:
        ledger, found = open_ledger(f"sqlite:{self._output}/ledger.db"), dict[str, str]()
        ledger.open()
        for start in range(0, len(names), 1000):
            found |= ledger.find(names[start : start + 1000])
        ledger.close()
        return found

    def _judge(self, sandbox: Sandbox) -> dict[str, Any]:
        """What came out, held against what went in."""
        sent, accepted = self._sent, sandbox.accepted()
        everyone = sent.everyone
        settled = self._found(sorted(everyone))
        con = open_receipts([str(self._output / "receipts")])
        ends = {
            row[0]: (row[1], row[2]) for row in con.execute("SELECT event_id, outcome, resent FROM outcomes").fetchall()
        }
        letters = {
            (letter.data, letter.trace)
            for path in (self._output / "dead_letters").glob("*.avro")
            for letter in read_dead_letters(str(path))
            if letter.step == "Decode"
        }
        twice = {name for name, times in accepted.items() if times > 1}
        excused = {name for name in twice if ends.get(name, ("", False))[1]}
        outcomes = Counter(outcome for outcome, _ in ends.values())
        unknown = {name for name, (outcome, _) in ends.items() if outcome == "unknown"}
        lost = {name for name in sent.good if not accepted.get(name) and name not in unknown}
        sends = self._sends()
        wrong = [
            *(f"{name} was sent to" for name in sent.expired if accepted.get(name)),
            *(f"{name} is {settled.get(name)}" for name in sent.refused if settled.get(name) not in ("rejected", "unknown")),
            *(f"{name} is {settled.get(name)}" for name in sent.expired if settled.get(name) not in ("expired", "unknown")),
            *(f"{name} is accepted, says its receipt" for name, (o, _) in ends.items() if o == "accepted" and not accepted.get(name)),
            *(f"{name} has no receipt of its end" for name in everyone if ends.get(name, ("",))[0] != settled.get(name)),
        ]  # fmt: skip
        return {
            "source": self._source,
            "on_unknown": self._on_unknown,
            "events": len(sent.messages),
            "different_events": len(everyone),
            "repeats": sent.repeats,
            "malformed": sent.malformed,
            "lost": len(lost),
            "accepted_twice": len(twice - excused),
            "accepted_twice_after_a_lost_reply": len(excused),
            "unknown": len(unknown),
            "unknown_never_sent": len(unknown - sends.seen),
            "early": sends.early,
            "late": sends.late,
            "wrong_workspace": sends.wrong_workspace,
            "accepted": outcomes["accepted"],
            "rejected": outcomes["rejected"],
            "expired": outcomes["expired"],
            "dead_letters": len(letters),
            "ledger_closes": not wrong
            and sum(outcomes.values()) == len(everyone) == len(settled)
            and len(letters) == sent.malformed,
            "wrong": wrong[:5],
            "vendor": {key: value for key, value in sandbox.summary().items() if key in ("calls", "by_status")},
        }

    def _sends(self) -> Sends:
        """What the vendor's record says of when and where events were accepted."""
        found = Sends()
        with (self._folder / "record").open("rb") as lines:
            for line in lines:
                call = msgspec.json.decode(line)
                found.seen.update(call["accepted"], call["not_sent"])
                for name in call["accepted"]:
                    event = self._sent.events[name]
                    found.early += call["at"] < event["deliver_after"]
                    found.late += event["expires_at"] + LATE_MS < call["at"]
                    found.wrong_workspace += call["workspace"] != event["retailer_id"]
        return found


@dataclass
class Sends:
    """Events that some call held; how many were accepted before they were due, after they had expired, and in another
    retailer's workspace."""

    seen: set[str] = field(default_factory=set)
    early: int = 0
    late: int = 0
    wrong_workspace: int = 0


def certify(
    source: str,
    on_unknown: str,
    events: int,
    kills: int,
    seed: int,
    say: Any = lambda text: None,
    run: type[Run] = Run,
    **longest: float,
) -> dict[str, Any]:
    """The certificate of one run; its files go to a temporary folder that is kept only when something is wrong.
    `longest_hold_s` and `longest_life_s` shorten it."""
    folder = Path(tempfile.mkdtemp(prefix="certificate-"))
    found = run(folder, source, on_unknown, events, kills, seed, **longest).run(say)
    if sound(found) and not os.environ.get("KEEP"):
        shutil.rmtree(folder)
    else:
        found["files"] = str(folder)
    return found


def sound(found: dict[str, Any]) -> bool:
    """Whether nothing was lost, nothing came twice, and nothing at the wrong time or place."""
    zeros = ("lost", "accepted_twice", "early", "late", "wrong_workspace", "unknown_never_sent")
    excused = found["accepted_twice_after_a_lost_reply"] if found["on_unknown"] == "hold" else 0
    return found["ledger_closes"] and not any(found[name] for name in zeros) and not excused


def main(
    doc: str = __doc__ or "",
    events: int = 100_000,
    kills: int = 20,
    sources: tuple[str, ...] = ("pubsub:resend", "file:hold", "kafka:hold"),
    run: type[Run] = Run,
) -> int:
    """0 when every run is sound."""
    parser = argparse.ArgumentParser(description=doc.partition("\n")[0])
    parser.add_argument("--events", type=int, default=events)
    parser.add_argument("--kills", type=int, default=kills)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 30))
    parser.add_argument("--runs", nargs="*", default=sources, help="SOURCE:ON_UNKNOWN …")
    args = parser.parse_args()
    say = lambda text: print(text, file=sys.stderr, flush=True)  # noqa: E731
    runs = []
    for one in args.runs:
        source, _, on_unknown = one.partition(":")
        runs.append(certify(source, on_unknown, args.events, args.kills, args.seed, say, run))
    total = {name: sum(run[name] for run in runs) for name in SUMS}
    worst = {"ledger_closes": all(run["ledger_closes"] for run in runs), "peak_mb": max(run["peak_mb"] for run in runs)}
    print(json.dumps({**total, **worst, "seed": args.seed, "runs": runs}, indent=2))
    return 0 if all(sound(run) for run in runs) else 1


if __name__ == "__main__":
    sys.exit(main())
