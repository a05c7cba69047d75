"""What is simulated: the traffic, the machines, and what lies between them. Times are milliseconds, rates a second."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

from schemas.campaigns.workspaces import Pace

_THERE = ("retailers", "workers", "cores", "calls_per_hour")  # at least one of these


@dataclass(frozen=True)
class Traffic:
    """What is published: `backlog` events that wait when all begins, then `per_second` for `seconds`; `retailers` share
    them evenly, or, with `skew` above 0, as 1, 1/2^skew, 1/3^skew … `in_turn`: the backlog lies retailer by retailer, as
    a launch publishes."""

    retailers: int = 350
    backlog: int = 0
    per_second: float = 0.0
    seconds: float = 0.0
    skew: float = 0.0
    in_turn: bool = True
    event_bytes: int = 450


@dataclass(frozen=True)
class Broker:
    """A broker: CPU on the workers' own machine for each message (`cpu_us`, and more for each message that waits, as
    Google's emulator takes), 0 where it runs elsewhere; and the bytes that may leave it in a second."""

    cpu_us: float = 0.0
    cpu_us_per_waiting: float = 0.0
    bytes_per_s: float | None = None
    poll_ms: float = 5.0


@dataclass(frozen=True)
class Workers:
    """Processes of `cores` each, of which `busy` is the share that work can fill. `event_us` and `call_us` are CPU for
    an event and for a call. With `most` above `workers` an autoscaler adds and takes (Dataflow's rules)."""

    workers: int = 1
    most: int = 0
    cores: int = 2
    busy: float = 1.0
    event_us: float = 150.0
    call_us: float = 1_500.0
    most_ahead: int = 20_000
    boot_s: float = 120.0
    wait_s: float = 2.0
    bundle_ms: float = 20.0


@dataclass(frozen=True)
class Ledger:
    """A ledger elsewhere: how long a claim or a settlement takes, the events it claims in a second at most, and how
    long a commit of one pacing cell keeps the next one of the same cell waiting."""

    op_ms: float = 0.0
    events_per_s: float | None = None
    cell_ms: float = 0.0
    lease_s: float = 30.0


@dataclass(frozen=True)
class Vendor:
    """The vendor `name`: an answer takes `median_ms` (log-normal with `sigma`), a share of calls is `failing` with 503
    (what that proves is in connectors/vendors/statuses.py) or loses its reply, each `every_429`-th is told to come back in
    `retry_after_s`, and a workspace has `calls_per_hour` in a clock hour. In `outage`, (from, to) seconds, there is no
    connection: nothing is sent."""

    name: str = "braze"
    median_ms: float = 100.0
    sigma: float = 0.5
    failing: float = 0.0
    every_503: int = 0
    every_429: int = 0
    retry_after_s: float = 1.0
    lost: float = 0.0
    calls_per_hour: int = 250_000
    outage: tuple[float, float] | None = None


@dataclass(frozen=True)
class Plan:
    """All of it. `resend`: a call without an answer that proves the outcome is made again when its lease ends, as often
    as a delivery does by default (schemas/campaigns/workspaces.py); else, and after that, its events end as unknown."""

    traffic: Traffic = Traffic()
    broker: Broker = Broker()
    workers: Workers = Workers()
    ledger: Ledger = Ledger()
    vendor: Vendor = Vendor()
    pace: Pace = field(default_factory=Pace)
    resend: bool = True
    seed: int = 7
    most_s: float = 86_400.0

    def changed(self, **changes: Any) -> Plan:
        """The plan with other values, named `part_value` as in traffic_backlog, or by the plan's own name."""
        parts = {one.name: getattr(self, one.name) for one in fields(self)}
        for name, value in changes.items():
            part, _, own = name.partition("_")
            if name in parts:
                if not isinstance(value, type(parts[name])):
                    raise ValueError(f"{name} is a {type(parts[name]).__name__}, not {value!r}")
                parts[name] = value
            elif part in parts and hasattr(parts[part], own) and part != "pace":
                before = getattr(parts[part], own)
                least = 1 if own in _THERE else 0
                if isinstance(before, int | float) and not (isinstance(value, int | float) and value >= least):
                    raise ValueError(f"{name} must be a number from {least}, not {value!r}")
                parts[part] = type(parts[part])(**{**vars(parts[part]), own: value})
            else:
                raise ValueError(f"a plan has no {name}")
        return Plan(**parts)
