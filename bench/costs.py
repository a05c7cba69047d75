"""Measure rebatch on this machine by part, in several situations; bench/simulate.py is compared with the result.

    python -m bench.costs LABEL      measures for six minutes, adds an entry to bench/measured.json

CPU seconds are read from /proc (Linux) between the first and the last tenth of what is accepted, which leaves the
start out.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from contextlib import ExitStack
from datetime import date
from pathlib import Path
from typing import Any

from bench.deliveries import Wire, fresh_topic, kill, publish_to, start_rebatch, write_campaigns
from bench.rebatch import DELIVERY, events, live, percentiles
from bench.simulation.check import MEASURED
from runners.local.emulators import pubsub_emulator
from runners.local.kafka_broker import kafka_broker
from runners.sandbox.process import Rules, Sandbox, running_sandbox

_TICKS = os.sysconf("SC_CLK_TCK")
_PARTS = (
    ("pipelines.rebatch", "job"),
    ("stores.ledger", "ledger"),
    ("prism", "engine"),
    ("runners.sandbox", "vendor"),
    ("kafka", "broker"),
    ("pubsub", "broker"),
)
_MOST_S = 180.0


def cpu_by_part() -> dict[str, float]:
    """CPU seconds until now of the job, the ledger, the engine, the broker and the vendor, of all their processes."""
    used: dict[str, float] = defaultdict(float)
    for process in Path("/proc").iterdir():
        if not process.name.isdigit():
            continue
        try:
            command = process.joinpath("cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            fields = process.joinpath("stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it has ended
        program = command.partition(" ")[0].rpartition("/")[2]
        for word, part in _PARTS:
            if word in (program if word == "prism" else command):
                used[part] += (int(fields[11]) + int(fields[12])) / _TICKS
                break
    return used


class Costs:
    """The situations, each a job of its own on Prism; everything is on this machine."""

    def __init__(self, folder: Path, kafka: str) -> None:
        self._folder, self._kafka = folder, kafka

    def situation(
        self,
        wire: Sequence[Wire],
        source: str = "pubsub",
        workspaces: dict[str, Any] | None = None,
        rules: Rules = (),
        per_second: dict[str, float] | None = None,
        seconds: float = 0.0,
        vendor: str = "braze",
    ) -> dict[str, Any]:
        """What was seen of messages that wait when the job starts, or of those that are published while it runs,
        `per_second` of each retailer for so many seconds."""
        with ExitStack() as stack:
            place = Path(tempfile.mkdtemp(dir=self._folder))
            sandbox = stack.enter_context(running_sandbox(rules, keep=1))
            if vendor == "webhook":
                workspaces = {"*": {"url": f"{sandbox.url}/w/{{retailer}}/webhook"}}
            delivery = {**DELIVERY, "vendor": vendor}
            campaigns = write_campaigns(place / "campaigns", sandbox.url, delivery, workspaces)
            to, uri = fresh_topic(source, "costs", self._kafka)
            publish_to(to, wire)
            job = start_rebatch(campaigns, uri, place / "out", "--on=prism", log=place / "log")
            stack.callback(kill, job)
            if per_second is None:
                return self._watched(sandbox, len(wire), job)
            return self._live(sandbox, to, place / "out", per_second, seconds)

    def _watched(self, sandbox: Sandbox, count: int, job: Any) -> dict[str, Any]:
        marks: list[tuple[float, int, int, dict[str, float]]] = []
        begin, end = 0.0, time.monotonic() + _MOST_S
        while (now := time.monotonic()) < end and job.poll() is None:
            said = sandbox.summary()
            accepted = int(said["accepted"])
            begin = begin or (now if accepted else 0.0)
            if accepted >= (0.1, 0.9, 1.0)[len(marks)] * count:
                marks.append((now, accepted, int(said["calls"]), cpu_by_part()))
                if len(marks) == 3:
                    break
            time.sleep(0.1)
        if len(marks) < 3:
            raise RuntimeError(f"only {accepted} of {count} were accepted in {_MOST_S:.0f} s")
        (t0, n0, c0, cpu0), (t1, n1, c1, cpu1), (t2, _, calls, _) = marks
        return {
            "events": count,
            "events_per_s": round((n1 - n0) / (t1 - t0)),
            "seconds": round(t2 - begin, 1),
            "calls": calls,
            **_per_event(cpu0, cpu1, n1 - n0, c1 - c0),
        }

    def _live(
        self, sandbox: Sandbox, uri: str, output: Path, per_second: dict[str, float], seconds: float
    ) -> dict[str, Any]:
        marks: list[tuple[dict[str, Any], dict[str, float]]] = []
        mark = lambda: marks.append((sandbox.summary(), cpu_by_part()))  # noqa: E731
        took, late = live(sandbox, uri, output, per_second, seconds, mark=mark)
        if late:
            raise RuntimeError(f"{late} of {late + len(took)} were not accepted in time")
        (said0, cpu0), (said1, cpu1) = marks
        count, calls = (int(said1[name]) - int(said0[name]) for name in ("accepted", "calls"))
        return {
            "published_per_s": round(sum(per_second.values())),
            **{f"{cut}_ms": value for cut, value in percentiles(took).items()},
            "events_per_call": round(count / calls, 2),
            **_per_event(cpu0, cpu1, count, calls),
        }


def _per_event(before: dict[str, float], after: dict[str, float], events: int, calls: int) -> dict[str, Any]:
    parts = {part: round((after[part] - before.get(part, 0.0)) * 1e6 / events, 1) for part in sorted(after)}
    return {"calls_per_event": round(calls / events, 4), "cpu_us_per_event": parts}


def measure(label: str, say: Any) -> dict[str, Any]:
    """An entry of measured.json: what was seen in each situation."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True)))
        os.environ["PUBSUB_EMULATOR_HOST"] = stack.enter_context(pubsub_emulator())
        os.environ["SANDBOX_KEY"] = "key"
        seen = dict[str, Any]()
        pubsub = Costs(folder, "")
        say("a backlog of 60,000 from Pub/Sub")
        seen["backlog"] = pubsub.situation(events(60_000, 350, 1))
        say("300 events/s")
        trickle = {f"store-{n}": 300 / 350 for n in range(350)}
        seen["trickle"] = pubsub.situation([], per_second=trickle, seconds=30)
        say("600 events/s")
        seen["stream"] = pubsub.situation([], per_second={name: 2 * rate for name, rate in trickle.items()}, seconds=30)
        say("1,000 retailers")
        seen["thousand"] = pubsub.situation(events(30_000, 1_000, 2))
        say("one retailer")
        seen["one"] = pubsub.situation(events(30_000, 1, 3))
        say("a pace of 100 messages/s")
        paced = {"*": {"pace": {"per_second": 100, "burst": 100}}}
        seen["paced"] = pubsub.situation(events(30_000, 20, 4), workspaces=paced)
        say("429 for every 20th call")
        slow = [{"answer": 429, "every": 20, "form": "retry-after", "seconds": 1}]
        seen["slowed"] = pubsub.situation(events(30_000, 20, 5), rules=slow)
        say("503 for every 10th call")
        rules: Rules = [{"answer": 503, "every": 10}]  # of a webhook: Braze's may have been sent (connectors/vendors)
        seen["failing"] = pubsub.situation(events(30_000, 20, 6), rules=rules, vendor="webhook")
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True)))
        say("a backlog of 60,000 from Kafka")
        kafka = Costs(folder, stack.enter_context(kafka_broker()).host)
        seen["kafka"] = kafka.situation(events(60_000, 350, 7), source="kafka")
    return {"label": label, "date": date.today().isoformat(), "cores": os.cpu_count(), "seen": seen}


def main() -> None:
    """Measures and writes the entry."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("label", help="what tells this machine from others, such as `2 cores, 2026`")
    args = parser.parse_args()
    entry = measure(args.label, lambda text: print(text, file=sys.stderr, flush=True))
    known = json.loads(MEASURED.read_text()) if MEASURED.exists() else []
    entries = [one for one in known if one["label"] != args.label] + [entry]
    MEASURED.write_text(json.dumps(entries, indent=1) + "\n")
    print(json.dumps(entry, indent=1))


if __name__ == "__main__":
    main()
