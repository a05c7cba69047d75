"""The counters of the pipeline `collect`, declared once."""

from __future__ import annotations

from transforms.streaming.counters import Counter, Counters

COUNTERS = Counters(
    "collect",
    (
        "read",  # messages of the sources; worry when it stands still while a source has a backlog
        "quarantined",  # kept aside with their bytes; worry at any: a producer or a rule is wrong (docs/features.md)
        "dropped",  # refused by a rule of severity drop; worry when their share of `read` grows
        "warned",  # let in though a rule of severity warn is broken, once a rule; worry when their share grows
        "repeats",  # duplicates by event_id; many after a restart. Worry when it nears `read`: nothing is acknowledged
        "appended",  # in the event store; worry when it stands still while `read` grows
    ),
    leaving=("quarantined", "dropped", "appended"),
)


def rule_counter(outcome: str, event_type: str, version: int, rule: str) -> Counter:
    """The counter of events of a type and version that broke a rule; `outcome` is quarantined, dropped or warned."""
    return Counter(COUNTERS.namespace, f"{outcome}/{event_type}/{version}/{rule}")


def rule_counts() -> dict[str, int]:
    """What this process has counted by type, version and rule."""
    return {name: count for name, count in sorted(COUNTERS.tally.items()) if "/" in name}
