"""The second half of `make demo`: a day of orders becomes features, and one more order changes them.

    python -m examples.events.demo --output out/demo/features

The orders are the sample data's, moved so that the last one is of now. All runs on the embedded engine and stores.
"""

from __future__ import annotations

import argparse
import io
import shutil
import sys
import time
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from connectors.files.sink import FileSink
from examples.events.journey import Journey
from examples.events.tables import encode, ending_at, event_table
from examples.journey.files import say
from pipelines.collect.driver import run as collect
from pipelines.features.driver import run as features
from schemas.events.event_types import load_event_types
from serving.features.entity import read_entity
from serving.features.reader import FeatureReader
from serving.features.server import load_columns
from serving.features.worker import load_layouts
from stores.features.open import open_store

TYPE, GROUP, GROUPS = "order_line", "household_spend@1", "examples/features"
_DAY_MS = 86_400_000
_LINES = 5_000  # of the study: its first day and some hours
_FOLDERS = ("day", "more", "store", "rows")


def main(argv: list[str] | None = None) -> int:
    """Makes everything in OUTPUT anew; the exit code of a command that fails, or 0."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", required=True, help="folder to write to")
    output = Path(parser.parse_args(argv).output)
    for name in _FOLDERS:
        shutil.rmtree(output / name, ignore_errors=True)

    day = _day(_now())
    household = day["household_id"][-1].as_py()
    say(f"\nA day of orders: {day.num_rows:,} lines, collected and folded into the features of {GROUPS}.")
    if failed := _publish(output, "day", day):
        return failed
    before = _read(output, household)

    order = _order(household, _now())
    if failed := _publish(output, "more", order):
        return failed
    after = _read(output, household)
    seconds = (_now() - order["published_at"][0].as_py()) / 1000
    say(f"Household {household} orders once more. {seconds:.1f} s later it reads, in {GROUP}:")
    for name, (value, quality) in after.items():
        old, _ = before[name]
        say(f"  {name:<20}{old!s:>12} -> {value!s:<12}{quality}{'' if old == value else '  changed'}")
    say(f"Ask again: .venv/bin/campaigns features get household_id={household} --features {GROUPS} "
        f"--store lmdb:{output}/rows")  # fmt: skip
    return 0


def _now() -> int:
    return time.time_ns() // 1_000_000


def _day(now: int) -> pa.Table:
    """The lines of the 24 hours before the last of the sample's first lines, as if that was published now."""
    lines = ending_at(Journey().order_lines(_LINES), now)
    return lines.filter(pc.greater(lines["published_at"], now - _DAY_MS))


def _order(household: str, now: int) -> pa.Table:
    return event_table(
        TYPE, [f"demo-{now}"], pa.array([now - 40]).to_numpy(), 0, household_id=[household], basket_id=["demo"],
        store_id=["store-demo"], product_id=["1"], quantity=[1], sales_cents=[1_299], discount_cents=[0],
        coupon_cents=[0], department=["GROCERY"],
    )  # fmt: skip


def _publish(output: Path, name: str, events: pa.Table) -> int:
    """Writes events to a folder, collects them into the store and folds them; the exit code of what fails, or 0."""
    event_type = load_event_types()[TYPE]
    FileSink(str(output / name)).write("events", event_type.versions[event_type.newest], encode(event_type, events))
    store, rows = f"file:{output}/store", f"lmdb:{output}/rows"
    return _quietly(
        collect, "--source", f"file:{output / name}", "--store", store, "--drain", "--on", "direct"
    ) or _quietly(
        features, "--events", store, "--features", GROUPS, "--feature_store", rows, "--drain", "--idle", "0.2",
        "--on", "direct",
    )  # fmt: skip


def _quietly(run: Callable[[list[str]], int], *words: str) -> int:
    """The exit code of a command, whose counts are shown only if it fails."""
    counts = io.StringIO()
    with redirect_stdout(counts):
        code = int(run(list(words)))
    if code:
        say(counts.getvalue())
    return code


def _read(output: Path, household: str) -> dict[str, Any]:
    """The (value, quality) of each feature of a household, by name."""
    layouts, store = load_layouts(GROUPS, load_columns(None)), open_store(f"lmdb:{output}/rows", read_only=True)
    try:
        found = read_entity(FeatureReader(store, layouts, _now), layouts, {"household_id": household})
    finally:
        store.close()
    return dict(found[GROUP]["features"])


if __name__ == "__main__":
    sys.exit(main())
