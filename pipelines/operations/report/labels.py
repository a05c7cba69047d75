"""The labels of the report: every outcome and reason, and what to do about each dead letter."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipelines.operations.report.charts import p_value, percent

LABELS: dict[tuple[str, str], str] = {
    ("held_out", "global"): "Global holdout",
    ("held_out", "retailer"): "Retailer’s holdout",
    ("held_out", "campaign"): "Campaign’s holdout",
    ("outside", "min_bucket_version"): "Assigned under an earlier bucket version",
    ("outside", "no_unit"): "No unit to assign by",
    ("outside", "namespace"): "Not in the experiment’s namespace",
    ("outside", "coverage"): "Beyond the experiment’s coverage",
    ("suppressed", "retailer_opted_out"): "Retailer has opted out",
    ("suppressed", "no_consent"): "No consent for the channel",
    ("suppressed", "suppression_list"): "On a suppression list",
    ("suppressed", "no_address"): "No address for the channel",
    ("suppressed", "window_closed"): "Sending window already closed",
    ("suppressed", "frequency_cap"): "Frequency cap reached",
    ("suppressed", "shared_address"): "Address shared with another customer",
    ("suppressed", "offer_exhausted"): "Offer exhausted",
    ("dead_lettered", "over_size"): "Event too large for the transport",
    ("dead_lettered", "refused_by_broker"): "Refused by the broker",
}
KINDS: dict[str, str] = {
    "emitted": "Emitted",
    "held_out": "Held out",
    "outside": "Outside",
    "suppressed": "Suppressed",
    "dead_lettered": "Dead-lettered",
}
_DEAD_LETTERS: dict[str, tuple[str, str]] = {
    "missing_id": ("The customer’s or the retailer’s id is empty", "Fill in the ids at the source."),
    "bad_id": ("An id has control characters or is too long", "Correct the ids at the source."),
    "inexact_id": (
        "An id is a number with a fraction, too large for its type, or no number",
        "Write the column that the detail names as text.",
    ),
    "duplicate_customer": (
        "The customer stands in an earlier row too, which was used",
        "Nothing is lost; make the ids unique at the source.",
    ),
    "over_size": ("The event is larger than the transport takes", "Shorten the campaign’s properties."),
    "refused_by_broker": ("The broker refused the event for good", "Read the detail in the examples below."),
}
_OFFER_KINDS = {"fixed": "Fixed", "unique_code": "Unique code", "code_list": "Code list"}
_NODES = {"any": "Any of", "not": "Not", "audience": "Audience", "list": "In list", "retailers": "For"}


def plain(name: str) -> str:
    """A name of the engine as words: `frequency_cap` gives `Frequency cap`."""
    words = name.replace("_", " ").strip()
    return words[:1].upper() + words[1:]


def losses(kind: str, counts: Mapping[str, int]) -> list[tuple[str, int]]:
    """The labels and counts of a kind's reasons that are not zero: known ones in the documented order first."""
    order = [reason for of, reason in LABELS if of == kind]
    names = [*(name for name in order if name in counts), *(name for name in counts if name not in order)]
    return [(LABELS.get((kind, name), plain(name)), counts[name]) for name in names if counts[name]]


def dead_letter(reason: str) -> tuple[str, str]:
    """What a dead letter's reason means, and what to do."""
    return _DEAD_LETTERS.get(reason, (plain(reason), "Read the detail in the examples below."))


def offer_kind(kind: str) -> str:
    """An offer's kind in words."""
    return _OFFER_KINDS.get(kind, plain(kind))


def node_word(kind: str, depth: int) -> str:
    """What stands before a node's label; nothing before SQL."""
    if kind == "all":
        return "All of" if depth else "Whole audience"
    return _NODES.get(kind, "")


def mismatched(stage: str, experiment: Mapping[str, Any]) -> str:
    """Why a stage's split cannot be trusted, with expected and observed shares."""
    variants = experiment["variants"]
    total = sum(v[stage] for v in variants)
    whole = sum(v["weight"] for v in variants)
    split = ", ".join(
        f"{v['key']} {percent(v[stage], total)} instead of {percent(v['weight'], whole)}" for v in variants
    )
    p = p_value(experiment["sample_ratio"][stage]["p_value"])
    if stage == "accepted":
        cause = "Events were emitted as planned, but their delivery lost more of one variant or is not over"
    elif stage == "emitted" and not experiment["sample_ratio"].get("assigned", {}).get("mismatch"):
        cause = "Customers were assigned as planned, but suppression or offers took more from one variant"
    else:
        cause = "Chance does not explain this; look for a cause before using the results"
    return f"The split among the {stage} is {split} ({p}). {cause}."


def verdict(stage: str, test: Mapping[str, Any]) -> str:
    """The sample-ratio test of a stage in words."""
    if test["p_value"] is None:
        return "Not tested: too few customers"
    if test["mismatch"]:
        return f"Mismatch: the {stage} are not split as planned. Do not use the results before the cause is known"
    return "As planned: the difference is within chance"
