"""Kinds of ids and of values that a column of customers rarely holds: each gives the value of a row."""

from __future__ import annotations

import decimal
from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

import pyarrow as pa

IDS: dict[str, Callable[[int], Any]] = {
    "whole floats": lambda n: float(n + 1),
    "large floats": lambda n: float(2**60 + n * 4096),
    "fractions": lambda n: n + 0.5,
    "one fraction": lambda n: 12.5 if n == 3 else float(n + 1_000_000),
    "not a number": lambda n: float("nan") if n % 2 else float(n),
    "infinity": lambda n: float("inf") if n % 2 else float(n),
    "decimals": lambda n: f"{n}.10",
    "exponents": lambda n: f"{n}e5",
    "booleans": lambda n: n % 2 == 0,
    "words of booleans": lambda n: ("true", "TRUE", "False", "no")[n % 4] + str(n // 4),
    "dates": lambda n: date(2026, 1, 1 + n % 28),
    "times": lambda n: datetime(2026, 1, 1 + n % 28, n % 24, 0, 0, 1),
    "texts of times": lambda n: f"2026-01-{1 + n % 28:02d} 10:00",
    "lists": lambda n: [n],
    "structs": lambda n: {"id": n},
    "bytes": lambda n: b"c-%d" % n,
    "bytes that are no text": lambda n: b"\xff%d" % n,
    "nothing": lambda n: None,
    "some nothing": lambda n: None if n % 3 == 0 else f"c-{n}",
    "blanks": lambda n: ("", " ", "\t")[n % 3] if n % 4 == 0 else f" c-{n} ",
    "all alike": lambda n: "c-1",
    "control characters": lambda n: f"c\x01\n{n}" if n % 2 else f"c-{n}",
    "long": lambda n: "c" * 300 + str(n) if n % 2 else f"c-{n}",
    "beyond 64 bits": lambda n: str(2**64 + n),
    "near 64 bits": lambda n: 2**63 - 1 - n,
    "negative": lambda n: -n,
    "signs": lambda n: f"+{n}",
    "underscores": lambda n: f"1_{n:03d}",
    "commas": lambda n: f"1,{n:03d}",
    "not a number as text": lambda n: (
        ("NaN", "nan", "NULL", "inf", "-0", "None", "N/A", "0")[n % 8] + ("" if n < 8 else str(n))
    ),
    "hexadecimal": lambda n: f"0x{n:x}",
    "surrogates": lambda n: f"c-{n}\U0001f600\u200d",
    "other forms": lambda n: ("é", "é")[n % 2] + str(n // 2),
    "decimal numbers": lambda n: decimal.Decimal(n) / 4,
    "whole decimals": lambda n: decimal.Decimal(10**30 + n),
}
VALUES: dict[str, tuple[pa.DataType | None, Callable[[int], Any]]] = {
    "text": (None, lambda n: f"v{n}"),
    "nothing": (pa.null(), lambda n: None),
    "booleans": (None, lambda n: n % 2 == 0),
    "not a number": (pa.float64(), lambda n: (float("nan"), 1.5, float("inf"), None)[n % 4]),
    "half floats": (pa.float16(), lambda n: float(n)),
    "large": (pa.uint64(), lambda n: 2**64 - 1 - n),
    "small": (pa.int8(), lambda n: n - 50),
    "decimals": (pa.decimal128(38, 10), lambda n: decimal.Decimal(n)),
    "large decimals": (pa.decimal256(60, 0), lambda n: decimal.Decimal(10**50 + n)),
    "days": (pa.date32(), lambda n: date(1 + n * 300, 1, 1)),
    "days in ms": (pa.date64(), lambda n: date(2000 + n, 1, 1)),
    "seconds": (pa.timestamp("s"), lambda n: datetime(2000 + n, 1, 1)),
    "nanoseconds": (pa.timestamp("ns"), lambda n: datetime(2000 + n, 1, 1)),
    "nanoseconds with a zone": (pa.timestamp("ns", "UTC"), lambda n: datetime(2000 + n, 1, 1, tzinfo=UTC)),
    "a zone of its own": (pa.timestamp("us", "+05:30"), lambda n: datetime(2000 + n, 1, 1, tzinfo=UTC)),
    "far times": (pa.timestamp("s"), lambda n: 2**40 + n),
    "times of day": (pa.time64("ns"), lambda n: time(n % 24)),
    "durations": (pa.duration("us"), lambda n: timedelta(days=n)),
    "lists": (pa.list_(pa.string()), lambda n: [str(n), None]),
    "lists of lists": (pa.list_(pa.list_(pa.int64())), lambda n: [[n], None, []]),
    "structs": (pa.struct([("a", pa.struct([("b", pa.int64())]))]), lambda n: {"a": {"b": n}}),
    "maps": (pa.map_(pa.string(), pa.int64()), lambda n: [("a", n)]),
    "bytes": (pa.binary(), lambda n: b"\xff\x00%d" % n),
    "fixed bytes": (pa.binary(3), lambda n: b"abc"),
    "dictionaries": (pa.dictionary(pa.int8(), pa.string()), lambda n: "ab"[n % 2]),
    "months and days": (pa.month_day_nano_interval(), lambda n: pa.MonthDayNano([n, 1, 1])),
    "large lists": (pa.large_list(pa.int64()), lambda n: [n]),
    "texts of times": (None, lambda n: f"2026-01-{1 + n % 28:02d}T10:00:00.123456Z"),
    "texts of numbers": (None, lambda n: f"{n},5" if n % 2 else str(n)),
    "odd zones": (
        None,
        lambda n: ("america/new_york", " Asia/Tokyo ", "Nowhere", "", "EST5EDT", "+02:00", "../../etc", "\x00")[n % 8],
    ),
}
