"""Features of orders: what a household spends, and what a store sells."""

from schemas.features.declarations import Aggregation, FeatureGroup

SPANS = ("5m", "1h", "7d")

HOUSEHOLD_SPEND = FeatureGroup(
    name="household_spend",
    version=1,
    source="order_line",
    key=("household_id",),
    aggregations=(
        Aggregation("count", windows=SPANS, name="lines", default=0),
        Aggregation("sum", "sales_cents", SPANS, default=0),
        Aggregation("max", "sales_cents", SPANS),
        Aggregation("last", "store_id", SPANS),
    ),
    owner="growth",
    description="What a household bought, and where it bought last.",
)

ITEM_SALES = FeatureGroup(
    name="item_sales",
    version=1,
    source="order_line",
    key=("store_id", "product_id"),
    aggregations=(
        Aggregation("count", windows=SPANS, name="lines", default=0),
        Aggregation("sum", "quantity", SPANS, default=0),
        Aggregation("mean", "sales_cents", SPANS),
        Aggregation("last", "occurred_at", SPANS),
    ),
    owner="availability",
    description="What a store sold of a product.",
)
