"""Simulate rebatch on many machines: its rate, its duration, its cost, and the first limit it meets.

    python -m bench.simulate check                   compare with the measurements of this machine; 1 if they differ
    python -m bench.simulate breaks                  the limits in the order in which they are met, up to the vendor's
    python -m bench.simulate run launch [NAME=VALUE …]   one scenario, as JSON; NAME=VALUE changes the plan

Nothing but `check` is done when the check fails. docs/scale.md explains the numbers.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from bench.simulation.ceilings import ceilings
from bench.simulation.check import MEASURED, compare, solve, table
from bench.simulation.plan import Broker, Ledger, Plan, Traffic, Vendor, Workers
from bench.simulation.run import Run
from stores.ledger.firestore import SHARDS

INDEX_WRITES = 500.0  # a second, which Firestore takes where an index grows at its end
PUBSUB_BYTES = 4e9  # a large region's bytes a second
PRICES = {
    "vcpu_hour": 0.069,
    "streaming_gb": 0.018,
    "broker_tib": 40.0,
    "writes": 0.9e-6,
    "reads": 0.3e-6,
    "deletes": 0.1e-6,
}
_CPUS_GB = 3.75 * 0.003557 / 0.069  # memory beside a vCPU, by its price
Say = Callable[[str], None]


def cloud(entry: Mapping[str, Any]) -> Plan:
    """Processes of one core as fast as the measured ones (Python keeps to one; Dataflow starts one a vCPU), with
    broker, ledger and vendor elsewhere."""
    cpu = solve(entry["seen"], ("job", "engine"))
    return Plan(
        traffic=Traffic(retailers=350, backlog=1_000_000, skew=0.5),
        broker=Broker(bytes_per_s=PUBSUB_BYTES, poll_ms=50),
        workers=Workers(workers=40, cores=1, busy=0.8, event_us=cpu.event_us, call_us=cpu.call_us),
        ledger=Ledger(op_ms=20, events_per_s=len(SHARDS) * INDEX_WRITES, cell_ms=25),
        vendor=Vendor(failing=0.001, lost=0.0001),
    )


def scenarios(entry: Mapping[str, Any]) -> dict[str, Plan]:
    """The plans by name."""
    plain = cloud(entry)
    wide = {"ledger_events_per_s": 2_000_000.0}
    return {
        "day": plain.changed(traffic_backlog=0, traffic_per_second=2_000.0, traffic_seconds=300.0, workers_workers=4),
        "launch": plain.changed(workers_workers=160, **wide),
        "ceiling": plain.changed(traffic_backlog=100_000_000, traffic_skew=0.0, workers_workers=640, **wide),
        "hot": plain.changed(traffic_backlog=2_000_000, traffic_skew=2.0, workers_workers=160, **wide),
        "outage": plain.changed(workers_workers=160, vendor_outage=(1.0, 61.0), **wide),
        "step": plain.changed(
            traffic_backlog=0, traffic_per_second=20_000.0, traffic_seconds=1_200.0, workers_workers=2,
            workers_most=100, **wide,
        ),
    }  # fmt: skip


def dollars(found: Mapping[str, Any], plan: Plan) -> dict[str, float]:
    """List prices of a million events, by part."""
    million = max(1, found["published"]) / 1e6
    data = plan.traffic.event_bytes * 1e6
    parts = {
        "workers": found["worker_hours"] * plan.workers.cores * PRICES["vcpu_hour"] * (1 + _CPUS_GB) / million,
        "streaming_engine": 3 * data / 1e9 * PRICES["streaming_gb"],
        "broker": 2 * data / 2**40 * PRICES["broker_tib"],
        "ledger": 1e6 * (3 * PRICES["writes"] + PRICES["reads"] + PRICES["deletes"]),
    }
    return {name: round(value, 3) for name, value in {**parts, "all": sum(parts.values())}.items()}


def checked(entries: list[dict[str, Any]], say: Say) -> bool:
    """Whether the simulation agrees with every machine that was measured."""
    good = True
    for entry in entries:
        rows = compare(entry)
        good &= all(row.good for row in rows)
        say(table(entry, rows))
    return good and bool(entries)


def breaks(entry: Mapping[str, Any], say: Say) -> list[dict[str, Any]]:
    """What gives way on the way up: each row is simulated with what gave way before it raised."""
    plan, rows = cloud(entry).changed(traffic_skew=0.0, workers_workers=4, traffic_backlog=500_000), []
    for _ in range(12):
        first = ceilings(plan)[0]
        size = int(min(20_000_000, max(500_000, first.events_per_s * 30)))
        found = Run(plan.changed(traffic_backlog=size)).run()
        rows.append({
            "workers": plan.workers.workers,
            "breaks_first": first.resource,
            "ceiling_per_s": round(first.events_per_s),
            "simulated_per_s": found["events_per_s"],
            "utilisation": found["utilisation"],
            "raised_by": first.raised_by,
        })  # fmt: skip
        say(f"{plan.workers.workers:5} workers: {first.resource} at {first.events_per_s:,.0f}/s,"
            f" simulated {found['events_per_s']:,}/s; then {first.raised_by}")  # fmt: skip
        if not first.changes:
            break
        plan = plan.changed(**first.changes)
    return rows


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def main() -> int:
    """0 when all is well, 1 when the check fails, 2 for mistakes in the arguments."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.simulate", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("check", "breaks", "run"))
    parser.add_argument("scenario", nargs="?", help="with run: day, launch, ceiling, hot, outage or step")
    parser.add_argument(
        "values", nargs="*", metavar="NAME=VALUE", help="such as workers_workers=80 or vendor_failing=0.05"
    )
    parser.add_argument("--measured", type=Path, default=MEASURED, help="what bench/costs.py measured (%(default)s)")
    args = parser.parse_args()
    say: Say = lambda text: print(text, file=sys.stderr, flush=True)  # noqa: E731
    try:
        entries = json.loads(args.measured.read_text())
    except (OSError, ValueError) as error:
        parser.error(f"--measured {args.measured}: {error}; `python -m bench.costs LABEL` makes it")
    plan: Plan | None = None
    if args.what == "run":
        known = scenarios(entries[-1])
        if args.scenario not in known:
            parser.error(f"{args.scenario!r} is no scenario; there are {', '.join(known)}")
        try:
            pairs = [one.partition("=") for one in args.values]
            plan = known[args.scenario].changed(**{name: _value(text) for name, _, text in pairs})
        except ValueError as error:
            names = ", ".join(sorted({f"{part.name}_" for part in fields(Plan)}))
            parser.error(f"{error}; give NAME=VALUE, where a name begins with one of {names}")
    if not checked(entries, say):
        say(
            "\nThe simulation does not agree with what was measured: nothing it says of larger machines is worth reading."
        )
        return 1
    if args.what == "check":
        say("\nThe simulation agrees with what was measured.")
    elif plan is None:
        print(json.dumps(breaks(entries[-1], say), indent=1))
    else:
        tell = lambda at, accepted: say(f"{at:8.0f} s: {accepted:,} accepted")  # noqa: E731
        found = Run(plan, tell).run()
        limits = {one.resource: round(one.events_per_s) for one in ceilings(plan)}
        print(json.dumps({**found, "usd_per_million": dollars(found, plan), "ceilings_per_s": limits}, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
