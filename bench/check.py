"""Measure `campaigns check` and `campaigns report` over a launch and its receipts; prints JSON.

    python -m bench.check [--receipts 1000000] [--folder out/bench-check]

Makes customers, launches them to files, and writes a receipt for each event with the writer of rebatch; the files of an
earlier run are used again. Then each command runs in a process of its own:

seconds             from start to end, imports included
cpu_us_a_receipt    processor time of the process, per receipt
peak_mb             its largest resident size
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from schemas.delivery import Receipt
from stores.deliveries.receipts import write_receipts

ROOT = Path(__file__).resolve().parent.parent
RETAILERS, PART = 350, 50_000
AT = 1_775_000_000_000
CAMPAIGN = """\
id: bench
surface: storefront
channel: email
audience: "spend >= 0"
experiment: {key: bench-split, variants: [{key: a}, {key: b}]}
content: {template: plain, properties: {name: first_name, spend: spend}}
schedule: {start: "2026-04-01T09:00"}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--receipts", type=int, default=1_000_000)
    parser.add_argument("--folder", type=Path, default=ROOT / "out" / "bench-check")
    args = parser.parse_args()
    folder = args.folder / str(args.receipts)
    if not (folder / "done").exists():
        make(folder, args.receipts)
    launch, receipts = str(folder / "launch"), f"--receipts={folder / 'receipts'}"
    print(json.dumps({name: measure(args.receipts, name, launch, receipts) for name in ("check", "report")}, indent=2))


def make(folder: Path, count: int) -> None:
    """Customers, a launch of one campaign to all of them, and a receipt an event."""
    (folder / "campaigns").mkdir(parents=True, exist_ok=True)
    (folder / "campaigns" / "engine.yaml").write_text("channels: {email: {address: email}}\n")
    (folder / "campaigns" / "bench.yaml").write_text(CAMPAIGN)
    write_customers(folder / "customers.parquet", count)
    run("launch", f"--campaigns={folder / 'campaigns'}", f"--customers={folder / 'customers.parquet'}",
        f"--events=file:{folder / 'events'}", f"--output={folder / 'launch'}", "--launch_id=bench")  # fmt: skip
    for path in sorted((folder / "launch" / "exposures").glob("*.parquet")):
        columns = ["event_id", "campaign_id", "retailer_id", "customer_id", "channel", "variant"]
        rows = pq.read_table(path, columns=columns).to_pylist()
        for start in range(0, len(rows), PART):
            some = [receipt(row, n) for n, row in enumerate(rows[start : start + PART])]
            write_receipts(str(folder / "receipts"), f"{path.stem}-{start:06d}", some)
    (folder / "done").touch()


def write_customers(path: Path, count: int) -> None:
    """Customers of some hundred retailers, each with an address of its own."""
    numbers = np.arange(count)
    texts = pa.array(numbers).cast(pa.string())
    rows = {
        "customer_id": pa.compute.binary_join_element_wise("c", texts, "-"),
        "retailer_id": pa.compute.binary_join_element_wise(
            "store", pa.array(numbers % RETAILERS).cast(pa.string()), "-"
        ),
        "email": pa.compute.binary_join_element_wise(texts, "example.com", "@"),
        "first_name": pa.compute.binary_join_element_wise("Name", pa.array(numbers % 977).cast(pa.string()), " "),
        "spend": pa.array(numbers % 1000 / 4),
    }
    pq.write_table(pa.table(rows), path, row_group_size=1 << 17)


def receipt(row: dict[str, Any], number: int) -> Receipt:
    """One in two thousand is rejected."""
    rejected = number % 2_000 == 0
    return Receipt(
        **row, launch_id="bench", workspace=f"braze:{row['retailer_id']}", batch_id=f"{number // 50:032x}",
        outcome="rejected" if rejected else "accepted", reason="invalid_address" if rejected else None,
        vendor_id=f"dispatch-{number // 50}", attempt=1, resent=False, arrived_at=AT, settled_at=AT + number,
    )  # fmt: skip


def run(*command: str) -> None:
    subprocess.run(
        [sys.executable, "-m", "runners.cli.start", *command], check=True, cwd=ROOT, stdout=subprocess.DEVNULL
    )


def measure(receipts: int, *command: str) -> dict[str, Any]:
    """One command in a process of its own."""
    started = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-m", "runners.cli.start", *command], cwd=ROOT, stdout=subprocess.PIPE)
    assert process.stdout is not None
    told = process.stdout.read().decode()
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{' '.join(command)} ended with {process.returncode}\n{told}")
    return figures(receipts, time.perf_counter() - started, used)


def figures(receipts: int, seconds: float, used: resource.struct_rusage) -> dict[str, Any]:
    """The figures of a process."""
    cpu = used.ru_utime + used.ru_stime
    return {
        "seconds": round(seconds, 2),
        "cpu_s": round(cpu, 2),
        "cpu_us_a_receipt": round(cpu * 1e6 / receipts, 2),
        "peak_mb": used.ru_maxrss // 1024,
    }


if __name__ == "__main__":
    main()
