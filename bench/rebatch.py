"""Measure rebatch next to the stock formulation, in one run; prints JSON.

    python -m bench.rebatch [--events 100000]

events_per_s             from the Pub/Sub emulator to accepted at the sandbox, on Prism, 350 retailers, between the first
                         and the last tenth; everything on this machine: emulator, engine, worker, ledger, vendor
stock_events_per_s       bench/stock_rebatch.py over a part of as many events, the same way
ratio_to_stock           the first by the second
calls_over_minimum       calls made, by the fewest that could carry the events, 50 a call
cpu_us_per_event         processor time of the job, its engine and its ledger, start included, by the events; `peak_mb` is
                         their memory together
latency_ms               from publish to accepted at 1,000 events/s; a batch that is not full waits `buffering_s`
retailers_scaling        events/s with 1, 35, 350 and 1,000 retailers, the mean of two rounds in turn; `remembered`: µs
                         an id to tell repeats among few remembered ids and among five million, the median of five in
                         turn. With fewer than 100,000 events a thousand retailers have no two full batches each, and
                         other work than the few
noisy_neighbour_ratio    p99 of 349 quiet retailers, next to one with 100 times their traffic whose workspace always
                         answers 429, by their p99 without it
"""

from __future__ import annotations

import argparse
import json
import os
import random
import secrets
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.deliveries import (
    ROOT,
    Wire,
    kill,
    make_event,
    on_the_wire,
    plain_topic,
    publish,
    publish_live,
    publish_to,
    start_rebatch,
    write_campaigns,
)
from bench.footprint import Footprint
from runners.local.emulators import pubsub_emulator
from runners.sandbox.process import Rules, Sandbox, running_sandbox
from stores.deliveries.receipts import open_receipts
from transforms.streaming.group_by_shard import GROUPS
from transforms.streaming.seen_ids import SeenIds

RETAILERS = (1, 35, 350, 1000)
BUFFERING_S = 2  # the default of `wait`
DELIVERY = {"wait": f"PT{BUFFERING_S}S", "timeout": "PT5S", "lease": "PT15S"}


def events(count: int, retailers: int, seed: int) -> list[Wire]:
    """Events as a launch publishes them, retailer by retailer."""
    rnd, now = random.Random(seed), int(time.time() * 1000)
    return on_the_wire(make_event(rnd, n, f"store-{n * retailers // count}", now) for n in range(count))


def watch(
    sandbox: Sandbox, wanted: int, job: subprocess.Popen[bytes], most_s: float, footprint: Footprint | None = None
) -> list[tuple[float, int]]:
    """(seconds, accepted) four times a second, until all is accepted or so many seconds are over."""
    seen, end = [(time.monotonic(), 0)], time.monotonic() + most_s
    while seen[-1][1] < wanted and time.monotonic() < end and job.poll() is None:
        time.sleep(0.25)
        seen.append((time.monotonic(), int(sandbox.summary()["accepted"])))
        if footprint is not None:
            footprint.look(job.pid)
    return seen


def rate(seen: list[tuple[float, int]]) -> float:
    """Events a second between the first and the last tenth of what was seen."""
    last = seen[-1][1]
    inner = [one for one in seen if 0.1 * last <= one[1] <= 0.9 * last]
    if len(inner) < 2:
        inner = [one for one in seen if one[1]]
    return (inner[-1][1] - inner[0][1]) / max(0.001, inner[-1][0] - inner[0][0]) if len(inner) > 1 else 0.0


class Bench:
    """The measurements, in a folder and with an emulator of their own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @contextmanager
    def job(self, subscription: str, url: str, *more: str) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
        """A running rebatch, and its output; killed when the block ends."""
        place = Path(tempfile.mkdtemp(dir=self._folder))
        campaigns = write_campaigns(place / "campaigns", url, DELIVERY)
        running = start_rebatch(campaigns, f"pubsub:{subscription}", place / "out", *more, log=place / "log")
        try:
            yield running, place / "out"
        finally:
            kill(running)

    def throughput(self, count: int, retailers: int, seed: int) -> tuple[float, float, Footprint]:
        """(events a second, calls by the fewest possible, what the job's processes took from start to end)."""
        path, subscription = plain_topic("ours")
        publish(path, events(count, retailers, seed))
        with running_sandbox(keep=1) as sandbox, self.job(subscription, sandbox.url, "--drain") as (job, _):
            footprint = Footprint()
            seen = watch(sandbox, count, job, 300, footprint)
            sizes = [(n + 1) * count // retailers - n * count // retailers for n in range(retailers)]
            fewest = sum(-(-size // 50) for size in sizes)
            return rate(seen), int(sandbox.summary()["calls"]) / fewest, footprint

    def stock(self, count: int, retailers: int, seed: int) -> float:
        """Events a second of the stock formulation."""
        path, subscription = plain_topic("stock")
        publish(path, events(count, retailers, seed))
        with running_sandbox(keep=1) as sandbox:
            command = [sys.executable, "-m", "bench.stock_rebatch", subscription, sandbox.url]
            job = subprocess.Popen(command, cwd=ROOT, start_new_session=True, stderr=subprocess.DEVNULL)
            try:
                return rate(watch(sandbox, count, job, 60))
            finally:
                kill(job)

    def latency(self, per_second: dict[str, float], seconds: int, rules: Rules = (), quiet: str = "") -> list[int]:
        """Milliseconds from publish to accepted at so many events a second of each retailer, of the retailers whose
        name begins with `quiet`; the first fifth, in which everything starts, is left out."""
        path, subscription = plain_topic("latency")
        with running_sandbox(rules, keep=1) as sandbox, self.job(subscription, sandbox.url) as (_, output):
            found, late = live(sandbox, f"pubsub:{path}", output, per_second, seconds, quiet)
            if late:
                print(f"{late} of {late + len(found)} were not accepted in time", file=sys.stderr)
            return found


def live(
    sandbox: Sandbox,
    uri: str,
    output: Path,
    per_second: dict[str, float],
    seconds: float,
    quiet: str = "",
    mark: Callable[[], object] = lambda: None,
) -> tuple[list[int], int]:
    """(milliseconds from publish to accepted of events that are published while the job runs, how many were not
    accepted in time), of the retailers whose name begins with `quiet`. `mark` is called when the first fifth is over,
    from which on events count, and when the last is published."""
    publish_to(uri, on_the_wire([make_event(random.Random(1), 0, "warm-up", int(time.time() * 1000))]))
    while not sandbox.summary()["accepted"]:
        time.sleep(0.2)
    sent, counts = dict[str, int](), False
    for at, some in publish_live(uri, per_second, seconds):
        if counts:
            own = [event for event in some if event["retailer_id"].startswith(quiet)]
            sent.update((event["event_id"], event["emitted_at"]) for event in own)
        elif at > seconds / 5:
            counts = True
            mark()
    mark()
    time.sleep(BUFFERING_S + 6)
    con = open_receipts([str(output / "receipts")])
    rows = con.execute("SELECT event_id, settled_at FROM outcomes WHERE outcome = 'accepted'").fetchall()
    found = [settled - sent[name] for name, settled in rows if name in sent]
    return found, len(sent) - len(found)


def remembered(ids: int, keys: int, fresh: int = 300, lists: int = 60) -> float:
    """Microseconds an id to tell repeats, with so many ids remembered under so many keys."""
    known = SeenIds()
    for start in range(0, ids // keys, 50_000):
        known.first_seen([secrets.token_bytes(16) for _ in range(min(50_000, ids // keys - start))], 1)
    some = [[secrets.token_bytes(16) for _ in range(fresh)] for _ in range(lists)]
    started = time.perf_counter()
    for one in some:
        known.first_seen(one, 1)
    return (time.perf_counter() - started) * 1e6 / (fresh * lists)


def percentiles(values: list[int]) -> dict[str, int]:
    """p50 and p99."""
    cuts = statistics.quantiles(values, n=100)
    return {"p50": round(cuts[49]), "p99": round(cuts[98])}


def main() -> None:
    """Prints the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--events", type=int, default=100_000)
    args = parser.parse_args()
    say = lambda text: print(text, file=sys.stderr, flush=True)  # noqa: E731
    with tempfile.TemporaryDirectory() as folder, pubsub_emulator() as host:
        os.environ["PUBSUB_EMULATOR_HOST"] = host
        bench = Bench(Path(folder))
        say("by the number of retailers, stock, and again by the number of retailers")
        first = {n: bench.throughput(args.events, n, 10 + n) for n in RETAILERS}
        stock = bench.stock(4_000, 350, 2)
        second = {n: bench.throughput(args.events, n, 20 + n) for n in RETAILERS}
        rates = {n: (first[n][0] + second[n][0]) / 2 for n in RETAILERS}
        ours, over, footprint = rates[350], first[350][1], first[350][2]
        known = [(remembered(16_000, GROUPS), remembered(5_000_000, GROUPS)) for _ in range(5)]
        few, many = (statistics.median(some) for some in zip(*known, strict=True))
        say("latency")
        thousand = bench.latency({f"store-{n}": 1000 / 350 for n in range(350)}, 30)
        say("noisy neighbour")
        quiet = {f"quiet-{n}": 1.0 for n in range(349)}
        without = percentiles(bench.latency(quiet, 25, quiet="quiet"))
        rules = [{"match": {"workspace": "noisy"}, "answer": 429, "form": "retry-after", "seconds": 1}]
        beside = percentiles(bench.latency({**quiet, "noisy": 100.0}, 25, rules, "quiet"))
    result: dict[str, Any] = {
        "events_per_s": round(ours),
        "stock_events_per_s": round(stock, 1),
        "ratio_to_stock": round(ours / stock, 1),
        "calls_over_minimum": round(over, 3),
        "cpu_us_per_event": round(footprint.cpu_s * 1e6 / args.events),
        "peak_mb": footprint.peak_mb,
        "latency_ms": {**percentiles(thousand), "events_per_s": 1000, "buffering_s": BUFFERING_S},
        "retailers_scaling": {
            "events_per_s": {str(n): round(rates[n]) for n in RETAILERS},
            "slowest_by_fastest": round(min(rates.values()) / max(rates.values()), 2),
            "remembered": {"us_an_id_of_16_thousand": round(few, 2), "us_an_id_of_5_million": round(many, 2)},
        },
        "noisy_neighbour_ratio": round(beside["p99"] / without["p99"], 2),
        "noisy_neighbour_ms": {"without": without, "beside": beside},
    }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
