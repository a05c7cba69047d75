"""Rolling frequency caps: counts the messages that a customer was sent within a time before another one."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import timedelta

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from schemas.elements import Ints
from transforms.columnar.id_index import IdIndex, joined_key
from transforms.launch_plan import Plan

ReadSends = Callable[[], Iterable[pa.Table]]
"""Reads tables of earlier sends: retailer and customer (large_string), channel, sent_at (epoch milliseconds)."""

_SPAN = np.int64(1) << np.int64(43)
"""Milliseconds that one customer's times may span in the composite key: 278 years."""
_NEVER = np.int64(np.iinfo(np.int64).min // 2)


class SendHistory:
    """The earlier sends of one channel, for counting: customers by key, times sorted within a customer. `first` names
    the first customer."""

    def __init__(self, keys: pa.Array, sent_at: Ints, first: str = "") -> None:
        self.first = first
        unique = keys.dictionary_encode()
        self._index = IdIndex(unique.dictionary)
        codes = unique.indices.to_numpy(zero_copy_only=False).astype(np.int64)
        self._composite = np.sort(codes * _SPAN + _clip(sent_at))

    def __len__(self) -> int:
        """The number of sends."""
        return len(self._composite)

    @property
    def customers(self) -> int:
        """The number of customers with sends."""
        return len(self._index)

    def places(self, keys: pa.Array) -> Ints:
        """The place of each key's sends, -1 for a key without sends."""
        return self._index.find(keys)

    def count(self, places: Ints, at: Ints, within: timedelta) -> Ints:
        """The sends of each place in (at - within, at]; times in epoch milliseconds."""
        base = places * _SPAN
        window = int(within.total_seconds() * 1000)
        up_to = np.searchsorted(self._composite, base + _clip(at), side="right")
        before = np.searchsorted(self._composite, base + _clip(at - window), side="right")
        return np.where(places < 0, 0, up_to - before)


def _clip(times: Ints) -> Ints:
    return np.clip(times, 0, _SPAN - 1)


def send_histories(plan: Plan, read_sends: ReadSends) -> dict[str, SendHistory]:
    """The earlier sends by channel, for each channel of the plan that has a cap."""
    capped = {entry.campaign.channel for entry in plan.campaigns} & {cap.channel for cap in plan.engine.caps}
    tables = list(read_sends()) if capped else []
    sends = {channel: [t.filter(pc.equal(t["channel"], channel)) for t in tables] for channel in capped}
    return {channel: _send_history(parts) for channel, parts in sends.items()}


def _send_history(tables: list[pa.Table]) -> SendHistory:
    retailers, customers = (_joined(tables, name, pa.large_string()) for name in ("retailer", "customer"))
    first = f"{customers[0]} of {retailers[0]}" if len(customers) else ""
    return SendHistory(joined_key(retailers, customers), _joined(tables, "sent_at", pa.int64()).to_numpy(), first)


def _joined(tables: list[pa.Table], name: str, kind: pa.DataType) -> pa.Array:
    return pa.concat_arrays([pa.array([], kind), *(chunk for table in tables for chunk in table[name].chunks)])


class LaunchSends:
    """The sends of earlier campaigns of the same launch on one channel, to the customers of one batch: a row of times
    for each, with as many columns as the customer with the most sends needs."""

    def __init__(self, customers: int) -> None:
        self._times = np.full((customers, 0), _NEVER)
        self._used = np.zeros(customers, np.int64)

    def count(self, rows: Ints, at: Ints, within: timedelta) -> Ints:
        """The sends to each row that are less than `within` away from `at`."""
        near = np.abs(self._times[rows] - at[:, None]) < int(within.total_seconds() * 1000)
        return near.sum(axis=1)

    def add(self, rows: Ints, at: Ints) -> None:
        """Note that the rows are sent to at `at`."""
        places = self._used[rows]
        if len(rows) and places.max() >= self._times.shape[1]:
            self._times = np.hstack([self._times, np.full((len(self._times), 1), _NEVER)])
        self._times[rows, places] = at
        self._used[rows] += 1
