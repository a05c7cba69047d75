"""The counters of rebatch, declared once."""

from __future__ import annotations

from transforms.streaming.counters import Counters

COUNTERS = Counters(
    "rebatch",
    (
        "read",  # messages of the source; worry when it stands still while the source has a backlog
        "dead_lettered",  # could not be decoded; worry at any: a publisher is broken (docs/delivery.md)
        "already_settled",  # the ledger had their outcome; many after a restart, few otherwise
        "repeats",  # duplicates; worry when it nears `read`: messages are not acknowledged
        "held",  # not due yet; they end in `released`, or in `left_waiting` at the end of the input
        "released",  # held until they were due; worry when it stands still while some are due
        "batched",  # reached the delivery; worry when it stands still while `read` grows
        "accepted",  # the vendor took them
        "rejected",  # the vendor refused them for good; worry at more than a few per thousand
        "expired",  # too late to be sent; worry at any: the pace is too low, or a workspace failed for long
        "unknown",  # the call was sent and no answer proves its outcome; reconcile them (docs/delivery.md)
        "left_waiting",  # the run ended before they could leave; the next run reads them again
    ),
    leaving=("already_settled", "batched"),
)
LATENCY = "latency_ms"
"""A distribution: from the arrival of an accepted event to its receipt. Worry when it grows without a backlog."""
