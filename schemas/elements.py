"""The elements of a launch: record batches of customers, and numpy columns about them. No step changes its input."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from schemas.columns.ids import id_texts
from schemas.contracts import DeadLetter

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


BROKEN_ROWS = b"campaigns.broken_rows"
"""Metadata key of a record batch: the rows, as int64 bytes, whose text is not UTF-8 and therefore escaped."""


class CustomerBatch(NamedTuple):
    """Customers in the order of their file; `name` is stable over runs and workers. `places` are the row numbers in the
    whole batch, where only a part of it was read."""

    name: str
    rows: pa.RecordBatch
    places: Ints | None = None


@dataclass(frozen=True)
class OfferGrant:
    """One offer over a campaign's rows: who was granted it, with which code."""

    offer: str
    granted: Bools
    code: pa.Array | None = None


@dataclass(frozen=True)
class OfferCount:
    """The customers whose variant has an offer, by what happened to it.

    `others_suppressed` were to be sent another variant, which is cut at the same place of the hash order;
    `held_out_exhausted` are held out and would have been suppressed.
    """

    granted: int = 0
    condition_not_met: int = 0
    exhausted: int = 0
    fallback_granted: int = 0
    others_suppressed: int = 0
    held_out_exhausted: int = 0


@dataclass(frozen=True)
class CampaignRows:
    """The matched customers of one campaign in one batch; every column has the length of `rows`.

    `rows` are positions in the batch, retailer by retailer; `customer` and `retailer` are their ids. `outcome`
    and `suppression` are codes of schemas.outcomes. A held-out customer has a `suppression` too: the reason for which
    nothing would have been sent (shared addresses apart). `bucket` is NaN and `variant` -1 where there is none; times
    are epoch milliseconds.
    """

    campaign: str
    rows: Ints
    customer: pa.Array
    retailer: pa.DictionaryArray
    outcome: npt.NDArray[np.uint8]
    suppression: npt.NDArray[np.uint8]
    bucket: npt.NDArray[np.float64]
    variant: npt.NDArray[np.int16]
    assigned_by: npt.NDArray[np.uint8]
    deliver_after: Ints
    expires_at: Ints | None = None
    recipient: pa.Array | None = None
    offers: Sequence[OfferGrant] = ()
    event_id: pa.Array | None = None

    @classmethod
    def of(cls, campaign: str, rows: Ints, customer: pa.Array, retailer: pa.DictionaryArray) -> CampaignRows:
        """Matched rows before any other step: emitted, without bucket, variant and send time."""
        n = len(rows)
        return cls(
            campaign=campaign,
            rows=rows,
            customer=customer,
            retailer=retailer,
            outcome=np.zeros(n, np.uint8),
            suppression=np.zeros(n, np.uint8),
            bucket=np.full(n, np.nan),
            variant=np.full(n, -1, np.int16),
            assigned_by=np.zeros(n, np.uint8),
            deliver_after=np.zeros(n, np.int64),
        )

    @property
    def emitted(self) -> Bools:
        """The rows that are sent an event."""
        return self.outcome == 0


@dataclass(frozen=True)
class LaunchBatch:
    """A batch of customers with the results of the steps so far.

    `retailer` is an index into `retailers` for each row; `places` are the row numbers in the batch as it was read;
    `values` are the columns of the properties by their SQL; `counts` are added up by the summary; `seconds` are the
    seconds of each stage.
    """

    name: str
    rows: pa.RecordBatch
    places: Ints
    retailer: Ints
    retailers: Sequence[str]
    values: Mapping[str, pa.Array]
    offer_conditions: Mapping[str, Bools]
    campaigns: Sequence[CampaignRows]
    counts: Mapping[str, Any]
    dead_letters: Sequence[DeadLetter] = ()
    seconds: Mapping[str, float] = field(default_factory=dict)

    def with_counts(self, **counts: Any) -> LaunchBatch:
        """The batch with more counts."""
        return replace(self, counts={**self.counts, **counts})

    def with_seconds(self, stage: str, seconds: float) -> LaunchBatch:
        """The batch with the seconds of one more stage."""
        return replace(self, seconds={**self.seconds, stage: seconds})

    def matched(self) -> Ints:
        """The rows that at least one campaign matched, ascending."""
        mask = np.zeros(self.rows.num_rows, np.bool_)
        for campaign in self.campaigns:
            mask[campaign.rows] = True
        return np.flatnonzero(mask)

    def column(self, name: str, rows: Ints) -> pa.Array:
        """The ids (schemas/columns/ids.py) in a column of the customers, at the given rows."""
        return id_texts(self.rows.column(name).take(pa.array(rows))).cast(pa.string())


class EventBatch(NamedTuple):
    """A batch with its encoded events: `bodies` and the attribute columns have one row per event. `place` is the origin
    of each event: (index of the campaign in the batch, index of its row)."""

    batch: LaunchBatch
    bodies: pa.Array
    attributes: Mapping[str, Any]
    place: Ints

    def with_seconds(self, stage: str, seconds: float) -> EventBatch:
        """The batch with the seconds of one more stage."""
        return self._replace(batch=self.batch.with_seconds(stage, seconds))


class Refusal(NamedTuple):
    """An event that cannot be published: its row, the reason (`over_size`, `refused_by_broker`) and a detail."""

    row: int
    reason: str
    detail: str
