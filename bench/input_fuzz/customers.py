"""Customers in which nothing is wrong, in every format, with ids and names of many kinds."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pyarrow as pa
from hypothesis import strategies as st

from bench.input_fuzz.inputs import Facts
from bench.input_fuzz.tables import FORMATS, Table

Draw = Callable[[st.SearchStrategy[Any]], Any]
IDS: dict[str, Callable[[int], Any]] = {
    "text": lambda n: f"c-{n}",
    "numbers": lambda n: n + 1,
    "large numbers": lambda n: 2**53 - n,
    "leading zeros": lambda n: f"{n:05d}",
    "other letters": lambda n: f"é{n}-日本 ü",
    "separators": lambda n: f"a,{n};b|c",
    "quotes": lambda n: f"o\"{n}'x",
    "upper and lower": lambda n: f"{'Cc'[n % 2]}{n // 2}",
    "hex": lambda n: f"{n:032x}",
    "emails": lambda n: f"person.{n}@example.com",
}
NAMES = ("Ann", None, "O'Brien", "Zoë", "", "Name, Jr.", '"Q"', "日本", "x" * 300, "a\tb")
ZONES = ("America/New_York", "Asia/Tokyo", "UTC", None, "Europe/Berlin")
START = datetime(2021, 3, 4, 5, 6, 7)


def one_of(draw: Draw, *values: Any) -> Any:
    """One of the values."""
    return draw(st.sampled_from(values))


def chance(draw: Draw, of: int = 2) -> bool:
    """True once in `of` times."""
    return bool(draw(st.integers(0, of - 1)) == of - 1)


def customers(draw: Draw) -> tuple[Table, Facts]:
    rows = draw(st.integers(1, 30))
    identity = IDS[one_of(draw, *IDS)]
    stores = draw(st.integers(1, 4))
    numbered = chance(draw, 5)

    def retailer(n: int) -> Any:
        return n % stores if numbered else "marketplace" if n % 7 == 6 else f"store-{n % stores}"

    shift = draw(st.integers(0, len(NAMES) - 1))
    columns: dict[str, list[Any]] = {
        "customer_id": [identity(n) for n in range(rows)],
        "retailer_id": [retailer(n) for n in range(rows)],
        "household": [n // 2 for n in range(rows)],
        "first_name": [NAMES[(n + shift) % len(NAMES)] for n in range(rows)],
        "email": [f"c{n - n % 5 if n % 5 == 1 else n}@example.com" for n in range(rows)],
        "phone": [f"+1555{n:07d}" for n in range(rows)],
        "email_consent": [n % 6 != 5 for n in range(rows)],
        "spend": [None if n % 9 == 8 else n * 1.25 for n in range(rows)],
        "orders": [n % 13 for n in range(rows)],
        "signed_up": [START + timedelta(days=n, hours=n) for n in range(rows)],
        "tz": [ZONES[n % len(ZONES)] for n in range(rows)],
    }
    types = {"first_name": pa.string(), "tz": pa.string(), "spend": pa.float64()}
    table = Table(columns, types, format=one_of(draw, *FORMATS))
    if table.format.startswith("csv"):
        table.separator, table.line_end = one_of(draw, ",", ";", "\t", "|"), one_of(draw, "\n", "\r\n")
        table.quote_all, table.encoding = chance(draw, 4), one_of(draw, "utf-8", "utf-8", "utf-8-sig")
    if rows >= 4 and chance(draw, 5):
        table.files = 2
    if chance(draw, 6):  # the first row counts, the second is a dead letter
        for values in columns.values():
            values.append(values[0])
    if "json" in table.format:  # times are text there
        columns["signed_up"] = [START.date()] * 0 or [str(v) for v in columns["signed_up"]]
    _sign_up(draw, table)
    pairs = {(str(c), str(r)) for c, r in zip(columns["customer_id"], columns["retailer_id"], strict=True)}
    facts = Facts(rows=table.rows, customers=pairs)
    return table, facts


def _sign_up(draw: Draw, table: Table) -> None:
    """Times of another unit or zone, or days, where the format has types of its own."""
    if table.format not in ("parquet", "avro"):
        return
    kind = one_of(draw, "plain", "zone", "date")
    values = table.columns["signed_up"]
    if kind == "zone":
        table.columns["signed_up"] = [value.replace(tzinfo=UTC) for value in values]
    if kind == "date":
        table.columns["signed_up"] = [date(value.year, value.month, value.day) for value in values]
    if kind == "plain" and table.format == "parquet":
        table.types["signed_up"] = pa.timestamp(one_of(draw, "s", "ms", "us", "ns"))
