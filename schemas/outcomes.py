"""The outcomes and reasons of a matched customer; each customer has exactly one, the first in this order."""

from __future__ import annotations

from typing import NamedTuple


class Outcome(NamedTuple):
    """`outcome` is emitted, held_out, outside, suppressed or dead_lettered; `reason` says why."""

    outcome: str
    reason: str | None


OUTCOMES: tuple[Outcome, ...] = (
    Outcome("emitted", None),
    Outcome("held_out", "global"),
    Outcome("held_out", "retailer"),
    Outcome("outside", "min_bucket_version"),
    Outcome("outside", "no_unit"),
    Outcome("outside", "namespace"),
    Outcome("held_out", "campaign"),
    Outcome("outside", "coverage"),
    Outcome("suppressed", "retailer_opted_out"),
    Outcome("suppressed", "no_consent"),
    Outcome("suppressed", "suppression_list"),
    Outcome("suppressed", "no_address"),
    Outcome("suppressed", "window_closed"),
    Outcome("suppressed", "frequency_cap"),
    Outcome("suppressed", "shared_address"),
    Outcome("suppressed", "offer_exhausted"),
    Outcome("dead_lettered", "over_size"),
    Outcome("dead_lettered", "refused_by_broker"),
)
EMITTED = 0
CODES: dict[tuple[str, str | None], int] = {(outcome, reason): code for code, (outcome, reason) in enumerate(OUTCOMES)}


def code(outcome: str, reason: str | None = None) -> int:
    """The number of an outcome in the columns of a batch."""
    return CODES[outcome, reason]


ASSIGNED_BY: tuple[str | None, ...] = (None, "hash", "sticky", "forced")
BY_NOTHING, BY_HASH, BY_STICKY, BY_FORCE = range(4)
