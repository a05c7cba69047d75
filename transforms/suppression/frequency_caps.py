"""Rolling frequency caps: how many messages a customer had within a time before another one."""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import pyarrow as pa

from schemas.elements import Bools, Ints
from transforms.columnar.id_index import IdIndex

_SPAN = np.int64(1) << np.int64(43)
"""Milliseconds that one customer's times may span in the composite key: 278 years."""
_NEVER = np.int64(np.iinfo(np.int64).min // 2)


class SendHistory:
    """The sends of one channel, made for counting: customers by key, times sorted within a customer; `first` names the
    first customer."""

    def __init__(self, keys: pa.Array, sent_at: Ints, first: str = "") -> None:
        self.first = first
        unique = keys.dictionary_encode()
        self._index = IdIndex.build(unique.dictionary)
        codes = unique.indices.to_numpy(zero_copy_only=False).astype(np.int64)
        self._composite = np.sort(codes * _SPAN + _clip(sent_at))

    def __len__(self) -> int:
        """How many sends it has."""
        return len(self._composite)

    @property
    def customers(self) -> int:
        """Of how many customers it has sends."""
        return len(self._index)

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
