"""Rolling frequency caps: how many messages a customer had within a time before another one."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta

import numpy as np
import pyarrow as pa

from schemas.elements import Bools, Ints
from transforms.ids.id_index import IdIndex

_SPAN = np.int64(1) << np.int64(43)
"""Milliseconds that one customer's times may span in the composite key: 278 years."""
_NEVER = np.int64(np.iinfo(np.int64).min // 2)


class SendHistory:
    """The sends of one channel, made for counting: customers by key, times sorted within a customer."""

    def __init__(self, keys: pa.Array, sent_at: Ints) -> None:
        unique = keys.dictionary_encode()
        self._index = IdIndex.build(unique.dictionary)
        codes = unique.indices.to_numpy(zero_copy_only=False).astype(np.int64)
        self._composite = np.sort(codes * _SPAN + _clip(sent_at))

    def __len__(self) -> int:
        """How many sends it has."""
        return len(self._composite)

    def places(self, keys: pa.Array) -> Ints:
        """Where each key's sends stand, -1 for a key without any."""
        return self._index.find(keys)

    def count(self, places: Ints, at: Ints, within: timedelta) -> Ints:
        """For each row the sends at its place in (at - within, at]; times in epoch milliseconds."""
        base = places * _SPAN
        window = int(within.total_seconds() * 1000)
        up_to = np.searchsorted(self._composite, base + _clip(at), side="right")
        before = np.searchsorted(self._composite, base + _clip(at - window), side="right")
        counts: Ints = np.where(places < 0, 0, up_to - before)
        return counts


def _clip(times: Ints) -> Ints:
    clipped: Ints = np.clip(times, 0, _SPAN - 1)
    return clipped


class LaunchSends:
    """The sends that earlier campaigns of the same launch have taken for the customers of one batch."""

    def __init__(self, customers: int) -> None:
        self._customers = customers
        self._taken: dict[str, _Taken] = {}

    def count(self, channel: str, rows: Ints, at: Ints, within: timedelta) -> Ints:
        """For each row the sends of the channel less than `within` away from `at`."""
        taken = self._taken.get(channel)
        if taken is None:
            return np.zeros(len(rows), np.int64)
        near = np.abs(taken.times[rows] - at[:, None]) < int(within.total_seconds() * 1000)
        counts: Ints = near.sum(axis=1)
        return counts

    def take(self, channel: str, rows: Ints, at: Ints, sent: Bools) -> None:
        """Note that these rows will be sent to."""
        taken = self._taken.setdefault(channel, _Taken(self._customers))
        taken.add(rows[sent], at[sent])


class _Taken:
    """The times taken by each customer, side by side: as many columns as the busiest one has."""

    def __init__(self, customers: int) -> None:
        self.times = np.full((customers, 1), _NEVER)
        self._used = np.zeros(customers, np.int64)

    def add(self, rows: Ints, at: Ints) -> None:
        places = self._used[rows]
        if len(rows) and places.max() >= self.times.shape[1]:
            self.times = np.hstack([self.times, np.full((len(self.times), 1), _NEVER)])
        self.times[rows, places] = at
        self._used[rows] += 1


def history_of(tables: Iterable[pa.Table], retailer: str, customer: str) -> pa.Table:
    """The sends of several files as one table: key columns as text, channel, sent_at in epoch milliseconds.

    A file has the columns customer and retailer ids, `channel` and `sent_at`; a launch's exposures also
    serve: of those the emitted, untested, unforced rows count, at their `deliver_after`.
    """
    parts = [_sends(table, retailer, customer) for table in tables]
    empty = pa.table(
        {"retailer": pa.array([], pa.string()), "customer": pa.array([], pa.string()),
         "channel": pa.array([], pa.string()), "sent_at": pa.array([], pa.int64())}
    )  # fmt: skip
    return pa.concat_tables([empty, *parts])


def _sends(table: pa.Table, retailer: str, customer: str) -> pa.Table:
    at = "sent_at"
    if "outcome" in table.column_names:
        retailer, customer, at = "retailer_id", "customer_id", "deliver_after"
        sent = np.array(table["outcome"].cast(pa.string()).to_numpy(zero_copy_only=False) == "emitted")
        table = table.filter(pa.array(sent & ~table["test"].to_numpy(zero_copy_only=False)))
    return pa.table(
        {
            "retailer": table[retailer].cast(pa.string()),
            "customer": table[customer].cast(pa.string()),
            "channel": table["channel"].cast(pa.string()),
            "sent_at": table[at].cast(pa.timestamp("ms")).cast(pa.int64()),
        }
    )
