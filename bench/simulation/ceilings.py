"""What each resource can carry, in events a second: arithmetic, to be held beside the simulation."""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from bench.simulation.path import READ_SHARE
from bench.simulation.plan import Plan
from schemas.delivery import BATCH
from transforms.delivery.slots import IN_FLIGHT, PER_WORKSPACE
from transforms.streaming.group_by_shard import LIST, MOST_SHARDS


class Ceiling(NamedTuple):
    """The most events a second that a resource carries, what would raise it, and the plan's values for that; none
    where it is not ours to raise."""

    resource: str
    events_per_s: float
    raised_by: str
    changes: Mapping[str, Any] = MappingProxyType({})


def ceilings(plan: Plan) -> list[Ceiling]:
    """The resources, the one that breaks first at the head. Full batches, retailers of the same size."""
    workers, vendor, ledger, traffic = plan.workers, plan.vendor, plan.ledger, plan.traffic
    an_event_us = workers.event_us + workers.call_us / BATCH
    cpu = workers.workers * workers.cores * workers.busy * 1e6 / an_event_us
    answer_ms = vendor.median_ms * math.exp(vendor.sigma**2 / 2)  # the mean of a log-normal
    round_ms = answer_ms + 2 * ledger.op_ms
    more = "more workers", {"workers_workers": workers.workers * 4}
    found = [
        Ceiling("workers' CPU", cpu, *more),
        Ceiling("threads that wait for answers", workers.workers * IN_FLIGHT * BATCH * 1000 / answer_ms, *more),
        Ceiling("calls out for one workspace, times retailers",
                traffic.retailers * workers.workers * PER_WORKSPACE * BATCH * 1000 / round_ms, *more),
        Ceiling("the vendor's calls of an hour", traffic.retailers * vendor.calls_per_hour * BATCH / 3600,
                "the vendor's sales department"),
        Ceiling("keys of the busiest retailers",
                traffic.retailers * MOST_SHARDS * workers.busy * 1e6 / ((1 - READ_SHARE) * workers.event_us),
                "more shards a retailer"),
    ]  # fmt: skip
    if ledger.events_per_s is not None:
        wider = {"ledger_events_per_s": ledger.events_per_s * 16}
        found.append(Ceiling("the ledger's index", ledger.events_per_s, "more shards of its `queue` index", wider))
    if plan.broker.bytes_per_s is not None:
        found.append(Ceiling("the broker's bytes", plan.broker.bytes_per_s / traffic.event_bytes, "a higher quota"))
    if ledger.cell_ms and workers.workers > 1000 / ledger.cell_ms:
        # A process takes in one commit what it sends of a retailer within a second; a list of its retry shard is sent at once.
        found.append(
            Ceiling(
                "commits of the retailers' pacing cells",
                traffic.retailers * LIST * 1000 / ledger.cell_ms,
                "fewer, larger workers",
                {"ledger_cell_ms": 1.0},
            )
        )
    return sorted(found, key=lambda one: one.events_per_s)
