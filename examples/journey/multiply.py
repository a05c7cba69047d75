"""Make any number of customers from the sample: copy k of hh-12 is hh-12-k, a household with its own addresses.

    python -m examples.journey.multiply --customers out/customers.parquet --output DIR --customers-wanted 4000000

Spend, recency and all other figures stay the same. If two customers share an address, their copies share one too. The
copies follow each other, all in the same shuffled order. The files differ by at most one row; a file of ten thousand
rows or more has customers of every retailer.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from examples.journey.files import say, whole_file

ROW_GROUP = 131_072
MOST_COPIES = 100_003
"""A copy's household is the household's number times this, plus the copy's number. So every number is unique. This is
prime, so `household_id % n` divides the customers evenly for every small n."""
_HAS_ALL = ("customer_id", "retailer_id", "household_id", "email", "phone", "push_token")


def main(argv: Sequence[str] | None = None) -> int:
    """Write the files. Returns the exit code: 2 if an option is wrong."""
    parser = argparse.ArgumentParser(
        prog="python -m examples.journey.multiply", description="Multiply the sample customers."
    )
    parser.add_argument("--customers", required=True, type=Path, help="what examples.journey.customers wrote")
    parser.add_argument("--output", required=True, type=Path, help="folder; customers-*.parquet in it are replaced")
    parser.add_argument("--customers-wanted", required=True, type=int, help="rows over all files")
    parser.add_argument("--files", type=int, default=16, help="number of files (16)")
    args = parser.parse_args(argv)
    if mistake := _mistake(args.customers, args.customers_wanted, args.files):
        say(f"{parser.prog}: {mistake}")
        return 2
    multiply(args.customers, args.output, args.customers_wanted, args.files)
    return 0


def multiply(customers: Path, output: Path, wanted: int, files: int) -> None:
    """Write `wanted` customers into `files` files. One row group is in memory at a time."""
    started = time.monotonic()
    source = mixed(pq.read_table(customers))
    for old_file in output.glob("customers-*.parquet"):
        old_file.unlink()
    for number in range(files):
        first, end = wanted * number // files, wanted * (number + 1) // files
        with whole_file(output / f"customers-{number:05d}.parquet", source.schema) as writer:
            for row in range(first, end, ROW_GROUP):
                writer.write_table(copies(source, row, min(row + ROW_GROUP, end)), ROW_GROUP)
        say(f"{end:,} of {wanted:,} customers, {time.monotonic() - started:.0f} s")


def mixed(customers: pa.Table) -> pa.Table:
    """The customers in a fixed order that is independent of retailer and household."""
    ids = zip(customers["retailer_id"].to_pylist(), customers["customer_id"].to_pylist(), strict=True)
    keys = pa.array([hashlib.sha256(f"{retailer} {customer}".encode()).digest() for retailer, customer in ids])
    return customers.take(pc.sort_indices(keys)).combine_chunks()


def copies(source: pa.Table, first: int, end: int) -> pa.Table:
    """The rows [first, end) of the endless table that is copy 1 of the source, then copy 2 and so on."""
    rows = np.arange(first, end)
    copy = rows // source.num_rows + 1
    text = pa.array(copy).cast(pa.string())
    table = source.take(pa.array(rows % source.num_rows)).combine_chunks()
    email = pc.extract_regex(table["email"], r"^(?P<local>[^@]*)(?P<domain>.*)$").combine_chunks()
    households = pc.add(pc.multiply(table["household_id"], MOST_COPIES), pa.array(copy))
    changed = {
        "customer_id": _joined(table["customer_id"], "-", text),
        "household_id": households.cast(table.schema.field("household_id").type),
        "email": _joined(pc.struct_field(email, "local"), ".", text, pc.struct_field(email, "domain")),
        "phone": _joined(table["phone"], ";ext=", text),
        "push_token": _joined(table["push_token"], "-", text),
    }
    return pa.table([changed.get(name, table[name]) for name in table.column_names], table.schema)


def _joined(*parts: pa.Array | str) -> pa.Array:
    """The parts of each row as one text; null if one of them is null."""
    return pc.binary_join_element_wise(*parts, "")


def _mistake(customers: Path, wanted: int, files: int) -> str | None:
    if not customers.is_file():
        return f"--customers {customers}: no such file; make it by python -m examples.journey.customers"
    if missing := [name for name in _HAS_ALL if name not in pq.read_schema(customers).names]:
        return f"--customers {customers}: has no column {missing[0]}; make it by python -m examples.journey.customers"
    most = (MOST_COPIES - 1) * pq.read_metadata(customers).num_rows
    if not 1 <= wanted <= most:
        return f"--customers-wanted {wanted}: from 1 to {most:,} customers can be made of this file"
    if not 1 <= files <= wanted:
        return f"--files {files}: give a number from 1 to that of the customers"
    return None


if __name__ == "__main__":
    sys.exit(main())
