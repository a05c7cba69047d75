"""Is the simulation to be believed? It is set by two situations that were measured, and must foretell the others.

Of an entry of measured.json (bench/costs.py) two situations give the costs: a backlog (batches are full) and a trickle
(nearly a call an event); two equations for what an event and what a call costs. `busy`, the share of the cores that work
fills, is of the backlog too. All else is foretold: other rates, other numbers of retailers, another broker, a pace,
429s, 503s, how long an event takes.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from bench.rebatch import BUFFERING_S
from bench.simulation.plan import Broker, Ledger, Plan, Traffic, Vendor, Workers
from bench.simulation.run import Run
from schemas.campaigns.workspaces import Pace

MEASURED = Path(__file__).parents[1] / "measured.json"
_EVENTS, _CALLS, _MEDIAN, _TAIL, _SECONDS = 0.25, 0.1, 0.35, 0.5, 0.25
_LOCAL_ANSWER_MS = 3.0
_POISSON_S = 30.0


class Row(NamedTuple):
    """A number that was measured and simulated; `within` is how far, as a part of the measured one, they may differ.
    `told`: it is one of those that set the simulation."""

    situation: str
    what: str
    measured: float
    simulated: float
    within: float
    told: bool = False

    @property
    def good(self) -> bool:
        """Whether they agree."""
        return abs(self.simulated - self.measured) <= self.within * self.measured


class Cpu(NamedTuple):
    """CPU microseconds of an event and of a call."""

    event_us: float
    call_us: float


def solve(seen: Mapping[str, Any], parts: tuple[str, ...]) -> Cpu:
    """The CPU of an event and of a call, of these parts together: backlog and trickle are two equations."""
    one, two = seen["backlog"], seen["trickle"]
    a, b = (sum(some["cpu_us_per_event"].get(part, 0.0) for part in parts) for some in (one, two))
    call = (b - a) / (two["calls_per_event"] - one["calls_per_event"])
    return Cpu(max(0.0, a - call * one["calls_per_event"]), max(0.0, call))


def machine(entry: Mapping[str, Any]) -> Plan:
    """The measured machine: all of it on its cores."""
    seen = entry["seen"]
    cpu = solve(seen, ("job", "engine", "ledger", "vendor"))
    full, idle = seen["backlog"], seen["trickle"]["cpu_us_per_event"]["broker"]
    broker = full["cpu_us_per_event"]["broker"]
    busy = full["events_per_s"] * sum(full["cpu_us_per_event"].values()) / 1e6 / entry["cores"]
    return Plan(
        traffic=Traffic(backlog=full["events"]),
        # Between the first and the last tenth half of the backlog waits on average.
        broker=Broker(min(idle, broker), max(0.0, broker - idle) / (full["events"] / 2)),
        workers=Workers(
            cores=entry["cores"], busy=min(1.0, busy), event_us=cpu.event_us, call_us=cpu.call_us, wait_s=BUFFERING_S
        ),
        ledger=Ledger(),
        vendor=Vendor(median_ms=_LOCAL_ANSWER_MS, sigma=0.0),
    )


def compare(entry: Mapping[str, Any]) -> list[Row]:
    """Every number of an entry beside the simulation's."""
    seen, plan, rows = entry["seen"], machine(entry), list[Row]()

    def row(name: str, what: str, simulated: float, within: float, told: bool = False) -> None:
        rows.append(Row(name, what, seen[name][what], simulated, within, told))

    def backlog(name: str, retailers: int, *whats: str, **changes: Any) -> None:
        found = Run(plan.changed(traffic=Traffic(retailers, seen[name]["events"]), **changes)).run()
        values = {"events_per_s": found["events_per_s"], "seconds": found["seconds"], "calls": found["calls"]["made"]}
        for what in whats:
            within = {"events_per_s": _EVENTS, "calls": _CALLS, "seconds": _SECONDS}[what]
            row(name, what, values[what], within, told=name == "backlog" and what == "events_per_s")

    backlog("backlog", 350, "events_per_s", "calls")
    backlog("thousand", 1_000, "events_per_s", "calls")
    backlog("one", 1, "events_per_s", "calls")
    backlog("paced", 20, "seconds", "calls", pace=Pace(per_second=100, burst=100))
    backlog("slowed", 20, "seconds", "calls", vendor_every_429=20)
    # Measured when a 503 of any vendor meant that nothing was sent; a webhook's still does.
    backlog("failing", 20, "events_per_s", "calls", vendor_every_503=10, vendor_name="webhook")
    kafka = Broker(seen["kafka"]["cpu_us_per_event"]["broker"])
    backlog("kafka", 350, "events_per_s", broker=kafka)
    for name in ("trickle", "stream"):
        live = Traffic(per_second=seen[name]["published_per_s"], seconds=_POISSON_S)
        found = Run(plan.changed(traffic=live)).run()
        row(name, "events_per_call", found["published"] / found["calls"]["made"], _MEDIAN)
        row(name, "p50_ms", found["latency_ms"]["p50"], _MEDIAN)
        row(name, "p99_ms", found["latency_ms"]["p99"], _TAIL)
    return rows


def table(entry: Mapping[str, Any], rows: list[Row]) -> str:
    """The rows as a person reads them."""
    lines = [
        f"{entry['label']} ({entry['date']})",
        f"{'situation':10} {'number':16} {'measured':>10} {'simulated':>10}",
    ]
    for one in rows:
        verdict = "set by it" if one.told else "ok" if one.good else f"FAILS: more than {one.within:.0%} apart"
        lines.append(f"{one.situation:10} {one.what:16} {one.measured:10,.1f} {one.simulated:10,.1f}  {verdict}")
    return "\n".join(lines)
