"""What flows between the steps of a launch: record batches, and beside them numpy columns."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from schemas.columns.ids import id_texts
from schemas.contracts import DeadLetter

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


BROKEN_ROWS = b"campaigns.broken_rows"
"""Metadata of customers' rows: which of them, as int64 bytes, have text that is no UTF-8 (there it is escaped)."""


class CustomerBatch(NamedTuple):
    """Customers in the order of their file; `name` is stable over runs and workers.

    `places` are the rows' numbers in the whole batch, where only some of it is looked at.
    """

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
    """What became of an offer over the customers that were to be sent it.

    `others_suppressed` were to be sent something else, in a variant that is cut at the same place; `held_out_exhausted`
    are held out and would have been suppressed.
    """

    granted: int = 0
    condition_not_met: int = 0
    exhausted: int = 0
    fallback_granted: int = 0
    others_suppressed: int = 0
    held_out_exhausted: int = 0


@dataclass
class CampaignRows:
    """The matched customers of one campaign in one batch; every column has the length of `rows`.

    `rows` are positions in the batch, retailer by retailer, `customer` and `retailer` their ids. `outcome`
    and `suppression` are codes of schemas.outcomes (`suppression` also for customers held out: what would have
    been, but for a shared address); `bucket` is NaN and `variant` -1 where there is none; times are epoch milliseconds.
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
    offers: list[OfferGrant] = field(default_factory=list)
    event_id: pa.Array | None = None

    @classmethod
    def of(cls, campaign: str, rows: Ints, customer: pa.Array, retailer: pa.DictionaryArray) -> CampaignRows:
        """Rows about which nothing but the match is known."""
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
        """Which rows are to be sent."""
        return self.outcome == 0


@dataclass
class LaunchBatch:
    """A batch of customers with all that the launch has found out about it so far.

    `retailer` holds a code a row into `retailers`; `places` the rows' numbers among all that were read; `values`
    the evaluated properties; `counts` what the summary adds up; `seconds` the time each stage took.
    """

    name: str
    rows: pa.RecordBatch
    places: Ints
    retailer: Ints
    retailers: list[str]
    values: dict[str, pa.Array]
    offer_conditions: dict[str, Bools]
    campaigns: list[CampaignRows]
    counts: dict[str, Any]
    dead_letters: list[DeadLetter] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)

    def matched(self) -> Ints:
        """The rows that some campaign matched, ascending."""
        some = np.zeros(self.rows.num_rows, np.bool_)
        for campaign in self.campaigns:
            some[campaign.rows] = True
        return np.flatnonzero(some)

    def column(self, name: str, rows: Ints) -> pa.Array:
        """A customers' column at some rows as ids (schemas/columns/ids.py)."""
        return id_texts(self.rows.column(name).take(pa.array(rows))).cast(pa.string())


class EventBatch(NamedTuple):
    """A batch whose events are encoded: `bodies` and the attribute columns have one row an event.

    `place` tells where each event came from: (index of the campaign in the batch, index of its row).
    """

    batch: LaunchBatch
    bodies: pa.Array
    attributes: dict[str, Any]
    place: Ints


class Refusal(NamedTuple):
    """An event that cannot be published: its row, `over_size` or `refused_by_broker`, and why."""

    row: int
    reason: str
    detail: str
