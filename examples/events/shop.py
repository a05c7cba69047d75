"""Item scans and visits of an invented shop, with the truth that they were drawn from. The same seed gives the same."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from examples.events.tables import Generated, Numbers, event_table

_DAY_MS = 86_400_000
_IN_OUTAGE = 0.05  # how often an item is found while its shelf is empty
_ACTIONS = ("impression", "view", "add", "purchase")
_LATER_MS = (0, 1_500, 9_000, 240_000)  # after the product was shown
_PLACES = 12
_SEEN = 0.85  # the share of visitors who look at a place that look at the next one too


def item_scans(
    count: int, seed: int, start_ms: int, span_ms: int = _DAY_MS, stores: int = 20, products: int = 200
) -> Generated:
    """Scans at random times. The truth has a row an item: how often it is found (`found_rate`), and from when until
    when its shelf is empty (`empty_from`, `empty_until`; equal where it never is). Some items are looked for far more
    often than others (Zipf)."""
    random = np.random.default_rng([seed, 1])
    items = stores * products
    rate = random.beta(12, 2, items)
    from_ms = start_ms + random.integers(0, span_ms, items)
    until_ms = from_ms + np.where(random.random(items) < 0.3, random.integers(span_ms // 24, span_ms // 4, items), 0)
    weights = 1 / (1 + random.permutation(items))
    item = random.choice(items, count, p=weights / weights.sum())
    at = np.sort(start_ms + random.integers(0, span_ms, count))
    empty = (at >= from_ms[item]) & (at < until_ms[item])
    found = random.random(count) < np.where(empty, _IN_OUTAGE, rate[item])
    store = [f"store-{number}" for number in range(stores)]
    product = [f"product-{number}" for number in range(products)]
    events = event_table(
        "item_scan",
        [f"scan-{seed}-{number}" for number in range(count)],
        at,
        _lag(random, count),
        store_id=[store[one // products] for one in item],
        product_id=[product[one % products] for one in item],
        shopper_id=[f"shopper-{one}" for one in random.integers(0, 300, count)],
        order_id=[f"order-{one}" for one in random.integers(0, max(1, count // 20), count)],
        found=found,
        units=pa.array(random.integers(1, 4, count), mask=~found),
    )
    truth = pa.table(
        {
            "store_id": [store[one // products] for one in range(items)],
            "product_id": [product[one % products] for one in range(items)],
            "found_rate": rate,
            "empty_from": from_ms,
            "empty_until": until_ms,
        }
    )
    return Generated("item_scan", events, truth)


def session_events(sessions: int, seed: int, start_ms: int, span_ms: int = _DAY_MS, products: int = 500) -> Generated:
    """Visits with a list of 12 products each. A product is viewed if the visitor looks at its place (85 % of those who
    looked at the one before) and is attracted; then it may be added, and bought. The truth has a row a product:
    `attraction` (viewed when looked at), `added` (when viewed), `bought` (when added)."""
    random = np.random.default_rng([seed, 2])
    chances = {"attraction": random.beta(2, 6, products), "added": random.beta(2, 3, products),
               "bought": random.beta(5, 3, products)}  # fmt: skip
    began = start_ms + random.integers(0, span_ms, sessions)
    shown = np.argsort(random.random((sessions, products)), axis=1)[:, :_PLACES]
    looked = random.geometric(1 - _SEEN, sessions)[:, None] > np.arange(_PLACES)
    viewed = looked & (random.random(shown.shape) < chances["attraction"][shown])
    added = viewed & (random.random(shown.shape) < chances["added"][shown])
    bought = added & (random.random(shown.shape) < chances["bought"][shown])
    household = np.where(random.random(sessions) < 0.8, random.integers(1, 2_500, sessions), 0)
    happened = [np.ones_like(looked), viewed, added, bought]
    step, session, place = np.nonzero(np.stack(happened))
    at = began[session] + 3_000 * place + np.array(_LATER_MS)[step] + random.integers(0, 800, len(step))
    count = len(at)
    events = event_table(
        "session_event",
        [f"visit-{seed}-{one}-{kind}-{spot}" for one, kind, spot in zip(session, step, place, strict=True)],
        at,
        _lag(random, count),
        session_id=[f"session-{seed}-{one}" for one in session],
        household_id=[f"hh-{one}" if one else None for one in household[session]],
        product_id=[f"product-{one}" for one in shown[session, place]],
        action=[_ACTIONS[kind] for kind in step],
        place=pa.array(place + 1, mask=step != 0),
        query=[None] * count,
    )
    truth = pa.table({"product_id": [f"product-{one}" for one in range(products)], **chances})
    return Generated("session_event", events, truth)


def _lag(random: np.random.Generator, count: int) -> Numbers:
    """Milliseconds from an event to its publication: nearly all within a second, one of a thousand minutes later."""
    lag = random.lognormal(4.5, 0.6, count)
    return np.where(random.random(count) < 0.001, lag * 1_000, lag).astype(np.int64)
