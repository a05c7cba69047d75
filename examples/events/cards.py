"""Attempts to pay by card with planted fraud, and the truth. The same seed gives the same."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from examples.events.tables import Generated, event_table

_DAY_MS = 86_400_000
_TESTED, _TAKEN = "card_testing", "takeover"


def card_attempts(
    count: int,
    seed: int,
    start_ms: int,
    span_ms: int = 7 * _DAY_MS,
    cards: int = 2_000,
    tests: int = 12,
    takeovers: int = 25,
) -> Generated:
    """`count` honest attempts and two kinds of fraud. Card testing: a device tries 40 cards within 10 minutes, with
    tiny amounts, most declined. Takeover: a stolen card buys for large amounts, 6 times within half an hour, far away.

    The truth has a row an event: `fraud` (card_testing, takeover or nothing) and `known_at`, when the bank reported it:
    2 to 30 days later; null for what is honest.
    """
    random = np.random.default_rng([seed, 3])
    honest = random.integers(0, cards, count)
    burst, victims = np.repeat(np.arange(tests), 40), random.integers(0, cards, 40 * tests)
    stolen = np.repeat(random.choice(cards, takeovers, replace=False), 6)
    n_test, n_taken = len(burst), len(stolen)
    began_test = start_ms + random.integers(0, span_ms - 600_000, tests)
    began_taken = start_ms + random.integers(0, span_ms - 1_800_000, takeovers)
    card = np.concatenate([honest, victims, stolen])
    at = np.concatenate(
        [
            start_ms + random.integers(0, span_ms, count),
            began_test[burst] + random.integers(0, 600_000, n_test),
            np.repeat(began_taken, 6) + random.integers(0, 1_800_000, n_taken),
        ]
    )
    cents = np.concatenate(
        [
            np.maximum(100, random.lognormal(8.3, 0.7, count)),
            random.integers(1, 200, n_test),
            random.integers(20_000, 90_000, n_taken),
        ]
    ).astype(np.int64)
    approved = random.random(len(card)) < np.repeat([0.96, 0.2, 0.7], [count, n_test, n_taken])
    distance = np.concatenate(
        [random.exponential(6, count), random.exponential(400, n_test), random.uniform(1_500, 9_000, n_taken)]
    )
    device = [
        *(f"device-{one}" for one in honest),
        *(f"device-t{seed}-{one}" for one in burst),
        *(f"device-s{seed}-{one}" for one in stolen),
    ]
    country = np.where(np.arange(len(card)) < count, "US", random.choice(["RO", "NG", "VN", "US"], len(card)))
    fraud = [None] * count + [_TESTED] * n_test + [_TAKEN] * n_taken
    event_ids = [f"attempt-{seed}-{one}" for one in random.permutation(len(card))]  # an id says nothing about fraud
    events = event_table(
        "card_attempt",
        event_ids,
        at,
        random.integers(0, 400, len(card)),
        card_id=[f"card-{one}" for one in card],
        household_id=[f"hh-{one + 1}" for one in card],
        device_id=device,
        store_id=[f"store-{one}" for one in random.integers(0, 20, len(card))],
        amount_cents=cents,
        approved=approved,
        country=country,
        distance_km=np.round(distance, 3),
    )
    known = at + random.integers(2 * _DAY_MS, 30 * _DAY_MS, len(card))
    truth = pa.table(
        {
            "event_id": event_ids,
            "fraud": pa.array(fraud, pa.string()),
            "known_at": pa.array(known, mask=np.arange(len(card)) < count),
        }
    )
    return Generated("card_attempt", events, truth)
