"""Evidence and the use of lists, histories and assignments: JSON data in the counts of a batch, and its sums."""

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
    """Customers for whom an expression was NULL or raised an error: by kind, campaign, field and value their number, an
    example (the first customer's id) and its reason."""

    def __init__(self) -> None:
        self.entries: dict[tuple[str, str, str, str], tuple[int, str, str]] = {}

    def add(self, kind: str, campaign: str, field: str, value: str, count: int, example: str, reason: str) -> None:
        """Add customers; the first example is kept."""
        before = self.entries.get((kind, campaign, field, value))
        if before is not None:
            count, example, reason = count + before[0], before[1], before[2]
        self.entries[kind, campaign, field, value] = (count, example, reason)

    def add_rows(self, rows: Iterable[Any]) -> None:
        """Add the `rows` of a batch."""
        for row in rows:
            self.add(*row)

    def rows(self) -> list[list[Any]]:
        """All evidence as JSON data."""
        return [[*key, *value] for key, value in self.entries.items()]


@dataclass
class ListUse:
    """The number of a list's ids, its first id, a mask of the ids that are customers, and the customers on it."""

    ids: int
    first: str
    known: Bools
    customers: int = 0


class ListUses(dict[tuple[str, str], ListUse]):
    """The use of lists by file and column of the customers."""

    def add_rows(self, rows: Iterable[Any]) -> None:
        """Add the results of `list_use` for a batch."""
        for file, column, ids, first, customers, places in rows:
            use = self.setdefault((file, column), ListUse(ids, first, np.zeros(ids, np.bool_)))
            use.known[np.cumsum(np.frombuffer(zlib.decompress(base64.b64decode(places)), "<i4"))] = True
            use.customers += customers


class EarlierUses(dict[str, list[Any]]):
    """The use of a history by channel, or of earlier assignments by experiment: [number of entries, the first entry,
    customers with an entry]."""

    def add_rows(self, rows: Iterable[Any]) -> None:
        """Add the counts of a batch."""
        for name, entries, first, customers in rows:
            self.setdefault(name, [entries, first, 0])[2] += customers

    def summaries(self, by: str) -> list[dict[str, Any]]:
        """The uses as parts of summary.json."""
        return [{by: name, "entries": use[0], "customers": use[2]} for name, use in sorted(self.items())]


def list_use(file: str, column: str, index: ListIndex, places: Ints) -> list[Any]:
    """The use of a list in a batch, as JSON data; `places` are the customers' positions in the list."""
    on_list = places[places >= 0]
    steps = np.diff(np.unique(on_list), prepend=0).astype("<i4")
    packed = base64.b64encode(zlib.compress(steps.tobytes(), 1)).decode()
    return [file, column, len(index), index.first, len(on_list), packed]
