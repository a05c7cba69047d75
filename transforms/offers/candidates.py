"""The rows of a batch between which the survey decides: those that share an address, and those that want an offer."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from schemas.columns.ids import normal_addresses
from schemas.columns.masks import to_mask
from schemas.elements import Bools, CampaignRows, LaunchBatch
from transforms.columnar.id_index import IdIndex, joined_key
from transforms.launch_plan import Plan
from transforms.offers.generate_offers import Capacity, condition, order_keys, order_name, wanted

SHARING = pa.schema(
    [("campaign", pa.string()), ("address", pa.string()), ("value", pa.int64()), ("tie", pa.binary(32)),
     ("batch", pa.string()), ("row", pa.int64())]
)  # fmt: skip
WANTING = pa.schema(
    [("campaign", pa.string()), ("offer", pa.string()), ("key", pa.binary(32)), ("batch", pa.string()),
     ("row", pa.int64())]
)  # fmt: skip


def ranks(column: pa.Array, highest: bool) -> pa.Array:
    """Whole numbers in the exact order of numbers or times, reversed unless `highest`; null for null and NaN."""
    kind = column.type
    if pa.types.is_floating(kind):
        column = column.cast(pa.float64())
        missing = to_mask(pc.fill_null(pc.is_nan(column), True))
        bits = (column.fill_null(0.0).to_numpy(zero_copy_only=False) + 0.0).view(np.int64)
        order = np.where(bits < 0, bits ^ np.int64(0x7FFFFFFFFFFFFFFF), bits)
    else:
        missing = to_mask(column.is_null())
        if pa.types.is_temporal(kind):
            column = column.view(pa.int32() if kind.bit_width == 32 else pa.int64())
        if pa.types.is_uint64(kind):
            order = (column.fill_null(0).to_numpy(zero_copy_only=False) ^ np.uint64(1 << 63)).view(np.int64)
        else:
            order = column.cast(pa.int64()).fill_null(0).to_numpy(zero_copy_only=False)
    return pa.array(order if highest else ~order, mask=missing)


class CandidateFinder:
    """Finds the candidates of a batch. `shared` are, by channel, the (retailer, address) keys of several customers."""

    def __init__(self, plan: Plan, shared: Mapping[str, IdIndex], capacity: Capacity) -> None:
        self._plan = plan
        self._shared = shared
        self._capacity = capacity

    def find(self, batch: LaunchBatch) -> tuple[pa.Table, pa.Table]:
        """The rows of all campaigns that share an address (SHARING), and those that want a limited offer (WANTING)."""
        sharing, wanting = [SHARING.empty_table()], [WANTING.empty_table()]
        for rows in batch.campaigns:
            shares = self._shares_address(rows)
            if shares.any():
                sharing.append(self._sharing(batch, rows, np.flatnonzero(shares)))
            wanting += self._wanting(batch, rows, shares)
        return pa.concat_tables(sharing), pa.concat_tables(wanting)

    def _address_keys(self, rows: CampaignRows) -> pa.Array:
        return joined_key(rows.retailer.cast(pa.string()), normal_addresses(rows.recipient))

    def _shares_address(self, rows: CampaignRows) -> Bools:
        index = self._shared.get(self._plan.campaign_plan(rows.campaign).campaign.channel)
        if index is None or not len(rows.rows):
            return np.zeros(len(rows.rows), np.bool_)
        return index.contains(self._address_keys(rows)) & rows.emitted

    def _sharing(self, batch: LaunchBatch, rows: CampaignRows, chosen: np.ndarray) -> pa.Table:
        rule = self._plan.engine.shared_address
        n = len(chosen)
        value = pa.nulls(n, pa.int64())
        if rule.column is not None:
            value = ranks(batch.rows.column(rule.column).take(pa.array(rows.rows[chosen])), rule.keep == "highest")
        tie = order_keys(self._plan, rows, "shared address", chosen)
        return pa.table(
            [
                pa.repeat(rows.campaign, n),
                self._address_keys(rows).take(pa.array(chosen)),
                value,
                _fixed_width(tie),
                pa.repeat(batch.name, n),
                pa.array(batch.places[rows.rows[chosen]]),
            ],
            schema=SHARING,
        )

    def _wanting(self, batch: LaunchBatch, rows: CampaignRows, shares: Bools) -> list[pa.Table]:
        campaign = self._plan.campaign_plan(rows.campaign).campaign
        tables = []
        for offer in campaign.offers:
            if not offer.limited:
                continue
            chosen = np.flatnonzero(wanted(campaign, rows, offer.id) & condition(batch, rows, offer))
            keys = order_keys(self._plan, rows, order_name(campaign, offer.id), chosen)
            keep = _may_be_granted(keys, shares[chosen], self._capacity[campaign.id, offer.id])
            n = int(np.count_nonzero(keep))
            ids = [pa.repeat(campaign.id, n), pa.repeat(offer.id, n), _fixed_width(keys[keep])]
            places = pa.array(batch.places[rows.rows[chosen[keep]]])
            tables.append(pa.table([*ids, pa.repeat(batch.name, n), places], schema=WANTING))
        return tables


def _may_be_granted(keys: np.ndarray, shares: Bools, size: int) -> Bools:
    """Whether each key can be among the first `size` of all batches; any row that shares an address may drop out."""
    certain = np.sort(keys[~shares])
    if size >= len(certain):
        return np.ones(len(keys), np.bool_)
    if size == 0:
        return np.zeros(len(keys), np.bool_)
    return keys <= certain[size - 1]


def _fixed_width(keys: np.ndarray) -> pa.Array:
    return pa.Array.from_buffers(pa.binary(32), len(keys), [None, pa.py_buffer(np.ascontiguousarray(keys))])
