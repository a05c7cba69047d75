"""A launch on Dataflow: what is decided here, and how it reaches the workers and comes back."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

from apache_beam.io.filesystems import FileSystems
from apache_beam.options.pipeline_options import GoogleCloudOptions, PipelineOptions

from connectors.gcs import RemoteFolder
from connectors.inputs.histories import history_files
from pipelines.engines.dataflow.checks import launch_problems, local_problems, needs_secrets, on_dataflow
from pipelines.launch.inputs import LaunchJob, needs_code_secret, prepare
from pipelines.launch.options import LaunchConfig, LaunchOptions
from pipelines.launch.remote_inputs import SHARED, RemoteInputs
from schemas.problems import InputError, Problem
from stores.launches.launch_folder import LaunchFolder


def check_launch(options: PipelineOptions) -> list[Problem]:
    """What workers could not use; from then on Cloud Storage is reached as the options say."""
    FileSystems.set_options(options)
    given = options.view_as(LaunchOptions)
    return launch_problems(given, options) if on_dataflow(options) else local_problems(given)


def pull_launch(folder: LaunchFolder) -> None:
    """The launch as it stands in Cloud Storage, here."""
    assert folder.remote is not None
    folder.remote.pull()
    folder.prepare()


def named(options: PipelineOptions, job: LaunchJob) -> PipelineOptions:
    """With a name for the job, unless it has one: Dataflow refuses a second job of a name while the first runs, so a
    launch is not run twice at a time."""
    cloud = options.view_as(GoogleCloudOptions)
    cloud.job_name = cloud.job_name or f"launch-{re.sub('[^a-z0-9]+', '-', job.plan.launch_id.lower()).strip('-')}"
    return options


def prepare_remote(config: LaunchConfig, folder: LaunchFolder) -> LaunchJob:
    """The launch, checked, with its campaigns as they are kept in its folder, where workers find them."""
    assert folder.remote is not None
    job = prepare(config, folder)
    if problems := needs_secrets(config.secrets, needs_code_secret(one.campaign for one in job.plan.campaigns)):
        raise InputError(problems)
    files = [*map(str, history_files(config.history)), *([config.sticky] if config.sticky else [])]
    afar = RemoteInputs(folder.remote.uri, config.mirrors, tuple(files))
    return replace(job, plan=replace(job.plan, root=str(folder.campaigns)), afar=afar)


def send_inputs(job: LaunchJob) -> None:
    """Puts the snapshot, the campaigns and the survey's decisions where the workers find them, the manifest last."""
    remote = _remote(job)
    for below in ("snapshot", *SHARED):
        remote.push(below)
    remote.put(job.folder.manifest)


def upload_results(job: LaunchJob, summary: dict[str, Any]) -> dict[str, Any]:
    """The summary of a launch, once all that closed it stands in Cloud Storage."""
    remote = _remote(job)
    remote.push("dead_letters")
    for path in (job.folder.sticky, job.folder.report, job.folder.summary):
        if path.is_file():
            remote.put(path)
    return summary


def _remote(job: LaunchJob) -> RemoteFolder:
    assert job.folder.remote is not None
    return job.folder.remote
