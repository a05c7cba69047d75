"""A feature server for tests: declarations in a folder, rows in a store, and the server as a process."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from schemas.features.stamps import Stamp
from transforms.features.layout import Layout, tile_code
from transforms.features.rows import encode_rows
from transforms.features.tiles import empty_parts

ROOT = Path(__file__).parents[2]
DECLARATIONS = '''
"""Features of the tests."""
from schemas.features.declarations import Aggregation, FeatureGroup

SPEND = FeatureGroup(
    "spend", 1, "order_line", ("household_id",),
    (
        Aggregation("count", windows=("1h", "7d"), name="lines", default=0),
        Aggregation("max", "sales_cents", ("7d",)),
    ),
    "team", max_age="6h",
)
SALES = FeatureGroup(
    "sales", 2, "order_line", ("store_id", "product_id"),
    (Aggregation("count", windows=("7d",), name="sold", default=0), Aggregation("last_k", "sales_cents", ("7d",), k=2)),
    "team",
)
PEAKS = FeatureGroup(
    "peaks", 1, "spend@1", ("household_id",),
    (Aggregation("max", "lines", ("7d",), default=0), Aggregation("count", windows=("1d",), name="hours", default=0)),
    "team", every="1h",
)
'''


def write_declarations(folder: Path) -> Path:
    """Writes the declarations, and gives their folder."""
    folder.mkdir()
    (folder / "orders.py").write_text(DECLARATIONS)
    return folder


def row_at(layout: Layout, times: Sequence[int], amount: int = 700) -> bytes:
    """A row with a tile of an hour for each time (epoch ms), of one event of an amount."""
    codes = sorted(int(tile_code(np.array([time]), 3)[0]) for time in times)
    tiles = np.ones(len(codes), layout.tile)
    tiles["tile"] = codes
    if "1.max" in (layout.tile.names or ()):
        tiles["1.max"] = amount
    parts = empty_parts(layout)._replace(tile_entities=np.zeros(len(codes), np.int64), tiles=tiles)
    return encode_rows(layout, parts, [Stamp(0, 1)])[0]


@contextmanager
def running_server(store: str, features: Path, *more: str) -> Iterator[tuple[subprocess.Popen[str], list[str]]]:
    """The command `campaigns features serve` on free ports, and the addresses that it printed."""
    command = [
        sys.executable,
        "-m",
        "runners.cli.start",
        "features",
        "serve",
        "--store",
        store,
        "--features",
        str(features),
        "--port",
        "0",
        *more,
    ]
    process = subprocess.Popen(
        command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        yield process, line.split()
    finally:
        process.kill()
        process.wait()
