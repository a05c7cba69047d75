"""Write events of every type as Avro files: `python -m examples.events --output out/events`."""

from __future__ import annotations

import argparse
import sys
import time

import pyarrow as pa

from connectors.files.sink import FileSink
from examples.events.cards import card_attempts
from examples.events.journey import Journey
from examples.events.shop import item_scans, session_events
from examples.events.tables import encode, ending_at
from examples.journey.files import say
from schemas.events.event_types import load_event_types

_START_MS = 1_493_596_800_000  # 2017-05-01, within the sample data


def main(argv: list[str] | None = None) -> int:
    """Write OUTPUT/TYPE/events.avro of each type."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", required=True, help="folder to write to")
    parser.add_argument("--events", type=int, default=10_000, help="about how many events of each type (10000)")
    parser.add_argument("--seed", type=int, default=1, help="another seed gives other generated events (1)")
    parser.add_argument("--today", action="store_true", help="move the events so that the last of each type is of now")
    args = parser.parse_args(argv)
    types = load_event_types()
    for name, events in _tables(args.events, args.seed).items():
        events = ending_at(events, int(time.time() * 1000)) if args.today else events
        folder = f"{args.output}/{name}"
        path = FileSink(folder).write("events", types[name].versions[types[name].newest], encode(types[name], events))
        say(f"{path}: {events.num_rows:,} events")
    return 0


def _tables(count: int, seed: int) -> dict[str, pa.Table]:
    journey = Journey()
    return {
        "order_line": journey.order_lines(count),
        "campaign_sent": journey.campaigns_sent(count),
        "coupon_redeemed": journey.coupons_redeemed(count),
        "item_scan": item_scans(count, seed, _START_MS).events,
        "session_event": session_events(max(1, count // 15), seed, _START_MS).events,
        "card_attempt": card_attempts(count, seed, _START_MS).events,
    }


if __name__ == "__main__":
    sys.exit(main())
