"""What the survey must know of each batch: who shares an address, and who stands in which queue."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from schemas.columns.ids import normal_addresses
from schemas.columns.masks import to_mask
from schemas.elements import Bools, CampaignRows, LaunchBatch
from schemas.outcomes import EMITTED
from transforms.columnar.id_index import IdIndex, joined_key
from transforms.offers.generate import condition, order_keys, queue_name, wanted
from transforms.plan import Plan

SHARED = pa.schema(
    [("campaign", pa.string()), ("address", pa.string()), ("value", pa.int64()), ("tie", pa.binary(32)),
     ("batch", pa.string()), ("row", pa.int64())]
)  # fmt: skip
QUEUED = pa.schema(
    [("campaign", pa.string()), ("offer", pa.string()), ("key", pa.binary(32)), ("batch", pa.string()),
     ("row", pa.int64())]
)  # fmt: skip


def ranks(column: pa.Array, highest: bool) -> pa.Array:
    """Whole numbers in the exact order of a column's numbers or times, or in the reverse; null where there is no value
    or NaN."""
    kind = column.type
    if pa.types.is_floating(kind):
        column = column.cast(pa.float64())
        nothing = to_mask(pc.fill_null(pc.is_nan(column), True))
        bits = (column.fill_null(0.0).to_numpy(zero_copy_only=False) + 0.0).view(np.int64)
        order = np.where(bits < 0, bits ^ np.int64(0x7FFFFFFFFFFFFFFF), bits)
    else:
        nothing = to_mask(column.is_null())
        if pa.types.is_temporal(kind):
            column = column.view(pa.int32() if kind.bit_width == 32 else pa.int64())
        if pa.types.is_uint64(kind):
            order = (column.fill_null(0).to_numpy(zero_copy_only=False) ^ np.uint64(1 << 63)).view(np.int64)
        else:
            order = column.cast(pa.int64()).fill_null(0).to_numpy(zero_copy_only=False)
    return pa.array(order if highest else ~order, mask=nothing)


class Surveyor:
    """Candidates of a batch. `shared` knows, by channel, the (retailer, address) keys that occur more than
    once; `sizes` how many each limited offer can serve, by (campaign, offer)."""

    def __init__(self, plan: Plan, shared: Mapping[str, IdIndex], sizes: Mapping[tuple[str, str], int]) -> None:
        self._plan = plan
        self._shared = shared
        self._sizes = sizes

    def survey(self, batch: LaunchBatch) -> tuple[pa.Table, pa.Table]:
        """The rows with shared addresses and the rows queued for limited offers, of all campaigns."""
        shared, queued = [SHARED.empty_table()], [QUEUED.empty_table()]
        for rows in batch.campaigns:
            sharing = self._sharing(rows)
            if sharing.any():
                shared.append(self._candidates(batch, rows, np.flatnonzero(sharing)))
            queued += self._queues(batch, rows, sharing)
        return pa.concat_tables(shared), pa.concat_tables(queued)

    def _addresses(self, rows: CampaignRows) -> pa.Array:
        return joined_key(rows.retailer.cast(pa.string()), normal_addresses(rows.recipient))

    def _sharing(self, rows: CampaignRows) -> Bools:
        index = self._shared.get(self._plan.of(rows.campaign).campaign.channel)
        if index is None or not len(rows.rows):
            return np.zeros(len(rows.rows), np.bool_)
        found: Bools = index.contains(self._addresses(rows)) & (rows.outcome == EMITTED)
        return found

    def _candidates(self, batch: LaunchBatch, rows: CampaignRows, chosen: np.ndarray) -> pa.Table:
        rule = self._plan.engine.shared_address
        n = len(chosen)
        value = pa.nulls(n, pa.int64())
        if rule.column is not None:
            value = ranks(batch.rows.column(rule.column).take(pa.array(rows.rows[chosen])), rule.keep == "highest")
        tie = order_keys(self._plan, rows, "shared address", chosen)
        return pa.table(
            [
                pa.repeat(rows.campaign, n),
                self._addresses(rows).take(pa.array(chosen)),
                value,
                _fixed(tie),
                pa.repeat(batch.name, n),
                pa.array(batch.places[rows.rows[chosen]]),
            ],
            schema=SHARED,
        )

    def _queues(self, batch: LaunchBatch, rows: CampaignRows, sharing: Bools) -> list[pa.Table]:
        campaign = self._plan.of(rows.campaign).campaign
        tables = []
        for offer in campaign.offers:
            if not offer.limited:
                continue
            chosen = np.flatnonzero(wanted(campaign, rows, offer.id) & condition(batch, rows, offer))
            keys = order_keys(self._plan, rows, queue_name(campaign, offer.id), chosen)
            keep = _first(keys, sharing[chosen], self._sizes[campaign.id, offer.id])
            n = int(np.count_nonzero(keep))
            columns = [pa.repeat(campaign.id, n), pa.repeat(offer.id, n), _fixed(keys[keep]), pa.repeat(batch.name, n)]
            tables.append(pa.table([*columns, pa.array(batch.places[rows.rows[chosen[keep]]])], schema=QUEUED))
        return tables


def _first(keys: np.ndarray, sharing: Bools, size: int) -> Bools:
    """The keys that can be among the first `size`, though any that share an address may still drop out."""
    sure = np.sort(keys[~sharing])
    if size >= len(sure):
        return np.ones(len(keys), np.bool_)
    if size == 0:
        return np.zeros(len(keys), np.bool_)
    first: Bools = keys <= sure[size - 1]
    return first


def _fixed(keys: np.ndarray) -> pa.Array:
    return pa.Array.from_buffers(pa.binary(32), len(keys), [None, pa.py_buffer(np.ascontiguousarray(keys))])
