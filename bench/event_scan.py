"""What decoding and the rules cost an event: `python -m bench.event_scan`, one line of JSON on stdout.

`decode_rules_us` is the CPU an order_line at 1,000 events a poll, the least of several rounds: its version found, all
15 columns decoded, 9 rules of the type and those of every type applied. `fastavro_us` is what reading the same bodies
one by one costs in the same run, without any rule.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa

from schemas.codec.avro_columns import encode_records
from schemas.contracts import read_record
from schemas.events.event_types import EventType, load_event_types
from schemas.events.framing import frame
from schemas.transport import Envelope
from transforms.features.scan_events import scan

NOW = 1_800_000_000_000


def poll_of(event_type: EventType, version: int, count: int) -> list[Envelope]:
    """A poll of order lines, framed as the event store has them."""
    at = pa.array(np.arange(count, dtype=np.int64) * 37 + NOW - 600_000)
    numbers = pa.array(np.arange(count, dtype=np.int64) % 700)
    columns: dict[str, Any] = {
        "event_id": pa.array([f"01890a5d-ac96-774b-bcce-{place:012x}" for place in range(count)]),
        "type": "order_line",
        "version": version,
        "occurred_at": at,
        "published_at": at,
        "producer": "orders",
        "household_id": pa.array([f"hh-{place * 7919 % 2469}" for place in range(count)]),
        "basket_id": pa.array([str(31198570044 + place // 8) for place in range(count)]),
        "store_id": pa.array([f"store-{place * 31 % 457}" for place in range(count)]),
        "product_id": pa.array([str(1095275 + place * 17 % 9000) for place in range(count)]),
        "quantity": numbers,
        "sales_cents": numbers,
        "discount_cents": numbers,
        **({"coupon_cents": numbers, "department": "GROCERY"} if version > 1 else {}),
    }
    bodies = encode_records(event_type.versions[version], columns, count).to_pylist()
    start = frame(event_type, version)
    return [Envelope(f"3:{place}", {}, start + body, NOW) for place, body in enumerate(bodies)]


def least(work: Callable[[], object], count: int, rounds: int) -> float:
    """The least CPU an event, in µs."""
    best = float("inf")
    for _ in range(rounds):
        began = time.process_time_ns()
        work()
        best = min(best, (time.process_time_ns() - began) / count / 1000)
    return round(best, 3)


def main() -> None:
    """Print the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=1_000, help="events a poll (1000)")
    parser.add_argument("--rounds", type=int, default=200, help="rounds, of which the least counts (200)")
    args = parser.parse_args()
    event_type = load_event_types()["order_line"]
    polls = {version: poll_of(event_type, version, args.events) for version in event_type.versions}
    mixed = [polls[1 + place % 2][place] for place in range(args.events)]
    assert len(scan(event_type, mixed, NOW).events) == args.events
    newest = polls[event_type.newest]
    bodies = [envelope.body[5:] for envelope in newest]
    schema = event_type.versions[event_type.newest]
    few = ("household_id", "sales_cents")
    figures = {
        "events": args.events,
        "decode_rules_us": least(lambda: scan(event_type, newest, NOW), args.events, args.rounds),
        "mixed_versions_us": least(lambda: scan(event_type, mixed, NOW), args.events, args.rounds),
        "few_columns_us": least(lambda: scan(event_type, newest, NOW, columns=few), args.events, args.rounds),
        "fastavro_us": least(lambda: [read_record(schema, None, body) for body in bodies], args.events, 5),
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
