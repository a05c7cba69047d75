"""A preview as text: the funnel, variants and offers, the lists, the warnings, sample events."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from pipelines.launch.input_warnings import list_lines
from pipelines.operations.preview import Preview
from transforms.warnings.history_and_sticky import earlier_lines
from transforms.warnings.warning import warning_text


def preview_lines(preview: Preview) -> Iterator[str]:
    """The lines of a preview; the warnings only where they are not mistakes."""
    yield from _funnel(preview.summary["campaigns"][0])
    yield from list_lines(preview.summary["lists"])
    yield from earlier_lines(preview.summary)
    if not preview.refused:
        yield from map(warning_text, preview.summary["warnings"])
    for event in preview.events:
        yield json.dumps(event, indent=2, default=str, ensure_ascii=False)


def _funnel(campaign: dict[str, Any]) -> Iterator[str]:
    yield f"{campaign['id']} ({campaign['surface']}, {campaign['channel']})"
    yield from _nodes(campaign["audience"], 1)
    yield f"{campaign['matched']:>12,}  matched of {campaign['evaluated']:,}"
    for outcome in ("held_out", "outside", "suppressed", "dead_lettered"):
        for reason, number in campaign[outcome].items():
            yield f"{-number:>12,}  {outcome.replace('_', ' ')}: {reason.replace('_', ' ')}"
    yield f"{campaign['emitted']:>12,}  would be sent"
    for variant in (campaign["experiment"] or {}).get("variants", ()):
        yield (
            f"{variant['emitted']:>12,}  variant {variant['key']}: weight {variant['weight']:.1%}, "
            f"share {variant['share']:.1%} ({variant['low']:.1%} to {variant['high']:.1%})"
        )
    for offer in campaign["offers"]:
        of_budget = "" if offer["budget"] is None else f" of {offer['budget']:,}"
        yield (
            f"{offer['granted'] + offer['fallback_granted']:>12,}  offer {offer['id']}{of_budget}; "
            f"{offer['condition_not_met']:,} do not meet its condition, {offer['exhausted']:,} came too late"
        )
        if offer["others_suppressed"] or offer["held_out_exhausted"]:
            others, held = offer["others_suppressed"], offer["held_out_exhausted"]
            yield f"{others:>12,}  of the other variants are suppressed with them; of the held out {held:,} would be"


def _nodes(node: dict[str, Any], depth: int) -> Iterator[str]:
    failed = f", {node['failed']:,} with an error" if node["failed"] else ""
    yield f"{node['passed']:>12,}{'  ' * depth}{node['label']}  (of {node['entered']:,}{failed})"
    for child in node["children"]:
        yield from _nodes(child, depth + 1)
