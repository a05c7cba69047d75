"""The counters of the pipeline `features`, declared once."""

from __future__ import annotations

from transforms.streaming.counters import Counters

COUNTERS = Counters(
    "features",
    (
        "read",  # events of the store; worry when it stands still while the store grows
        "rejected",  # broken, or refused by a rule; worry at any: `collect` lets none through
        "repeats",  # events whose id stands in the log shortly before; worry when it nears `read`
        "folded",  # events added to a group's rows, once a group
        "filtered",  # events that do not satisfy a group's conditions, once a group
        "unkeyed",  # events with a null in a group's key; worry at any: the producer leaves it out
        "late",  # older than a group keeps; the compaction adds what it still can
        "oversized",  # have a number too large for a group's sums; worry at any: a rule of the type should refuse it
        "already_folded",  # read again after a restart or by a second owner, and in the rows already
        "rows_written",
    ),
)
FRESHNESS = "freshness_ms"
"""A distribution: from an event's publishing to its value being readable. Worry when it grows without a backlog."""
