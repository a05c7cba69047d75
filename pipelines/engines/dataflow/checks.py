"""Check the options of a job on Dataflow before it is submitted. Its workers cannot see the disk of this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from apache_beam.options.pipeline_options import (
    GoogleCloudOptions,
    PipelineOptions,
    SetupOptions,
    StandardOptions,
    WorkerOptions,
)

from connectors.gcs import REMOTE, is_remote
from connectors.secrets import PROJECT
from connectors.tables.sources import BIGQUERY
from pipelines.engines.presets import DATAFLOW
from schemas.problems import Problem
from stores.ledger.open import open_ledger
from stores.ledger.sqlite import SqliteLedger

_SETUP = Path(__file__).parents[3] / "setup.py"
_FIRESTORE = "firestore:projects/P/databases/(default)/deliveries"


def on_dataflow(options: PipelineOptions) -> bool:
    """Whether the runner is Dataflow."""
    return str(options.view_as(StandardOptions).runner or "").rpartition(".")[2] == DATAFLOW


def complete_options(options: PipelineOptions) -> list[Problem]:
    """A problem for each of Beam's own options that Dataflow requires. Fills in the runner and --setup_file;
    an image of workers needs none, since it holds our packages already.
    """
    cloud, setup = options.view_as(GoogleCloudOptions), options.view_as(SetupOptions)
    options.view_as(StandardOptions).runner = DATAFLOW
    if setup.save_main_session is None:
        setup.save_main_session = False  # workers run code of packages only
    if not setup.setup_file and not options.view_as(WorkerOptions).sdk_container_image and _SETUP.is_file():
        setup.setup_file = str(_SETUP)
    problems = [
        _wrong(name, "missing", f"Dataflow needs it: {what}")
        for name, what in (
            ("project", "the id of your Google Cloud project"),
            ("region", "where the workers run, such as europe-west1; use the region of your data"),
            ("temp_location", "a folder in a bucket of the same region, such as gs://BUCKET/tmp"),
        )
        if not getattr(cloud, name)
    ]
    for name in ("temp_location", "staging_location"):
        value = getattr(cloud, name)
        if value and not is_remote(value):
            problems.append(_wrong(name, value, "workers cannot see this machine's folders; give gs://BUCKET/FOLDER"))
    return problems


def _invisible(values: dict[str, list[Any]]) -> list[Problem]:
    """A problem for each folder or file, by its option, that workers could not see."""
    fix = f"workers on Dataflow cannot see it; copy it to a bucket (gcloud storage cp -r) and give {REMOTE}BUCKET/…"
    paths = [(name, path) for name, given in values.items() for path in given if path]
    return [_wrong(name, path, fix) for name, path in paths if not is_remote(path) and not path.startswith(BIGQUERY)]


def rebatch_problems(config: Any, options: PipelineOptions) -> list[Problem]:
    """The problems that keep a checked configuration of rebatch from running on Dataflow."""
    problems = [*complete_options(options), *_invisible({"campaigns": [config.campaigns], "output": [config.output]})]
    if (folder := config.events.folder) and not is_remote(folder):
        fix = "workers on Dataflow cannot see it; give file:gs://BUCKET/FOLDER, or a pubsub: URI"
        problems.append(_wrong("events", str(config.events), fix))
    if isinstance(open_ledger(config.ledger), SqliteLedger):
        fix = f"is a file of one machine, and Dataflow has several; give {_FIRESTORE}"
        problems.append(_wrong("ledger", config.ledger, fix))
    if config.drain:
        fix = "a job on Dataflow is drained from outside: leave it out, and use gcloud dataflow jobs drain JOB_ID"
        problems.append(_wrong("drain", "given", fix))
    return problems


def launch_problems(launch: Any, options: PipelineOptions) -> list[Problem]:
    """The problems in the options of a launch that keep it from running on Dataflow. Downloads nothing."""
    problems = complete_options(options)
    if launch.output and not is_remote(launch.output):
        fix = "workers on Dataflow write there too; give a folder in a bucket, gs://BUCKET/FOLDER"
        problems.append(_wrong("output", launch.output, fix))
    if launch.events and launch.events.startswith("file:") and not is_remote(launch.events.removeprefix("file:")):
        fix = "workers on Dataflow cannot see it; give file:gs://BUCKET/FOLDER, or pubsub:projects/P/topics/T"
        problems.append(_wrong("events", launch.events, fix))
    inputs = {"customers": [launch.customers], "history": launch.history or [], "sticky": [launch.sticky]}
    return problems + _invisible(inputs)


def local_problems(config: Any) -> list[Problem]:
    """A problem when a job on this machine has its output in Cloud Storage."""
    fix = "only a job on Dataflow writes there; give a folder of this machine"
    return [_wrong("output", config.output, fix)] if is_remote(config.output or "") else []


def secrets_problems(project: str | None) -> list[Problem]:
    """A problem when --secrets does not name a project."""
    if project is None or PROJECT.fullmatch(project):
        return []
    return [_wrong("secrets", project, "write projects/P: the project whose Secret Manager holds the keys")]


def needs_secrets(project: str | None, keys: bool) -> list[Problem]:
    """A problem when workers need keys and --secrets is missing: they have no environment variables of this machine."""
    if not keys or project:
        return []
    fix = "workers on Dataflow have none of your environment variables; put each key into Secret Manager under the "
    return [_wrong("secrets", "missing", fix + "variable's name and give --secrets projects/P")]


def _wrong(name: str, value: str, fix: str) -> Problem:
    return Problem("command line", f"--{name}", value, fix)
