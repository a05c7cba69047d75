"""Preview one campaign: the launch itself, into a folder that is thrown away."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import fastavro
from apache_beam.options.pipeline_options import PipelineOptions

from connectors.uri import sink_uri
from pipelines.launch.driver import launch
from pipelines.launch.input_warnings import list_lines
from pipelines.launch.options import LaunchConfig
from pipelines.launch.progress import Progress
from schemas.campaigns.configuration import load_configuration
from schemas.campaigns.engine import EngineConfig
from schemas.problems import InputError, Problem
from transforms.warnings.earlier import earlier_lines
from transforms.warnings.warning import refusal, warning_text


def preview(
    campaign: str,
    campaigns: str,
    customers: str,
    history: tuple[str, ...],
    sticky: str | None,
    samples: int,
    strict: bool,
    progress: Progress,
) -> Iterator[str]:
    """Lines with the funnel, the variants, the offers, the lists, the warnings, and sample events.

    The launch id is made up, so its codes are nobody's; nothing is left behind. Where it is strict (or engine.yaml
    is), warnings raise InputError in the end.
    """
    strict = _known(campaign, campaigns).strict or strict
    with tempfile.TemporaryDirectory(prefix="campaigns-preview-") as folder, _some_secret(campaigns):
        config = LaunchConfig(
            campaigns=Path(campaigns),
            customers=customers,
            events=sink_uri(f"file:{folder}/events"),
            output=f"{folder}/launch",
            history=history,
            sticky=sticky,
            test=True,
            only=campaign,
        )
        try:
            summary = launch(config, PipelineOptions([]), progress)
        finally:
            progress.stop()
        yield from funnel(summary["campaigns"][0])
        yield from list_lines(summary["lists"])
        yield from earlier_lines(summary)
        if not strict:
            yield from map(warning_text, summary["warnings"])
        yield from _events(Path(folder) / "events", samples)
        if strict and summary["warnings"]:
            raise refusal(summary["warnings"])


def _known(campaign: str, campaigns: str) -> EngineConfig:
    config, problems = load_configuration(Path(campaigns))
    names = [one.id for one in config.campaigns] if config else []
    if campaign not in names:
        problems.append(Problem("command line", "CAMPAIGN", campaign, f"there are: {', '.join(names)}"))
    if problems or config is None:
        raise InputError(problems)
    return config.engine


@contextmanager
def _some_secret(campaigns: str) -> Iterator[None]:
    """A secret for the codes of a preview, where none is set: they are not valid anyway."""
    config, _ = load_configuration(Path(campaigns))
    name = config.engine.code_secret if config else ""
    before = os.environ.get(name)
    os.environ[name] = before or "no secret is needed for a preview"
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(name, None)


def funnel(one: dict[str, Any]) -> Iterator[str]:
    """A campaign's summary as lines: from evaluated to emitted, then variants and offers."""
    yield f"{one['id']} ({one['surface']}, {one['channel']})"
    yield from _nodes(one["audience"], 1)
    yield f"{one['matched']:>12,}  matched of {one['evaluated']:,}"
    for outcome in ("held_out", "outside", "suppressed", "dead_lettered"):
        for reason, number in one[outcome].items():
            yield f"{-number:>12,}  {outcome.replace('_', ' ')}: {reason.replace('_', ' ')}"
    yield f"{one['emitted']:>12,}  would be sent"
    for variant in (one["experiment"] or {}).get("variants", ()):
        yield (
            f"{variant['emitted']:>12,}  variant {variant['key']}: weight {variant['weight']:.1%}, "
            f"share {variant['share']:.1%} ({variant['low']:.1%} to {variant['high']:.1%})"
        )
    for offer in one["offers"]:
        left = "" if offer["budget"] is None else f" of {offer['budget']:,}"
        yield (
            f"{offer['granted'] + offer['fallback_granted']:>12,}  offer {offer['id']}{left}; "
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


def _events(folder: Path, samples: int) -> Iterator[str]:
    left = samples
    for path in sorted(folder.glob("*.avro")):
        with open(path, "rb") as file:
            for event in islice(fastavro.reader(file), left):
                left -= 1
                yield json.dumps(event, indent=2, default=str, ensure_ascii=False)
