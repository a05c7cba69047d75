"""Submit a built pipeline to Dataflow, as a job or as a template."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import apache_beam as beam
from apache_beam.options.pipeline_options import GoogleCloudOptions, PipelineOptions
from apache_beam.runners.dataflow.dataflow_runner import DataflowRuntimeException
from apache_beam.runners.dataflow.internal.apiclient import DataflowApplicationClient, DataflowJobAlreadyExistsError
from apache_beam.runners.runner import PipelineState
from google.api_core.exceptions import GoogleAPICallError
from google.auth.exceptions import GoogleAuthError
from google.cloud.dataflow_v1beta3 import JobState, ListJobsRequest

from schemas.problems import JobError

_UPDATABLE = (JobState.JOB_STATE_RUNNING, JobState.JOB_STATE_DRAINING)


class Submitted(NamedTuple):
    """What was submitted: a job by its id or, where `job` is None, a template by its address."""

    project: str
    region: str
    job: str | None
    template: str | None

    def __str__(self) -> str:
        if self.job is None:
            return f"the template is {self.template}; run it: gcloud dataflow jobs run NAME --gcs-location=…"
        where = f"{self.job} --project={self.project} --region={self.region}"
        page = f"https://console.cloud.google.com/dataflow/jobs/{self.region}/{self.job}?project={self.project}"
        return "\n".join([
            f"{'job':>8}  {self.job}",
            f"{'page':>8}  {page}",
            f"{'status':>8}  gcloud dataflow jobs describe {where}",
            f"{'drain':>8}  gcloud dataflow jobs drain {where}",
            f"{'cancel':>8}  gcloud dataflow jobs cancel {where}",
        ])  # fmt: skip


def name_job(options: PipelineOptions, name: str) -> PipelineOptions:
    """The options with a job name made from `name`, unless they have one. Dataflow refuses a second job of a name while
    the first runs."""
    cloud = options.view_as(GoogleCloudOptions)
    cloud.job_name = cloud.job_name or re.sub("[^a-z0-9]+", "-", name.lower()).strip("-")
    return options


def submit(pipeline: beam.Pipeline, options: PipelineOptions) -> tuple[Submitted, Callable[[], None]]:
    """What was submitted, and a function that waits for the job's end and raises JobError unless the job succeeds.

    Raises JobError when Google refuses the job.
    """
    cloud = options.view_as(GoogleCloudOptions)
    try:
        if cloud.update:
            _check_running(options)
        result: Any = pipeline.run()
    except DataflowJobAlreadyExistsError as error:
        raise JobError(f"{error} Or wait until it has ended") from error
    except (GoogleAPICallError, GoogleAuthError) as error:
        message = getattr(error, "message", None) or str(error)
        todo = "See docs/dataflow.md for the APIs, the roles and the options that a first run needs"
        raise JobError(f"Dataflow did not take the job ({type(error).__name__}: {message}). {todo}") from error
    job = result.job_id() if getattr(result, "has_job", False) else None
    submitted = Submitted(str(cloud.project), str(cloud.region), job, cloud.template_location)
    return submitted, partial(_wait, result, submitted)


def _check_running(options: PipelineOptions) -> None:
    """Raises JobError when there is no running job to update: Beam would look for it without end."""
    cloud = options.view_as(GoogleCloudOptions)
    request = ListJobsRequest(project_id=cloud.project, location=cloud.region)
    jobs = DataflowApplicationClient(options)._jobs_client.list_jobs(request)
    if not any(job.name == cloud.job_name and job.current_state in _UPDATABLE for job in jobs):
        todo = f"See `gcloud dataflow jobs list --status=active --region={cloud.region}`, and wait for one that starts"
        raise JobError(f"no job named {cloud.job_name} runs, so none can be updated. {todo}")


def _wait(result: Any, submitted: Submitted) -> None:
    print(submitted, flush=True)
    todo = "then run the same command again: it goes on where it stopped"
    try:
        state = result.wait_until_finish()
    except DataflowRuntimeException as error:
        raise JobError(f"the job {submitted.job} failed ({error}). See its page, {todo}") from error
    if state != PipelineState.DONE:
        raise JobError(f"the job {submitted.job} ended as {state}. See its page, {todo}")
