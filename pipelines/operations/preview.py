"""Preview one campaign: the launch itself, into a temporary folder."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import fastavro
import msgspec
from apache_beam.options.pipeline_options import PipelineOptions

from connectors.uri import sink_uri
from pipelines.launch.driver import launch
from pipelines.launch.options import LaunchConfig
from pipelines.launch.progress import Progress
from schemas.campaigns.configuration import Configuration, load_configuration
from schemas.problems import InputError, Problem


class Preview(msgspec.Struct):
    """The summary.json of the launch that was thrown away, of one campaign; and sample events. With `refused` its
    warnings are mistakes."""

    summary: dict[str, Any]
    events: list[dict[str, Any]]
    refused: bool


def preview(
    campaign: str,
    campaigns: str,
    customers: str,
    history: Sequence[str],
    sticky: str | None,
    samples: int,
    strict: bool,
    progress: Progress,
) -> Preview:
    """Launch one campaign into a temporary folder. The launch id is made up, so its codes are not valid.

    `strict`, here or in engine.yaml, refuses a preview with warnings. Raises InputError for mistakes in the inputs.
    """
    config = _load(campaign, campaigns)
    with tempfile.TemporaryDirectory(prefix="campaigns-preview-") as folder, _any_secret(config.engine.code_secret):
        job = LaunchConfig(
            campaigns=Path(campaigns),
            customers=customers,
            events=sink_uri(f"file:{folder}/events"),
            output=f"{folder}/launch",
            history=tuple(history),
            sticky=sticky,
            test=True,
            only=campaign,
        )
        try:
            summary = launch(job, PipelineOptions([]), progress)
            assert isinstance(summary, dict)  # nothing is submitted from here
        finally:
            progress.stop()
        refused = bool(summary["warnings"]) and (strict or config.engine.strict)
        return Preview(summary, _read_events(Path(folder) / "events", samples), refused)


def _load(campaign: str, campaigns: str) -> Configuration:
    config, problems = load_configuration(Path(campaigns))
    names = [known.id for known in config.campaigns] if config else []
    if campaign not in names:
        problems.append(Problem("command line", "CAMPAIGN", campaign, f"there are: {', '.join(names)}"))
    if problems or config is None:
        raise InputError(problems)
    return config


@contextmanager
def _any_secret(name: str) -> Iterator[None]:
    """Set the variable of the code secret, if it is not set: a preview's codes are not valid in any case."""
    before = os.environ.get(name)
    os.environ[name] = before or "no secret is needed for a preview"
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(name, None)


def _read_events(folder: Path, count: int) -> list[dict[str, Any]]:
    """The first events of the files, at most so many."""
    events: list[dict[str, Any]] = []
    for path in sorted(folder.glob("*.avro")):
        with open(path, "rb") as file:
            events += islice(fastavro.reader(file), count - len(events))
    return events
