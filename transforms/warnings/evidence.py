"""What a batch tells about the inputs, as JSON data beside its counts, and the sums over batches."""

from __future__ import annotations

import base64
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from schemas.elements import Bools, Ints
from transforms.columnar.list_index import ListIndex

FORCED = "forced"
"""The kind of evidence that a customer has a unit which an experiment forces into a variant."""


class Evidence:
    """Customers for whom an expression was NULL or raised an error: by kind, campaign, field and value a count, an
    example (the first customer's id) and its reason."""

    def __init__(self) -> None:
        self.found: dict[tuple[str, str, str, str], tuple[int, str, str]] = {}

    def add(
        self, kind: str, campaign: str, field: str, value: str, count: int, example: str = "", reason: str = ""
    ) -> None:
        """Add some customers; the first example stays."""
        before = self.found.get((kind, campaign, field, value))
        if before is not None:
            count, example, reason = count + before[0], before[1], before[2]
        self.found[kind, campaign, field, value] = (count, example, reason)

    def add_rows(self, rows: Iterable[Any]) -> None:
        """Add what `rows` gave of a batch."""
        for row in rows:
            self.add(*row)

    def rows(self) -> list[list[Any]]:
        """All of it as JSON data."""
        return [[*key, *found] for key, found in self.found.items()]


@dataclass
class ListUse:
    """How a list is used: its ids, its first one, which of them are customers, and the customers that are on it."""

    ids: int
    first: str
    known: Bools
    customers: int = 0


class ListUses(dict[tuple[str, str], ListUse]):
    """By list file and customers' column."""

    def add_rows(self, rows: Iterable[Any]) -> None:
        """Add what `list_use` gave of a batch."""
        for file, column, ids, first, customers, places in rows:
            use = self.setdefault((file, column), ListUse(ids, first, np.zeros(ids, np.bool_)))
            use.known[np.cumsum(np.frombuffer(zlib.decompress(base64.b64decode(places)), "<i4"))] = True
            use.customers += customers


class EarlierUses(dict[str, list[Any]]):
    """What earlier launches left, by channel of the history or by experiment: [how many entries, the first one, the
    customers that have one]."""

    def add_rows(self, rows: Iterable[Any]) -> None:
        """Add what a batch counted."""
        for name, entries, first, customers in rows:
            self.setdefault(name, [entries, first, 0])[2] += customers

    def summaries(self, by: str) -> list[dict[str, Any]]:
        """As parts of summary.json."""
        return [{by: name, "entries": use[0], "customers": use[2]} for name, use in sorted(self.items())]


def list_use(file: str, column: str, index: ListIndex, places: Ints) -> list[Any]:
    """One list in one batch, as JSON data; `places` is what the list's index finds for each customer."""
    found = places[places >= 0]
    steps = np.diff(np.unique(found), prepend=0).astype("<i4")
    packed = base64.b64encode(zlib.compress(steps.tobytes(), 1)).decode()
    return [file, column, len(index), index.first, len(found), packed]
