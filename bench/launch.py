"""Measure a launch next to the stock formulation, in one run; prints JSON.

    python -m bench.launch [--customers 4000000] [--repeats 3]

events_per_s             our launch of one campaign to the Pub/Sub emulator, everything included but imports
stock_events_per_s       bench/stock.py over a part of the same customers, measured between our runs
ratio_to_stock           the first by the second: the median over pairs
campaigns_50_to_1_ratio  time of 50 campaigns that together match the customers of one, to the time of the one
scaling                  seconds at 1/4, 1/2 and all customers; `start_s` and `s_per_million` of the line through the
                         first and the last, and how far the middle one is off that line
peak_rss_mb              the largest resident size of the launching process at each size
stages_us_per_event      processor time of each step per event: the next bottleneck
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from runners.local.emulators import pubsub_emulator

ROOT = Path(__file__).resolve().parent.parent


PROJECT = "bench-project"
STOCK_FILES = 1

ENGINE = """\
channels:
  email: {address: email, consent: email_consent}
retailers: {"*": {time_zone: America/New_York}}
holdouts: {global: {share: 0.01, seed: bench}, retailers: {"*": 0.01}}
caps: [{channel: email, at_most: 3, within: P7D}]
suppression_lists: [{file: lists/suppressed.csv}]
"""
CAMPAIGN = """\
id: %(id)s
surface: storefront
channel: email
audience:
  all:
    - "spend_90d >= %(least)s"
    - "recency_days <= 365"%(slice)s
experiment:
  key: bench-split
  holdout: 0.01
  variants:
    - {key: control, weight: 0.5}
    - {key: code, weight: 0.5, offers: [five]}
offers:
  - {id: five, kind: unique_code, value: 5.00, currency: USD, valid_for: P14D}
content: {template: plain, properties: {name: first_name, spend: spend_90d}}
schedule: {start: "2026-04-01T09:00", local_time: true, expires: P3D, quiet_hours: ["21:00", "08:00"]}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--customers", type=int, default=4_000_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--least", type=float, default=60.0, help="spend_90d from which a customer matches")
    parser.add_argument("--child", nargs=4, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        print(json.dumps(child(*args.child)))
        return
    data = customers(args.customers)
    folders = {name: campaigns(name, args.least) for name in ("one", "fifty")}
    with pubsub_emulator() as host:
        os.environ["PUBSUB_EMULATOR_HOST"] = host
        topic = make_topic()
        print(json.dumps(measure(args, data, folders, topic), indent=2))


def measure(args: argparse.Namespace, data: dict[str, str], folders: dict[str, str], topic: str) -> dict[str, Any]:
    """All figures, in rounds: each round runs everything once, so that a slow minute affects all."""
    rounds = []
    print("warming the emulator up", file=sys.stderr)
    ours(data["quarter"], folders["one"], topic)
    for number in range(args.repeats):
        print(f"round {number + 1} of {args.repeats}", file=sys.stderr)
        result = {size: ours(data[size], folders["one"], topic) for size in ("quarter", "half", "all")}
        result["fifty"] = ours(data["all"], folders["fifty"], topic)
        result["stock"] = stock(data["stock"], topic, args.least)
        rounds.append(result)

    def median(pick: Any) -> float:
        return round(statistics.median(pick(result) for result in rounds), 3)

    def rate(result: dict[str, Any]) -> float:
        return float(result["events"] / result["seconds"])

    sizes = {"quarter": args.customers // 4, "half": args.customers // 2, "all": args.customers}
    return {
        "events_per_s": round(median(lambda r: rate(r["all"]))),
        "stock_events_per_s": round(median(lambda r: rate(r["stock"]))),
        "ratio_to_stock": median(lambda r: rate(r["all"]) / rate(r["stock"])),
        "campaigns_50_to_1_ratio": median(lambda r: r["fifty"]["seconds"] / r["all"]["seconds"]),
        "scaling": {
            "customers": list(sizes.values()),
            "seconds": [median(lambda r, s=size: r[s]["seconds"]) for size in sizes],
            **line(sizes, {size: median(lambda r, s=size: r[s]["seconds"]) for size in sizes}),
        },
        "peak_rss_mb": {str(sizes[size]): median(lambda r, s=size: r[s]["rss_mb"]) for size in sizes},
        "stages_us_per_event": rounds[-1]["all"]["stages"],
        "events": rounds[-1]["all"]["events"],
        "events_of_fifty": rounds[-1]["fifty"]["events"],
        "phases_s": rounds[-1]["all"]["phases"],
        "rounds": len(rounds),
    }


def line(sizes: dict[str, int], seconds: dict[str, float]) -> dict[str, float]:
    """The fixed cost of a launch, the cost of a million customers, and the middle size's time to the line of both."""
    slope = (seconds["all"] - seconds["quarter"]) / (sizes["all"] - sizes["quarter"])
    start = seconds["all"] - slope * sizes["all"]
    middle = seconds["half"] / (start + slope * sizes["half"])
    return {"start_s": round(start, 2), "s_per_million": round(slope * 1e6, 3), "middle_to_line": round(middle, 3)}


def ours(customers: str, campaigns: str, topic: str) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(dir=ROOT / "out") as output:
        return run([sys.executable, "-m", "bench.launch", "--child", customers, campaigns, topic, output])


def stock(customers: str, topic: str, least: float) -> dict[str, Any]:
    return run([sys.executable, "-m", "bench.stock", customers, topic, str(least)])


def run(command: list[str]) -> dict[str, Any]:
    environment = {**os.environ, "CAMPAIGNS_CODE_SECRET": "a secret for the benchmark"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=ROOT)
    if done.returncode:
        sys.exit(f"{' '.join(command)}\n{done.stderr[-4000:]}")
    result: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return result


def child(customers: str, campaigns: str, topic: str, output: str) -> dict[str, Any]:
    """One launch in this process: its seconds, events and peak memory."""
    from apache_beam.options.pipeline_options import PipelineOptions

    from connectors.uri import TopicUri
    from pipelines.launch.driver import launch
    from pipelines.launch.options import LaunchConfig
    from pipelines.launch.progress import Progress

    config = LaunchConfig(
        campaigns=Path(campaigns),
        customers=customers,
        events=TopicUri(PROJECT, topic.rsplit("/", 1)[1]),
        output=output,
        launch_id="bench",
    )
    summary = launch(config, PipelineOptions([]), Progress())
    assert isinstance(summary, dict)
    return {
        "seconds": summary["timing"]["seconds"],
        "phases": summary["timing"]["phases"],
        "events": sum(campaign["emitted"] for campaign in summary["campaigns"]),
        "stages": summary["timing"]["stages_us_per_event"],
        "rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }


def customers(number: int) -> dict[str, str]:
    """Folders with a quarter, half and all of the customers, and a file for the stock launch; kept in out/."""
    base = ROOT / "out" / f"bench-{number}"
    files = 16
    if not (base / "done").exists():
        source = ROOT / "out" / "customers.parquet"
        history = source.with_name("history.parquet")  # `make demo` makes both when one is missing
        if not (source.exists() and history.exists()):
            module("examples.journey.customers", "--output", str(source), "--history", str(history))
        module("examples.journey.multiply", "--customers", str(source), "--output", str(base / "all"),
               "--customers-wanted", str(number), "--files", str(files))  # fmt: skip
        for name, count in (("half", files // 2), ("quarter", files // 4), ("stock", STOCK_FILES)):
            shutil.rmtree(base / name, ignore_errors=True)  # of an interrupted run
            (base / name).mkdir(parents=True)
            for path in sorted((base / "all").glob("*.parquet"))[:count]:
                (base / name / path.name).symlink_to(path)
        (base / "done").touch()
    return {
        **{name: str(base / name) for name in ("all", "half", "quarter")},
        "stock": str(next((base / "stock").glob("*.parquet"))),
    }


def module(name: str, *arguments: str) -> None:
    subprocess.run([sys.executable, "-m", name, *arguments], check=True, cwd=ROOT, stdout=sys.stderr)


def campaigns(name: str, least: float) -> str:
    """A folder with one campaign, or with fifty that share its customers."""
    folder = ROOT / "out" / "bench-campaigns" / name
    (folder / "lists").mkdir(parents=True, exist_ok=True)
    (folder / "lists" / "suppressed.csv").write_text("\n".join(f"hh-{n}-1" for n in range(0, 2500, 50)))
    (folder / "engine.yaml").write_text(ENGINE)
    if name == "one":
        (folder / "one.yaml").write_text(CAMPAIGN % {"id": "one", "least": least, "slice": ""})
        return str(folder)
    for part in range(50):
        only = f'\n    - "household_id % 50 = {part}"'
        text = CAMPAIGN % {"id": f"part-{part:02d}", "least": least, "slice": only}
        (folder / f"part-{part:02d}.yaml").write_text(text)
    return str(folder)


def make_topic() -> str:
    from google.pubsub_v1 import PublisherClient

    path = f"projects/{PROJECT}/topics/bench"
    PublisherClient().create_topic(name=path)
    return path


if __name__ == "__main__":
    main()
